/** The sidebar: the rooms with their unread messages, the form to join a room, and the user. */

import { byId, h, reconcile, setText } from "./dom.js";
import { hue, initial, objection, typed } from "./names.js";

export class Sidebar {
  #chat;
  #choose;
  #list = byId("room-list");
  #input = byId("join-room");
  #problem = byId("join-problem");

  /** `choose(name)` shows a room, and joins it first if necessary. It returns the reason if it cannot. */
  constructor(chat, choose) {
    this.#chat = chat;
    this.#choose = choose;
    byId("join").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#join();
    });
    this.#input.addEventListener("input", () => this.#say(""));
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

  #join() {
    // Many people write a hash before a room; it is not part of the name.
    const name = typed(this.#input.value).replace(/^#(?=.)/, "");
    const wrong = objection(name);
    const problem = wrong ? `The name ${wrong}.` : this.#choose(name);
    this.#say(problem ?? "");
    if (!problem) this.#input.value = "";
  }

  #say(problem) {
    setText(this.#problem, problem);
    this.#problem.hidden = problem === "";
    this.#input.setAttribute("aria-invalid", String(problem !== ""));
  }

  #item({ room, current }) {
    const unread = room.unread > 0 ? h("span", { class: "unread" }, room.unread > 99 ? "99+" : room.unread) : null;
    const told = room.unread > 0 ? h("span", { class: "hidden" }, " unread") : null;
    return h(
      "li",
      {},
      h(
        "button",
        { type: "button", class: "room", "aria-current": current ? "page" : null, onclick: () => this.#choose(room.name) },
        h("span", { class: "mark", "aria-hidden": "true" }, "#"),
        h("bdi", { class: "label" }, room.name),
        room.state === "refused" ? h("span", { class: "trouble", title: room.why }, "!") : null,
        unread,
        told,
      ),
    );
  }
}

const looks = ({ room, current }) => `${room.unread}|${current}|${room.state === "refused"}`;
