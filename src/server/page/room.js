/**
 * One room as this tab knows it: what was said, who is here, and how far it was read. Every message
 * is in it once, in the order of the ids, however it arrived.
 */

import { BEGINNING, compare } from "./ids.js";

/** How many past messages to begin with, and per page. */
export const PAGE = 50;

/** So many entries of a room are kept at most, more while its reader is among them; then the oldest
 * go, down to so many. */
const MOST = 1000;
const MOST_WHILE_READ = 5000;
const KEEP = 600;

/** So many comings and goings are told of in one notice; the older ones are no news any more. */
const TOLD = 20;

/** What is told where messages of this room are gone. */
const MISSING = "Some messages are missing here: the server could not recover them.";
const STARTED_ANEW = "The server started anew; earlier messages are gone.";

/** For so long one is shown as typing without doing it again. */
export const TYPING_LASTS = 5_000;

export class Room {
  /** `outside`, `joining`, `joined`, or `refused` for good. */
  state = "outside";
  /** Why it is outside or refused. */
  why = "";
  /** In the order shown: `message`, `notice` and `gap`. */
  entries = [];
  members = new Set();
  /** When those who type did so last. */
  typing = new Map();
  /** The id to resume after; none before the room was entered. */
  last = null;
  /** Whether the log was lost since `last`, so that its ids may be lower. */
  anew = false;
  /** Whether there is something older than what is here. */
  older = false;
  /** `reading`, or why the older messages could not be read. */
  olderState = "";
  unread = 0;
  /** The first message that was not read when the room was opened. */
  newFrom = null;
  draft = "";
  /** Whether its reader is at its end, so that its beginning may be dropped. */
  atEnd = true;
  #ids = new Set();
  #serial = 0;

  constructor(name, { read = null, draft = "" } = {}) {
    this.name = name;
    /** The last message that was read, also before a reload. */
    this.read = read;
    this.draft = draft;
  }

  /** Takes in the answer to a join. The messages that are new here are returned. */
  entered({ members, messages, recovered, anew, last }) {
    const seen = this.last;
    this.state = "joined";
    this.why = "";
    this.members = new Set(members);
    this.typing.clear();
    if (seen === null) this.older = messages.length > 0;
    if (seen !== null && !recovered && !anew) this.#gap(MISSING);
    this.anew = false;
    // A log whose end is before what was seen lost it, and goes on from there.
    this.last = last ?? BEGINNING;
    if (this.read !== null && compare(this.read, this.last) > 0) this.read = BEGINNING;
    return messages.filter((message) => this.#append(message));
  }

  /** Takes in a message that was said now. False if it is here already. */
  heard(message) {
    if (!this.anew && this.last !== null && compare(message.id, this.last) <= 0) return false;
    this.anew = false;
    this.last = message.id;
    this.typing.delete(message.from);
    return this.#append(message);
  }

  /** Takes in a page of the past, oldest first. */
  before({ messages, more }) {
    const fresh = messages.filter(({ id }) => !this.#ids.has(id));
    for (const { id } of fresh) this.#ids.add(id);
    this.entries.unshift(...fresh.map((message) => ({ kind: "message", key: message.id, ...message })));
    // What brings nothing new would be asked for without end.
    this.older = more && fresh.length > 0;
    this.olderState = "";
  }

  /** The oldest message here, before which a page of the past ends. */
  oldest() {
    return this.entries.find(({ kind }) => kind === "message")?.id;
  }

  has(id) {
    return this.#ids.has(id);
  }

  /** Messages are missing here. Without `before`, ids may begin anew. */
  lost({ before }) {
    if (!before) this.anew = true;
    this.#gap(MISSING);
  }

  /** The server keeps nothing of what is here so far. */
  startedAnew() {
    this.#gap(STARTED_ANEW);
  }

  /** Somebody `joined` or `left`. */
  came(user, what) {
    // A set of its own, so that whoever lists it sees that it is another.
    this.members = new Set(this.members);
    if (what === "joined") this.members.add(user);
    else this.members.delete(user);
    this.typing.delete(user);
    const last = this.entries.at(-1);
    if (last?.kind === "notice") last.happened = [...last.happened, { user, what }].slice(-TOLD);
    else this.#push({ kind: "notice", happened: [{ user, what }] });
  }

  /** Who is typing now. */
  typists(now = Date.now()) {
    return [...this.typing].filter(([, at]) => now - at < TYPING_LASTS).map(([user]) => user);
  }

  /** All there is was seen. */
  markRead() {
    const changed = this.unread > 0 || this.read !== this.last;
    this.unread = 0;
    this.read = this.last;
    return changed;
  }

  #append(message) {
    if (this.#ids.has(message.id)) return false;
    this.#ids.add(message.id);
    this.entries.push({ kind: "message", key: message.id, ...message });
    this.#trim();
    return true;
  }

  #gap(text) {
    const last = this.entries.at(-1);
    if (last?.kind !== "gap" || last.text !== text) this.#push({ kind: "gap", text });
  }

  #push(entry) {
    this.#serial += 1;
    this.entries.push({ key: `${entry.kind}-${this.#serial}`, ...entry });
    this.#trim();
  }

  /** Scrolling back brings the oldest again. */
  #trim() {
    if (this.entries.length <= (this.atEnd ? MOST : MOST_WHILE_READ)) return;
    for (const entry of this.entries.splice(0, this.entries.length - KEEP)) {
      if (entry.kind === "message") this.#ids.delete(entry.id);
    }
    this.older = true;
  }
}
