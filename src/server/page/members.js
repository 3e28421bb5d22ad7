/** The list of the shown room's members, and of those who are typing. */

/** @import { Chat } from "./chat.js" */
/** @import { Room } from "./room.js" */

import { byId, h, isolated, reconcile, setText, unlike } from "./dom.js";
import { hue, inOrder, initial } from "./names.js";
import { listed } from "./rows.js";

/** The most members in the list; a room may have thousands. */
const MOST = 500;

/** The time between two checks for users who have stopped typing. */
const LOOK_EVERY = 1_000;

export class Members {
  #chat;
  #list = byId("member-list");
  #typing = byId("typing");
  #shown = "";
  /** @type {Set<string> | null} */
  #members = null;
  /** @type {string[]} */
  #names = [];

  /** @param {Chat} chat */
  constructor(chat) {
    this.#chat = chat;
    setInterval(() => this.#showTyping(), LOOK_EVERY);
  }

  show() {
    const room = this.#chat.active;
    const names = this.#sorted(room);
    const items = names.slice(0, MOST).map((name) => ({
      key: name,
      name,
      own: name === this.#chat.user,
      other: room?.lookalike(name),
    }));
    reconcile(this.#list, items, ({ own, other }) => `${own}|${other}`, member);
    this.#list.classList.toggle("stale", room !== null && room.state !== "joined");
    const more = names.length - items.length;
    setText(byId("more-members"), more > 0 ? `and ${more.toLocaleString()} more` : "");
    const count = names.length.toLocaleString();
    for (const id of ["member-count", "here-count"]) setText(byId(id), count);
    byId("members-button").setAttribute("aria-label", `${count} here: show who`);
    this.#showTyping();
  }

  /** Sorts the members only after one has come or gone. @param {Room | null} room */
  #sorted(room) {
    const members = room?.members ?? null;
    if (members !== this.#members) {
      this.#members = members;
      this.#names = [...(members ?? [])].sort(inOrder);
    }
    return this.#names;
  }

  #showTyping() {
    const users = this.#chat.active?.typists() ?? [];
    const verb = users.length === 1 ? "is typing…" : "are typing…";
    const text = users.length === 0 ? "" : `${listed(users)} ${verb}`;
    if (text === this.#shown) return;
    this.#shown = text;
    this.#typing.replaceChildren(...isolated(text));
  }
}

/** @param {{name: string, own: boolean, other?: string}} item */
function member({ name, own, other }) {
  return h(
    "li",
    { dataset: { hue: hue(name) } },
    h("span", { class: "picture small", "aria-hidden": "true" }, initial(name)),
    h("bdi", { class: "label" }, name),
    own ? h("span", { class: "you" }, "you") : null,
    unlike(other),
  );
}
