/** The sidebar: the rooms with their unread messages and mentions, and the user. */

import { byId, h, reconcile, setText } from "./dom.js";
import { hue, initial } from "./names.js";

export class Sidebar {
  #chat;
  #choose;
  #list = byId("room-list");

  /** `choose(name)` shows a room. */
  constructor(chat, choose) {
    this.#chat = chat;
    this.#choose = choose;
  }

  show() {
    const { rooms, active, user, state } = this.#chat;
    const items = [...rooms.values()].map((room) => ({ key: room.name, room, current: room === active }));
    reconcile(this.#list, items, looks, (item) => this.#item(item));
    byId("no-rooms").hidden = rooms.size > 0;
    setText(byId("my-name"), user);
    const picture = byId("my-picture");
    setText(picture, user === "" ? "" : initial(user));
    picture.parentElement.dataset.hue = hue(user);
    const words = { online: "Online", connecting: "Connecting…", waiting: "Not connected", refused: "Not let in", idle: "" };
    setText(byId("my-state"), words[state.kind]);
    byId("me").dataset.state = state.kind;
  }

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

const few = (count) => (count > 99 ? "99+" : String(count));

const count = (kind, text, meaning) => [h("span", { class: kind }, text), h("span", { class: "hidden" }, meaning)];

const looks = ({ room, current }) =>
  `${room.unread}|${room.mentions}|${room.muted}|${current}|${room.state === "refused"}`;
