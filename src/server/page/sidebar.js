/** The sidebar: the rooms, with what is unread in each; the way into another; and oneself. */

import { byId, h, reconcile, setText } from "./dom.js";
import { hue, initial, objection, typed } from "./names.js";

export class Sidebar {
  #chat;
  #choose;
  #list = byId("room-list");
  #input = byId("join-room");
  #problem = byId("join-problem");

  /** `choose(name)` shows a room, entering it first where need be; it returns what is wrong. */
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
    // A hash in front is a habit, not a part of the name.
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
