/** The sidebar: the rooms with their unread messages and mentions, and the user. */

/** @import { Chat } from "./chat.js" */
/** @import { Room } from "./room.js" */

import { byId, h, reconcile, setText } from "./dom.js";
import { hue, initial } from "./names.js";

export class Sidebar {
  #chat;
  #choose;
  #list = byId("room-list");

  /** `choose(name)` shows a room. @param {Chat} chat @param {(name: string) => void} choose */
  constructor(chat, choose) {
    this.#chat = chat;
    this.#choose = choose;
  }

  show() {
    const { rooms, active, user, session } = this.#chat;
    const items = [...rooms.values()].map((room) => ({ key: room.name, room, current: room === active }));
    reconcile(this.#list, items, looks, (item) => this.#item(item));
    byId("no-rooms").hidden = rooms.size > 0;
    setText(byId("my-name"), user);
    const picture = byId("my-picture");
    setText(picture, user === "" ? "" : initial(user));
    byId("me").dataset.hue = String(hue(user));
    const words = { online: "Online", connecting: "Connecting…", waiting: "Not connected", refused: "Not let in", idle: "" };
    const { kind } = session.connection.state;
    setText(byId("my-state"), words[kind]);
    byId("me").dataset.state = kind;
  }

  /** @param {Item} item */
  #item({ room, current }) {
    const { name, muted, unread, mentions } = room;
    const properties = {
      type: "button",
      class: muted ? "room muted" : "room",
      "aria-current": current ? "page" : null,
      onclick: () => this.#choose(name),
    };
    return h(
      "li",
      {},
      h(
        "button",
        properties,
        h("span", { class: "mark", "aria-hidden": "true" }, "#"),
        h("bdi", { class: "label" }, name),
        room.state === "refused" ? h("span", { class: "trouble", title: room.why }, "!") : null,
        muted ? h("span", { class: "hint" }, "muted") : null,
        ...(mentions > 0 ? count("mentions", `@${few(mentions)}`, " mentions") : []),
        ...(unread > 0 ? count("unread", few(unread), " unread") : []),
      ),
    );
  }
}

/** @typedef {{room: Room, current: boolean}} Item */

/** @param {number} count */
const few = (count) => (count > 99 ? "99+" : String(count));

/** @param {string} kind @param {string} text @param {string} meaning */
const count = (kind, text, meaning) => [h("span", { class: kind }, text), h("span", { class: "hidden" }, meaning)];

/** @param {Item} item */
const looks = ({ room, current }) =>
  `${room.unread}|${room.mentions}|${room.muted}|${current}|${room.state === "refused"}`;
