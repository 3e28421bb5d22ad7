/**
 * One room as this tab knows it: its messages, its members, and the last message that was read. Each
 * message is here once, in the order of the ids, even if it arrives twice or late.
 *
 * @typedef {Message & {elsewhere?: boolean, mention?: boolean}} Told A message that may be under the user's name
 *   and of another connection, or mention the user.
 * @typedef {{was: boolean, is: boolean, looks_like?: string}} Move Whether a user was here before, and is since.
 * @typedef {{kind: "message", key: string} & Told} MessageEntry
 * @typedef {{kind: "notice", key: string, happened: Map<string, Move>}} NoticeEntry
 * @typedef {{kind: "gap", key: string, text: string}} GapEntry
 * @typedef {{name: string, read?: string | null, draft?: string, muted?: boolean}} KeptRoom
 */

/** @import { Events, Message } from "./wire" */
import { BEGINNING, compare } from "./ids.js";

/** The number of past messages at the beginning, and in each page. */
export const PAGE = 50;

/** The most entries that a room keeps, unless the user reads old ones, and the number that is left
 * after the oldest are dropped. */
const MOST = 1000;
const MOST_WHILE_READ = 5000;
const KEEP = 600;

/** The most users in one notice of joins and leaves. After that another notice begins. */
const TOLD = 200;

/** The notice in place of messages that are lost. */
const MISSING = "Some messages are missing here: the server could not recover them.";
const STARTED_ANEW = "The server started anew; earlier messages are gone.";

/** What the server has in place of a deleted message. */
const DELETED = "(deleted by an operator)";

/** The time for which a user is shown as typing after a typing notice. */
export const TYPING_LASTS = 5_000;

export class Room {
  /**
   * `looking` who is there.
   * @type {"outside" | "looking" | "joining" | "joined" | "refused"}
   */
  state = "outside";
  /** Whether somebody else was there under the user's name. */
  nameInUse = false;
  /** The reason for `outside` or `refused`. */
  why = "";
  /** In the order shown. @type {(MessageEntry | NoticeEntry | GapEntry)[]} */
  entries = [];
  /** @type {Set<string>} */
  members = new Set();
  /** The groups of members whose names look alike, as far as the server told. @type {string[][]} */
  alike = [];
  /** The time of each user's last typing notice. @type {Map<string, number>} */
  typing = new Map();
  /** The id to resume after; none before the first join. @type {string | null} */
  last = null;
  /** Whether the log was lost since `last`, so that its ids may be lower. */
  anew = false;
  /** Whether the log has older messages than those here. */
  older = false;
  /** `reading`, or the reason why the older messages could not be read. */
  olderState = "";
  unread = 0;
  /** The unread messages that mention the user. */
  mentions = 0;
  /**
   * The first message that was unread when the user last came to the room, or to its end.
   * @type {string | null}
   */
  newFrom = null;
  draft = "";
  /**
   * The message that the user wants to see.
   * @type {{id: string, state: "reading" | "here" | "gone" | "far"} | null}
   */
  sought = null;
  /** Whether the user is at the end of the room, so that its oldest entries may be dropped. */
  atEnd = true;
  /** @type {Set<string>} */
  #ids = new Set();
  /** @type {Set<string>} */
  #deleted = new Set();
  /** @type {string | null} */
  #deletedTo = null;
  #serial = 0;

  /** @param {string} name @param {Omit<KeptRoom, "name">} kept */
  constructor(name, { read = null, draft = "", muted = false } = {}) {
    this.name = name;
    /** The last message that was read, also before a reload. */
    this.read = read;
    this.draft = draft;
    /** Whether only the sidebar tells what is new here. */
    this.muted = muted;
  }

