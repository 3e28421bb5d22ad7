/**
 * The lines that the user has sent and that are not in their room yet. Each has a ref, so the server
 * stores it once even if it is sent again. Only the first line of a room is on its way, so that a retry
 * does not change the order.
 *
 * A line is `queued`, `sending`, `sent` (stored under `id`, and soon heard), or `failed`.
 *
 * @typedef {object} Line
 * @property {string} room
 * @property {string} text
 * @property {string} ref
 * @property {number} at When the user sent it, in milliseconds since 1970.
 * @property {number | null} first When it was first on its way.
 * @property {"queued" | "sending" | "sent" | "failed"} state
 * @property {number} tries
 * @property {string} why Why it failed.
 * @property {string} [id]
 * @property {string | null} [echo] The id of a message that looks like it.
 */

import { randomRef } from "./ids.js";

/** The time for which a line may be repeated under its ref, a little less than the server keeps refs. */
const REF_IS_SAFE = 280_000;

/** The number of attempts before the page asks the user what to do with a line. */
const TRIES = 3;

export const NOT_CONFIRMED = "Not confirmed: it may have been sent or not.";

export class Outgoing {
  #lines;

  /** Begins with the value that `saved` returned, perhaps before a reload. @param {Line[]} lines */
  constructor(lines = []) {
    this.#lines = lines.filter(({ state }) => state !== "sent");
    this.disconnected();
  }

  saved() {
    return this.#lines;
  }

  /** @param {string} room */
  of(room) {
    return this.#lines.filter((line) => line.room === room);
  }

  /** @param {string} ref */
  find(ref) {
    return this.#lines.find((line) => line.ref === ref);
  }

  /** @param {string} room @param {string} text */
  add(room, text) {
    /** @type {Line} */
    const line = { room, text, ref: randomRef(), at: Date.now(), first: null, state: "queued", tries: 0, why: "" };
    this.#lines.push(line);
    return line;
  }

  /** @param {Line} line */
  remove(line) {
    this.#lines = this.#lines.filter((other) => other !== line);
  }

  /** @param {string} room */
  removeRoom(room) {
    this.#lines = this.#lines.filter((line) => line.room !== room);
  }

  /** After a break, the lines that were on their way have to be sent again. */
  disconnected() {
    for (const line of this.#lines) {
      if (line.state === "sending") line.state = "queued";
    }
  }

  /** The next line to send in a room; nothing while one is on its way. @param {string} room */
  next(room, now = Date.now()) {
    const lines = this.of(room);
    if (lines.some(({ state }) => state === "sending")) return null;
    for (const line of lines.filter(({ state }) => state === "queued")) {
      if (line.first === null || now - line.first < REF_IS_SAFE) return line;
      // The server may have stored it and has forgotten the ref: sending it again could repeat it.
      this.fail(line, NOT_CONFIRMED);
    }
    return null;
  }

  /** The line was sent. The age of its ref counts from the first time. @param {Line} line */
  given(line, now = Date.now()) {
    line.first ??= now;
    line.state = "sending";
    line.tries += 1;
  }

  /** @param {Line} line @param {string} why */
  fail(line, why) {
    line.state = "failed";
    line.why = why;
    line.echo = null;
  }

  /**
   * The server could not store a line. Returns false if the user has to decide about a retry.
   * @param {Line} line
   * @param {string} code
   */
  again(line, code) {
    if (code === "unavailable" && line.tries >= TRIES) return false;
    line.state = "queued";
    return true;
  }

  /** The user retries a failed line. It gets a new ref if the old one is too old. @param {Line} line */
  retry(line, now = Date.now()) {
    if (line.first !== null && now - line.first >= REF_IS_SAFE) {
      line.ref = randomRef();
      line.first = null;
    }
    line.state = "queued";
    line.tries = 0;
  }

  /**
   * Whether a message is one of these lines: by its id, or by its text while the id is not known yet.
   * @param {string} room
   * @param {{id: string, text: string}} message
   */
  has(room, { id, text }) {
    return this.of(room).some((line) => (line.state === "sent" ? line.id === id : line.text === text));
  }

  /**
   * Notes that a message looks like the line on its way, so that the page shows it once.
   * @param {string} room
   * @param {{id: string, text: string}} message
   */
  heard(room, { id, text }) {
    const line = this.#lines.find((one) => one.room === room && one.state === "sending");
    if (line && line.text === text) line.echo = id;
  }
}
