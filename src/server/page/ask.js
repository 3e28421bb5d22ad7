/** A question over the page. */

import { byId, setText } from "./dom.js";

const dialog = byId("ask", HTMLDialogElement);
const [asked, explained] = [byId("ask-question"), byId("ask-more")];
const [agree, refuse] = [byId("ask-yes"), byId("ask-no")];
agree.addEventListener("click", () => dialog.close("yes"));
refuse.addEventListener("click", () => dialog.close("no"));

/**
 * Asks, with a name for each answer. Resolves to whether the user agrees; Escape is a no.
 * @param {{question: string, more?: string, yes: string, no: string}} words
 * @returns {Promise<boolean>}
 */
export function ask({ question, more = "", yes, no }) {
  setText(asked, question);
  setText(explained, more);
  setText(agree, yes);
  setText(refuse, no);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
