/**
 * The search in a room: first in what is loaded, then page by page in what the server keeps, from the
 * newest to the oldest.
 *
 * @typedef {object} Run A search.
 * @property {Room} room
 * @property {RegExp} pattern
 * @property {Message[]} found
 * @property {number} looked The number of messages that it has looked at.
 * @property {Message | null} oldest The last of them.
 * @property {boolean} more
 * @property {"" | "looking" | "paused" | "done"} state
 * @property {string} problem
 * @property {number} turn Counts how often the search went on.
 */

/** @import { Chat } from "./chat.js" */
/** @import { Room } from "./room.js" */
/** @import { Message } from "./wire" */

import { byId, h, reconcile, setText } from "./dom.js";
import { literal } from "./mention.js";
import { hue } from "./names.js";
import { clock, dayName, full } from "./time.js";

/** A search pauses after so many messages, and after so many that match. */
const LOOKED_AT_ONCE = 10_000;
const FOUND_AT_ONCE = 200;

/** The most matches that are shown. */
const SHOWN = 500;

/** The length of a match's surroundings, in characters. */
const BEFORE_MATCH = 60;
const EXCERPT = 200;

export class Search {
  #chat;
  #choose;
  #dialog = byId("search", HTMLDialogElement);
  #words = byId("search-words", HTMLInputElement);
  #found = byId("search-found");
  #more = byId("search-more");
  /** The search whose matches are shown. @type {Run | null} */
  #run = null;

  /** `choose(room, id)` shows a message. @param {Chat} chat @param {(room: string, id: string) => void} choose */
  constructor(chat, choose) {
    this.#chat = chat;
    this.#choose = choose;
    byId("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#begin(this.#words.value.trim());
    });
    this.#more.addEventListener("click", () => {
      if (this.#run?.state === "looking") this.#pause();
      else if (this.#run) this.#goOn(this.#run);
    });
    byId("search-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => this.#pause());
  }

  /** Opens the search of the shown room. */
  open() {
    const room = this.#chat.active;
    if (!room || this.#dialog.open) return;
    if (this.#run?.room !== room) this.#run = null;
    setText(byId("search-room"), room.name);
    this.#dialog.showModal();
    this.#words.select();
    this.show();
  }

  show() {
    if (!this.#dialog.open) return;
    const run = this.#run;
    // An operator may have deleted a match meanwhile.
    const found = run?.found.slice(0, SHOWN).map((one) => ({ key: one.id, run, ...run.room.concealed(one) })) ?? [];
    reconcile(this.#found, found, ({ text }) => text, (message) => this.#match(message));
    setText(byId("search-state"), run ? told(run) : "");
    this.#more.hidden = !run || run.state === "done";
    setText(this.#more, run?.state === "looking" ? "Stop" : "Go on");
  }

  /** @param {string} words */
  #begin(words) {
    const room = this.#chat.active;
    if (words === "" || !room) return;
    const pattern = new RegExp(literal(words), "iu");
    this.#run = { room, pattern, found: [], looked: 0, oldest: null, more: room.older, state: "", problem: "", turn: 0 };
    this.#look(this.#run, room.messages());
    this.#goOn(this.#run);
  }

  #pause() {
    if (this.#run?.state === "looking") this.#run.state = "paused";
    this.show();
  }

  /** Looks on until the room's beginning, a limit, a problem, or until the user stops it. @param {Run} run */
  async #goOn(run) {
    run.turn += 1;
    run.state = "looking";
    run.problem = "";
    const { turn } = run;
    const isOver = () => run !== this.#run || run.turn !== turn || run.state !== "looking";
    const [looked, found] = [run.looked + LOOKED_AT_ONCE, run.found.length + FOUND_AT_ONCE];
    while (run.more && run.oldest && run.looked < looked && run.found.length < found) {
      this.show();
      const answer = await this.#chat.past(run.room, run.oldest.id);
      if (isOver()) return;
      if ("messages" in answer) {
        run.more = answer.more && answer.messages.length > 0;
        this.#look(run, answer.messages);
      } else if (answer.retry_after_ms) {
        await new Promise((resolve) => setTimeout(resolve, answer.retry_after_ms));
        if (isOver()) return;
      } else {
        run.problem = answer.problem;
        break;
      }
    }
    run.state = run.more && run.oldest ? "paused" : "done";
    this.show();
  }

  /**
   * Looks at messages that are in the order of the room, before those that were looked at.
   * @param {Run} run
   * @param {Message[]} messages
   */
  #look(run, messages) {
    run.looked += messages.length;
    run.oldest = messages[0] ?? run.oldest;
    run.found.push(...messages.filter(({ text }) => run.pattern.test(text)).reverse());
  }

  /** @param {Message & {run: Run}} found */
  #match({ id, from, at, text, run: { room, pattern } }) {
    const match = pattern.exec(text) ?? { index: 0, 0: "" };
    const end = match.index + match[0].length;
    const begin = Math.max(0, match.index - BEFORE_MATCH);
    const open = () => {
      this.#dialog.close();
      this.#choose(room.name, id);
    };
    return h(
      "li",
      {},
      h(
        "button",
        { type: "button", class: "match", onclick: open },
        h("bdi", { class: "name", dataset: { hue: hue(from) } }, from),
        h("time", { datetime: new Date(at).toISOString(), title: full(at) }, `${dayName(at)}, ${clock(at)}`),
        h(
          "span",
          { class: "excerpt", dir: "auto" },
          begin > 0 ? "…" : "",
          text.slice(begin, match.index).toWellFormed(),
          h("mark", {}, match[0]),
          text.slice(end, end + EXCERPT).toWellFormed(),
          text.length > end + EXCERPT ? "…" : "",
        ),
      ),
    );
  }
}

/** The progress of a search, in words. @param {Run} run */
function told({ found, looked, oldest, state, problem }) {
  const shown = found.length > SHOWN ? ` (the newest ${SHOWN} are shown)` : "";
  const matches = found.length === 0 ? "Nothing found" : `${found.length.toLocaleString()} found${shown}`;
  const among = `${looked.toLocaleString()} ${looked === 1 ? "message" : "messages"}`;
  const back = state === "done" || !oldest ? "the whole room, as far as it is kept" : `back to ${full(oldest.at)}`;
  const going = state === "looking" ? " Looking on…" : "";
  return `${matches} in ${among}, ${back}.${going}${problem ? ` ${problem}` : ""}`;
}
