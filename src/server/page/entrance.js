/** The entrance: the form for the name, the room and, if the server demands one, the token. */

import { byId, setText } from "./dom.js";
import { objection, typed, userObjection } from "./names.js";
import { loadName, saveName } from "./store.js";

export class Entrance {
  #page = byId("entrance");
  #name = byId("name");
  #room = byId("first-room");
  #token = byId("token");
  #tokenPart = byId("token-part");
  #problem = byId("entrance-problem");
  #enter;

  /** The entrance calls `enter({name, room, token})`, which begins the chat. */
  constructor(enter) {
    this.#enter = enter;
    byId("entrance-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  /** Shows the form, with the known values and with the error. */
  open({ name, room, token = "", problem = "", wantsToken = false }) {
    this.#page.hidden = false;
    this.#name.value = name || subject(token) || loadName();
    this.#room.value = room;
    this.#token.value = token;
    this.#tokenPart.open = wantsToken || token !== "";
    this.#say(problem);
    const first = wantsToken ? this.#token : this.#name;
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
    this.#say("");
    saveName(name);
    return this.#enter({ name, room, token: this.#token.value.trim() });
  }

  #refuse(field, problem) {
    this.#say(problem);
    field.focus();
  }

  #say(problem) {
    setText(this.#problem, problem);
    this.#problem.hidden = problem === "";
  }
}

/** The user of a token (RFC 7519, section 4.1.2). Only the server checks whether it is valid. */
function subject(token) {
  try {
    const payload = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(payload), (character) => character.charCodeAt(0));
    return String(JSON.parse(new TextDecoder().decode(bytes)).sub ?? "");
  } catch {
    return "";
  }
}
