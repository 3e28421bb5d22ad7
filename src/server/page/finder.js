/**
 * The form that joins a room: what is typed finds rooms of the server, and joins or creates one. A server
 * that lists no rooms leaves the plain field.
 */

/** @import { Chat } from "./chat.js" */
/** @import { Session } from "./session.js" */

import { byId, h, reconcile, setText } from "./dom.js";
import { objection, typed } from "./names.js";
import { ago } from "./time.js";

export class Finder {
  #chat;
  #choose;
  #form = byId("join");
  #input = byId("join-room", HTMLInputElement);
  #button = byId("join-button");
  #list = byId("found");
  #problem = byId("join-problem");
  #open = false;
  /** @type {Session["found"]} */
  #found = null;

  /**
   * `choose(name)` shows a room, and joins it first if necessary. It returns the reason if it cannot.
   * @param {Chat} chat
   * @param {(name: string) => string | null} choose
   */
  constructor(chat, choose) {
    this.#chat = chat;
    this.#choose = choose;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#join(this.#name());
    });
    this.#input.addEventListener("focus", () => {
      this.#open = true;
      this.#ask(true);
      this.show();
    });
    this.#input.addEventListener("input", () => {
      this.#open = true;
      this.#say("");
      this.#ask();
      this.show();
    });
    this.#form.addEventListener("focusout", ({ relatedTarget }) => {
      if (!(relatedTarget instanceof Node && this.#form.contains(relatedTarget))) this.#close();
    });
    // A press on a button must not take the focus from the field: some browsers give it to nobody then.
    this.#list.addEventListener("mousedown", (event) => {
      if (event.target !== this.#list) event.preventDefault();
    });
    this.#form.addEventListener("keydown", (event) => this.#pressed(event));
  }

  show() {
    const { rooms } = this.#chat;
    const { found } = this.#chat.session;
    const name = this.#name();
    const isNew = found !== null && name !== "" && !rooms.has(name) && !found.rooms.some(({ room }) => room === name);
    const word = isNew && !found.more ? "Create" : "Join";
    setText(this.#button, word);
    this.#list.hidden = !this.#open || found === null;
    if (!this.#open || found === null) return;
    // The text may have changed since the server was asked, and need another list.
    if (found !== this.#found) this.#ask();
    this.#found = found;
    const low = name.toLowerCase();
    const others = found.rooms.filter(({ room }) => !rooms.has(room) && room.toLowerCase().includes(low));
    /** @type {Item[]} */
    const items = others.map((one) => ({ key: one.room, ...one }));
    if (isNew && objection(name) === null) items.push({ key: "/new", room: name, word });
    reconcile(this.#list, items, looks, (item) => this.#item(item));
  }

  /** Many people write a hash before a room; it is not part of the name. */
  #name() {
    return typed(this.#input.value).replace(/^#(?=.)/, "");
  }

  /** Asks for the rooms that begin as it is typed, unless the list has them all. */
  #ask(anew = false) {
    const name = this.#name();
    const { found } = this.#chat.session;
    const isKnown = found !== null && name.startsWith(found.prefix) && (!found.more || name === found.prefix);
    if (name !== "" && objection(name) !== null) return;
    if (anew || (found !== null && !isKnown)) this.#chat.session.findRooms(name);
  }

  /** @param {string} name */
  #join(name) {
    const wrong = objection(name);
    const problem = wrong ? `The name ${wrong}.` : this.#choose(name);
    this.#say(problem ?? "");
    if (problem) return;
    this.#input.value = "";
    this.#close();
  }

  #close() {
    this.#open = false;
    this.show();
  }

  /** @param {string} problem */
  #say(problem) {
    setText(this.#problem, problem);
    this.#problem.hidden = problem === "";
    this.#input.setAttribute("aria-invalid", String(problem !== ""));
  }

  /**
   * The arrows go from the field through the list; Escape closes the list, and first of all.
   * @param {KeyboardEvent} event
   */
  #pressed(event) {
    const by = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (this.#list.hidden || event.altKey) return;
    if (event.key === "Escape") {
      event.stopPropagation();
      this.#input.focus();
      this.#close();
    } else if (by !== 0) {
      event.preventDefault();
      const stops = [this.#input, ...this.#list.querySelectorAll("button")];
      stops[stops.findIndex((one) => one === document.activeElement) + by]?.focus();
    }
  }

  /** @param {Item} item */
  #item({ room, members, at, word }) {
    const facts = word ? null : [`${members?.toLocaleString()} here`, at === undefined ? "" : ago(at)];
    return h(
      "li",
      {},
      h(
        "button",
        { type: "button", class: "room", onclick: () => this.#join(room) },
        h("span", { class: "mark", "aria-hidden": "true" }, word ? "+" : "#"),
        h("span", { class: "label" }, word ? `${word} ` : null, h("bdi", {}, room)),
        facts ? h("span", { class: "hint" }, facts.filter(Boolean).join(" · ")) : null,
      ),
    );
  }
}

/**
 * A room of the server; or a new one, with what the user may do to it in a `word`.
 * @typedef {{key: string, room: string, members?: number, at?: number, word?: string}} Item
 */

/** @param {Item} item */
const looks = ({ room, members, at, word }) => `${room}|${members}|${at === undefined ? "" : ago(at)}|${word}`;
