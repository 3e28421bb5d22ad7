/** The bar that shows a problem of the connection or the room, and a button against it. */

/** @import { Chat } from "./chat.js" */

import { byId, h, reconcile, setText } from "./dom.js";

/** The bar stays hidden while a connection takes less than this. */
const PATIENCE = 400;

/** The words for each state of a message that the user wants to see. */
const SOUGHT = {
  reading: "Looking for the message…",
  here: "",
  gone: "The room does not keep this message, or not any more.",
  far: "This message is too far back to be shown here.",
};

export class Status {
  #chat;
  #bar = byId("status");
  #signOut;
  #connectingSince = 0;

  /** The bar calls `signOut()` for a user who wants another name. @param {Chat} chat @param {() => void} signOut */
  constructor(chat, signOut) {
    this.#chat = chat;
    this.#signOut = signOut;
    setInterval(() => this.#count(), 250);
  }

  show() {
    const item = this.#item();
    reconcile(this.#bar, item ? [item] : [], ({ look }) => look, ({ make }) => make());
    this.#count();
  }

  #item() {
    const { session, active, user } = this.#chat;
    const { state } = session.connection;
    if (state.kind === "connecting" && state.why === "") {
      this.#connectingSince ||= Date.now();
      if (Date.now() - this.#connectingSince < PATIENCE) {
        setTimeout(() => this.show(), PATIENCE);
        return null;
      }
    } else {
      this.#connectingSince = 0;
    }
    if (state.kind === "connecting") {
      return bar("connecting", "busy", [state.why ? `${state.why} Reconnecting…` : "Connecting…"]);
    }
    if (state.kind === "waiting") {
      // Screen readers skip the countdown: read out each second, it would drown everything else.
      const count = h("span", { id: "countdown", "aria-hidden": "true" });
      const now = button("Try now", () => session.connection.retryNow());
      return bar(`waiting ${state.until}`, "busy", [h("span", {}, `${state.why} Reconnecting `, count), now]);
    }
    if (session.expires !== null) {
      const problem = session.renewalProblem;
      return bar(`expiring ${problem}`, "busy", ["Your token expires soon.", this.#renewal(), problem]);
    }
    if (active?.state === "refused") {
      const again = button("Try again", () => this.#chat.tryRoom(active));
      const leave = button("Remove the room", () => this.#chat.leave(active));
      return bar(`refused ${active.name} ${active.why}`, "bad", [active.why, again, leave]);
    }
    if (active && active.why !== "") {
      return bar(`outside ${active.name} ${active.why}`, "busy", [`${active.why} Trying again…`]);
    }
    if (active?.sought) {
      const { state } = active.sought;
      const end = button(state === "reading" ? "Stop" : "Close", () => this.#chat.seek(active, null));
      return bar(`sought ${active.name} ${state}`, "busy", [SOUGHT[state], end]);
    }
    if (active?.nameInUse) {
      const words = h("span", {}, h("bdi", {}, user), " is here already. If that is not you, choose another name.");
      const other = button("Choose another name", this.#signOut);
      const mine = button("It is me", () => this.#chat.keepName(active));
      return bar(`in use ${active.name}`, "busy", [words, other, mine]);
    }
    return null;
  }

  #renewal() {
    const field = h("input", { type: "password", "aria-label": "A fresh token", placeholder: "A fresh token", autocomplete: "off" });
    /** @param {SubmitEvent} event */
    const onsubmit = (event) => {
      event.preventDefault();
      if (field.value.trim() !== "") this.#chat.session.renew(field.value.trim());
    };
    return h("form", { class: "renewal", onsubmit }, field, h("button", { type: "submit", class: "quiet" }, "Go on"));
  }

  #count() {
    const { state } = this.#chat.session.connection;
    const count = document.getElementById("countdown");
    if (!count || state.kind !== "waiting") return;
    const seconds = Math.ceil((state.until - Date.now()) / 1000);
    setText(count, seconds > 0 ? `in ${seconds} s` : "now");
  }
}

/** @param {string} look @param {string} kind @param {(Node | string)[]} parts */
function bar(look, kind, parts) {
  return { key: look, look, make: () => h("div", { class: `bar ${kind}` }, ...parts) };
}

/** @param {string} text @param {() => void} onclick */
function button(text, onclick) {
  return h("button", { type: "button", class: "quiet", onclick }, text);
}
