/** A question over the page. */

import { byId, setText } from "./dom.js";

const dialog = byId("ask");
for (const answer of ["yes", "no"]) byId(`ask-${answer}`).addEventListener("click", () => dialog.close(answer));

/** Asks, with a name for each answer. Resolves to whether the user agrees; Escape is a no. */
export function ask({ question, more = "", yes, no }) {
  setText(byId("ask-question"), question);
  setText(byId("ask-more"), more);
  setText(byId("ask-yes"), yes);
  setText(byId("ask-no"), no);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
