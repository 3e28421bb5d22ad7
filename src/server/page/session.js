/**
 * The session: the requests of the page that the server has not answered yet, the user's token, and what
 * the server grants this connection. Answers come in the order of the requests.
 */

/** @import { Answer, Answers, ListedRoom, ServerEvent } from "./wire" */

import { Connection } from "./connection.js";

/** @type {Answers} */
const ANSWERS = { join: "room", leave: "parted", history: "history", members: "members", rooms: "rooms" };

export class Session {
  token = "";
  limits = { max_message: Infinity, rooms: Infinity, page: 200 };
  /** Whether the token allows to read, and not to say anything. */
  readonly = false;
  /** When the token expires, in milliseconds since 1970; null unless that is soon. @type {number | null} */
  expires = null;
  /** Why the fresh token was not taken. */
  renewalProblem = "";
  /** The fresh token that the server was given. @type {string | null} */
  #renewing = null;
  /**
   * The server's rooms whose names begin with `prefix`; null if it did not list them.
   * @type {{rooms: ListedRoom[], more: boolean, prefix: string} | null}
   */
  found = null;
  #isFinding = false;
  /** Whether the server lists its rooms. An older one does not. */
  #lists = true;
  /** @type {{answer: string, room?: string, take: (answer: any) => void}[]} */
  #asked = [];
  #hooks;

  /**
   * Hooks: `event(object)` for each event that answers nothing, `changed()` after each event and change of state,
   * `lost(code)` when an established connection has ended, and `quiet()` when a request should test it.
   * @param {{event(event: ServerEvent): void, changed(): void, lost(code: number | null): void, quiet(): void}} hooks
   */
  constructor(hooks) {
    this.#hooks = hooks;
    this.connection = new Connection({
      event: (event) => {
        this.#take(event);
        hooks.changed();
      },
      state: () => hooks.changed(),
      lost: (code) => this.#lost(code),
      quiet: () => hooks.quiet(),
    });
  }

  /** @param {string} user @param {string} token */
  start(user, token) {
    this.token = token;
    this.found = null;
    this.connection.start(user, token);
  }

  /**
   * Sends a request that has exactly one answer. `take` gets the answer, or the server's error, or null if the
   * connection is lost before. Returns false if there is no connection.
   * @template {keyof Answers} Type
   * @param {{type: Type, room?: string, [field: string]: unknown}} request
   * @param {(answer: Answer<Type> | null) => void} take
   */
  ask(request, take) {
    const asked = this.connection.ask(request);
    if (asked) this.#asked.push({ answer: ANSWERS[request.type], room: request.room, take });
    return asked;
  }

  /** Asks for the server's rooms whose names begin so. @param {string} prefix */
  findRooms(prefix) {
    if (!this.#lists || this.#isFinding) return;
    this.#isFinding = this.ask({ type: "rooms", ...(prefix !== "" && { prefix }) }, (answer) => {
      this.#isFinding = false;
      if (answer?.type === "rooms") this.found = { rooms: answer.rooms, more: answer.more, prefix };
      else this.#lists = answer?.retry ?? true;
    });
  }

  /** Takes a fresh token. It counts once the server has taken it, or for the next connection. @param {string} token */
  renew(token) {
    this.renewalProblem = "";
    if (this.connection.ask({ type: "renew", token })) this.#renewing = token;
    else this.#renewed(token);
    this.#hooks.changed();
  }

  /** @param {string} token */
  #renewed(token) {
    this.token = token;
    this.connection.goOnWith(token);
    this.#renewing = null;
    this.expires = null;
  }

  /** @param {number | null} code */
  #lost(code) {
    this.expires = null;
    this.#renewing = null;
    this.renewalProblem = "";
    this.#lists = true;
    for (const { take } of this.#asked.splice(0)) take(null);
    this.#hooks.lost(code);
  }

  /**
   * Gives an event to the first request that it fits.
   * @param {ServerEvent} event
   * @param {(one: {answer: string, room?: string}) => boolean} fits
   */
  #answer(event, fits) {
    const index = this.#asked.findIndex(fits);
    if (index >= 0) this.#asked.splice(index, 1)[0].take(event);
  }

  /** @param {ServerEvent} event */
  #take(event) {
    switch (event.type) {
      case "expiring":
        this.expires = Date.now() + event.expires_in_ms;
        return;
      case "renewed":
        this.readonly = event.readonly ?? false;
        if (this.#renewing !== null) this.#renewed(this.#renewing);
        return;
      case "error":
        if (event.ref) break;
        if (this.#renewing !== null && !event.room) {
          this.#renewing = null;
          this.renewalProblem = sentence(event.message);
        } else this.#answer(event, ({ room }) => event.room === undefined || room === event.room);
        return;
      case "parted":
      case "room":
      case "history":
      case "members":
      case "rooms":
        // With a reason nobody asked: an operator has closed the room.
        if (event.type === "parted" && event.reason) break;
        this.#answer(event, ({ answer, room }) => answer === event.type && room === event.room);
        return;
      case "welcome":
        this.limits = event.limits;
        this.readonly = event.readonly ?? false;
        break;
      default:
    }
    this.#hooks.event(event);
  }
}

/** The server's message, as a sentence. @param {string} words */
export function sentence(words) {
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;
}
