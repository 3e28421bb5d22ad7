/** The composer: the field in which the user writes a line for the shown room. */

/** @import { Chat } from "./chat.js" */
/** @import { Room } from "./room.js" */

import { byId, setText } from "./dom.js";
import { completed } from "./mention.js";

export class Composer {
  #chat;
  #form = byId("composer", HTMLFormElement);
  #text = byId("text", HTMLTextAreaElement);
  #button = byId("send", HTMLButtonElement);
  #problem = byId("composer-problem");
  /** @type {Room | null} */
  #room = null;

  /**
   * The composer calls `sent` after it has handed a line to the chat.
   * @param {Chat} chat
   * @param {() => void} sent
   */
  constructor(chat, sent) {
    this.#chat = chat;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#send()) sent();
    });
    this.#text.addEventListener("keydown", (event) => {
      // While an input method composes a character, Enter ends the composition and sends nothing.
      // Safari has ended it by then, and tells by the key code.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#form.requestSubmit();
    });
    this.#text.addEventListener("keydown", (event) => {
      if (event.key === "Tab" && !event.shiftKey && this.#complete()) event.preventDefault();
    });
    this.#text.addEventListener("input", () => this.#typed());
    new ResizeObserver(() => this.#fit()).observe(this.#form);
  }

  show() {
    const room = this.#chat.active;
    this.#form.hidden = !room;
    const { readonly } = this.#chat.session;
    this.#text.disabled = readonly;
    if (room) this.#text.placeholder = readonly ? "Your token is for reading only" : `Message ${room.name}`;
    if (room === this.#room) return;
    this.#room = room;
    this.#say("");
    if (!room) return;
    this.#text.value = room.draft;
    this.#text.setAttribute("aria-label", `Message to ${room.name}`);
    this.#fit();
  }

  /** Another tab wrote the draft. A field in which the user writes keeps what it has. */
  recall() {
    if (!this.#room || (document.hasFocus() && document.activeElement === this.#text)) return;
    this.#text.value = this.#room.draft;
    this.#fit();
  }

  /** On a touch screen, focusing the field would open the keyboard without being asked. */
  focus() {
    if (!matchMedia("(pointer: coarse)").matches) this.#text.focus();
  }

  #typed() {
    if (!this.#room) return;
    this.#room.draft = this.#text.value;
    this.#say("");
    this.#fit();
    if (this.#text.value.trim() !== "") this.#chat.typing(this.#room);
  }

  /** Completes the name that is begun behind an `@`. Returns false if there is none. */
  #complete() {
    const others = [...(this.#room?.members ?? [])].filter((name) => name !== this.#chat.user).sort();
    const found = completed(this.#text.value, this.#text.selectionEnd, others);
    if (!found) return false;
    this.#text.value = found.text;
    this.#text.setSelectionRange(found.caret, found.caret);
    this.#typed();
    return true;
  }

  #send() {
    const text = this.#text.value.replace(/\s+$/, "");
    if (text === "" || !this.#room) return false;
    const problem = this.#chat.say(this.#room, text);
    this.#say(problem ?? "");
    if (problem) return false;
    this.#text.value = "";
    this.#fit();
    this.#text.focus();
    return true;
  }

  /** @param {string} problem */
  #say(problem) {
    setText(this.#problem, problem);
    this.#problem.hidden = problem === "";
    this.#text.setAttribute("aria-invalid", String(problem !== ""));
  }

  /** Makes the field as high as its wrapped text, up to the limit of the style sheet; then it scrolls. */
  #fit() {
    this.#button.disabled = this.#text.disabled || this.#text.value.trim() === "";
    const { style } = this.#text;
    style.height = "auto";
    // The height of a field includes its border, and the height of its text does not.
    style.height = `${this.#text.scrollHeight + this.#text.offsetHeight - this.#text.clientHeight}px`;
  }
}
