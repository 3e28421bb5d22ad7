/** The entrance: the form for the name, the room and, if the server demands one, the token. */

import { byId, setText } from "./dom.js";
import { objection, typed, userObjection } from "./names.js";
import { loadName, saveName } from "./store.js";

export class Entrance {
  #page = byId("entrance");
  #name = byId("name", HTMLInputElement);
  #room = byId("first-room", HTMLInputElement);
  #token = byId("token", HTMLInputElement);
  #tokenPart = byId("token-part", HTMLDetailsElement);
  #problem = byId("entrance-problem");
  #enter;

  /**
   * The entrance calls `enter`, which begins the chat.
   * @param {(who: {name: string, room: string, token: string}) => void} enter
   */
  constructor(enter) {
    this.#enter = enter;
    for (const field of this.#fields()) field.addEventListener("input", () => say(field, ""));
    byId("entrance-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  /**
   * Shows the form, with the known values, and with the error beside its field if it concerns one.
   * @param {{name: string, room: string, token?: string, problem?: string, field?: "name" | "token" | null}} known
   */
  open({ name, room, token = "", problem = "", field = null }) {
    this.#page.hidden = false;
    this.#name.value = name || subject(token) || loadName();
    this.#room.value = room;
    this.#token.value = token;
    this.#tokenPart.open = field === "token" || token !== "";
    const first = field === "token" ? this.#token : this.#name;
    this.#tell(field && first, problem);
    first.focus();
    first.select();
  }

  close() {
    this.#page.hidden = true;
  }

  #submit() {
    const name = typed(this.#name.value);
    const room = typed(this.#room.value).replace(/^#(?=.)/, "");
    const wrongName = userObjection(name);
    if (wrongName) return this.#refuse(this.#name, `Your name ${wrongName}.`);
    const wrongRoom = objection(room);
    if (wrongRoom) return this.#refuse(this.#room, `The room's name ${wrongRoom}.`);
    this.#tell(null, "");
    saveName(name);
    return this.#enter({ name, room, token: this.#token.value.trim() });
  }

  /** @param {HTMLInputElement} field @param {string} problem */
  #refuse(field, problem) {
    this.#tell(field, problem);
    field.focus();
  }

  #fields() {
    return [this.#name, this.#room, this.#token];
  }

  /**
   * Tells a problem beside its field, or below all of them without one. The others have none.
   * @param {HTMLInputElement | null} field
   * @param {string} problem
   */
  #tell(field, problem) {
    for (const one of this.#fields()) say(one, one === field ? problem : "");
    show(this.#problem, field ? "" : problem);
  }
}

/** @param {HTMLInputElement} field @param {string} problem */
function say(field, problem) {
  show(byId(field.getAttribute("aria-describedby") ?? ""), problem);
  field.setAttribute("aria-invalid", String(problem !== ""));
}

/** @param {HTMLElement} element @param {string} problem */
function show(element, problem) {
  setText(element, problem);
  element.hidden = problem === "";
}

/** The user of a token (RFC 7519, section 4.1.2). Only the server checks whether it is valid. @param {string} token */
function subject(token) {
  try {
    const payload = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(payload), (character) => character.charCodeAt(0));
    return String(JSON.parse(new TextDecoder().decode(bytes)).sub ?? "");
  } catch {
    return "";
  }
}