  /**
   * Takes in the answer to a join. Returns the messages that are new here.
   * @param {Events["room"] & {messages: Told[]}} answer
   */
  entered({ members, alike, messages, recovered, anew, last }) {
    const seen = this.last;
    this.state = "joined";
    this.why = "";
    this.here({ members, alike });
    this.typing.clear();
    if (seen === null) this.older = messages.length > 0;
    if (seen !== null && !recovered && !anew) this.#gap(MISSING);
    this.anew = false;
    // If the log ends before the last message here, the log lost messages. Its ids go on from its end.
    this.last = last ?? BEGINNING;
    if (this.read !== null && compare(this.read, this.last) > 0) this.read = BEGINNING;
    return messages.filter((message) => this.#append(message));
  }

  /** Takes in who is here. @param {{members: string[], alike?: string[][]}} answer */
  here({ members, alike = [] }) {
    this.members = new Set(members);
    this.alike = alike;
  }

  /** Another member whose name looks like this one; nothing if there is none. @param {string} name */
  lookalike(name) {
    const others = this.alike.filter((group) => group.includes(name)).flat();
    return others.find((other) => other !== name && this.members.has(other));
  }

  /** Takes in a new message. Returns false if it is here already. @param {Told} message */
  heard(message) {
    if (!this.anew && this.last !== null && compare(message.id, this.last) <= 0) return false;
    this.anew = false;
    this.last = message.id;
    this.typing.delete(message.from);
    return this.#append(message);
  }

  /** Takes in a page of older messages, oldest first. @param {{messages: Told[], more: boolean}} page */
  before({ messages, more }) {
    const fresh = messages.filter(({ id }) => !this.#ids.has(id));
    for (const { id } of fresh) this.#ids.add(id);
    const shown = fresh.map((message) => this.concealed(message));
    this.entries.unshift(...shown.map(entryOf));
    // Without a new message, the same page would be requested without end.
    this.older = more && fresh.length > 0;
    this.olderState = "";
  }

  /** The messages among the entries. */
  messages() {
    return this.entries.filter((one) => one.kind === "message");
  }

  /** The oldest message here; a page of older messages ends before it. */
  oldest() {
    return this.entries.find((one) => one.kind === "message")?.id;
  }

  /** @param {string} id */
  has(id) {
    return this.#ids.has(id);
  }

  /** Messages are missing here. Without `before`, ids may begin anew. @param {Events["gap"]} event */
  lost({ before }) {
    if (!before) this.anew = true;
    this.#gap(MISSING);
  }

  /** The server has lost the messages that are here. */
  startedAnew() {
    this.#gap(STARTED_ANEW);
  }

  /** An operator has deleted these messages, or all up to one. @param {Events["deleted"]} event */
  deleted({ ids = [], up_to }) {
    for (const id of ids) this.#deleted.add(id);
    this.#deletedTo = up_to ?? this.#deletedTo;
    this.entries = this.entries.map((one) => (one.kind === "message" ? this.concealed(one) : one));
  }

  /**
   * The message without its text, if it is deleted: a message may come after the word of it.
   * @template {Message} Any
   * @param {Any} message
   * @returns {Any}
   */
  concealed(message) {
    const { id } = message;
    const isOld = this.#deletedTo !== null && compare(id, this.#deletedTo) <= 0;
    return isOld || this.#deleted.has(id) ? { ...message, text: DELETED } : message;
  }

  /**
   * Somebody came or left. Between two messages there is one notice, with what came of each user.
   * @param {string} user
   * @param {boolean} isHere
   * @param {string} [looks_like]
   */
  came(user, isHere, looks_like) {
    // A new set, so that the list of members sees that it changed.
    this.members = new Set(this.members);
    if (isHere) this.members.add(user);
    else this.members.delete(user);
    this.typing.delete(user);
    const last = this.entries.at(-1);
    if (looks_like) this.#areAlike(user, looks_like);
    const isNotice = last?.kind === "notice" && (last.happened.has(user) || last.happened.size < TOLD);
    const happened = isNotice ? last.happened : new Map();
    if (!isNotice) this.#push({ kind: "notice", key: this.#newKey(), happened });
    const before = happened.get(user);
    happened.set(user, {
      was: before ? before.was : !isHere,
      is: isHere,
      looks_like: looks_like ?? before?.looks_like,
    });
  }

  /** Two names look alike, and so do all that look like either. @param {string} user @param {string} other */
  #areAlike(user, other) {
    /** @param {string[]} group */
    const isTheirs = (group) => group.includes(user) || group.includes(other);
    const names = [user, other, ...this.alike.filter(isTheirs).flat()];
    const present = new Set(names.filter((name) => this.members.has(name)));
    this.alike = [...this.alike.filter((group) => !isTheirs(group)), [...present]];
  }

  /** The users who are typing now. */
  typists(now = Date.now()) {
    return [...this.typing].filter(([, at]) => now - at < TYPING_LASTS).map(([user]) => user);
  }

  /** Marks all messages as read. */
  markRead() {
    if (this.last === null) return false;
    const changed = this.unread > 0 || this.read !== this.last;
    this.unread = 0;
    this.mentions = 0;
    this.read = this.last;
    return changed;
  }

  /** Counts a new message that was not read. @param {Told} message */
  addUnread({ id, mention }) {
    if (this.unread === 0) this.newFrom = id;
    this.unread += 1;
    if (mention) this.mentions += 1;
  }

  /** Counts unread messages that are older than those here, oldest first. @param {Told[]} messages */
  addOlderUnread(messages) {
    if (messages.length === 0) return;
    this.unread += messages.length;
    this.mentions += messages.filter(({ mention }) => mention).length;
    this.newFrom = messages[0].id;
  }

  /**
   * All up to `id` were read in another tab. `counts` tells whether a message counts as unread.
   * @param {string} id
   * @param {(message: Told) => boolean} counts
   */
  readTo(id, counts) {
    if (this.read !== null && compare(id, this.read) <= 0) return;
    this.read = id;
    const rest = this.messages().filter((one) => compare(one.id, id) > 0 && counts(one));
    this.unread = rest.length;
    this.mentions = rest.filter(({ mention }) => mention).length;
    this.newFrom = rest[0]?.id ?? this.newFrom;
  }

  /** @param {Told} message */
  #append(message) {
    if (this.#ids.has(message.id)) return false;
    this.#ids.add(message.id);
    this.#push(entryOf(this.concealed(message)));
    return true;
  }

  /** @param {string} text */
  #gap(text) {
    const last = this.entries.at(-1);
    if (last?.kind !== "gap" || last.text !== text) this.#push({ kind: "gap", key: this.#newKey(), text });
  }

  #newKey() {
    this.#serial += 1;
    return `told-${this.#serial}`;
  }

  /** @param {Room["entries"][0]} entry */
  #push(entry) {
    this.entries.push(entry);
    this.#trim();
  }

  /** Drops the oldest entries. Scrolling back reads them again. */
  #trim() {
    if (this.entries.length <= (this.atEnd && !this.sought ? MOST : MOST_WHILE_READ)) return;
    for (const entry of this.entries.splice(0, this.entries.length - KEEP)) {
      if (entry.kind === "message") this.#ids.delete(entry.id);
    }
    this.older = true;
  }
}

/** @param {Told} message @returns {MessageEntry} */
const entryOf = (message) => ({ kind: "message", key: message.id, ...message });
