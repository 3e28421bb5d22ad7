/**
 * The lines that the user has sent and that are not in their room yet. Each has a ref, under which
 * the server stores it once however often it is sent. Of one room only the first is on its way, so
 * that a retry changes no order.
 *
 * A line is `queued`, `sending`, `sent` (stored under `id`, and soon heard), or `failed`.
 */

import { randomRef } from "./ids.js";

/** For so long a line may be repeated under its ref: a little less than the server remembers it. */
const REF_IS_SAFE = 280_000;

/** So often a line is tried while the server cannot store it, before its user is asked. */
const TRIES = 3;

export const NOT_CONFIRMED = "Not confirmed: it may have been sent or not.";

export class Outgoing {
  #lines;

  /** From what `saved` returned, perhaps before a reload. */
  constructor(lines = []) {
    this.#lines = lines.filter(({ state }) => state !== "sent");
    this.disconnected();
  }

  saved() {
    return this.#lines;
  }

  of(room) {
    return this.#lines.filter((line) => line.room === room);
  }

  find(ref) {
    return this.#lines.find((line) => line.ref === ref);
  }

  add(room, text) {
    const line = { room, text, ref: randomRef(), at: Date.now(), first: null, state: "queued", tries: 0, why: "" };
    this.#lines.push(line);
    return line;
  }

  remove(line) {
    this.#lines = this.#lines.filter((other) => other !== line);
  }

  removeRoom(room) {
    this.#lines = this.#lines.filter((line) => line.room !== room);
  }

  /** What was on its way has to be sent again. */
  disconnected() {
    for (const line of this.#lines) {
      if (line.state === "sending") line.state = "queued";
    }
  }

  /** The line whose turn it is in a room, unless one is on its way. */
  next(room, now = Date.now()) {
    const lines = this.of(room);
    if (lines.some(({ state }) => state === "sending")) return null;
    for (const line of lines.filter(({ state }) => state === "queued")) {
      if (line.first === null || now - line.first < REF_IS_SAFE) return line;
      // Whether it was stored can no longer be found out, and it must not be said twice.
      this.fail(line, NOT_CONFIRMED);
    }
    return null;
  }

  /** A connection was given the line. From the first time on its ref has an age. */
  given(line, now = Date.now()) {
    line.first ??= now;
    line.state = "sending";
    line.tries += 1;
  }

  fail(line, why) {
    line.state = "failed";
    line.why = why;
    line.echo = null;
  }

  /** The server refused a line that may be tried again. False if its user is to be asked first. */
  again(line, code) {
    if (code === "unavailable" && line.tries >= TRIES) return false;
    line.state = "queued";
    return true;
  }

  /** The user wants a failed line tried again. Under a ref of its own if the old one is too old. */
  retry(line, now = Date.now()) {
    if (line.first !== null && now - line.first >= REF_IS_SAFE) {
      line.ref = randomRef();
      line.first = null;
    }
    line.state = "queued";
    line.tries = 0;
  }

  /** Notes that a message just heard looks like the line on its way, so that it is shown once. */
  heard(room, { id, text }) {
    const line = this.#lines.find((one) => one.room === room && one.state === "sending");
    if (line && line.text === text) line.echo = id;
  }
}
