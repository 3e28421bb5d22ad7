/**
 * The chat's state and logic, without any view; the terminal's counterpart is `src/client/state`.
 * It keeps the rooms and the unsent lines through every reconnect, resumes each room after the last
 * id that it has, and tells its views after each change.
 *
 * @typedef {object} Saved What outlives a reload.
 * @property {string} name
 * @property {string} [token]
 * @property {KeptRoom[]} [rooms]
 * @property {string | null} [active]
 * @property {Line[]} [lines]
 *
 * @typedef {{problem: string, retry_after_ms?: number}} Refusal
 * @typedef {(answer: Events["history"] | Refusal) => void} Take
 * @typedef {{type: string, room: Room, take?: Take}} Asked
 */

/** @import { Line } from "./outgoing.js" */
/** @import { KeptRoom, Told } from "./room.js" */
/** @import { Events, ListedRoom, Message, ServerEvent } from "./wire" */

import { compare } from "./ids.js";
import { Connection } from "./connection.js";
import { answerTabs, isInUse } from "./elsewhere.js";
import { mentions } from "./mention.js";
import { inOrder } from "./names.js";
import { Outgoing } from "./outgoing.js";
import { PAGE, Room } from "./room.js";

/** The time before a request is repeated that the server could not carry out. */
const ASK_AGAIN = 500;

/** The most entries of a room that are read back through to a message. */
const FAR = 4_000;

/** The time between two typing notices. Shorter than the time for which a notice is shown. */
const TYPING_EVERY = 3_000;

/** @param {string} text */
const bytes = (text) => new TextEncoder().encode(text).length;

export class Chat {
  user = "";
  token = "";
  limits = { max_message: Infinity, rooms: Infinity, page: 200 };
  /** Whether the token allows to read, and not to say anything. */
  readonly = false;
  /** In the order of their names. @type {Map<string, Room>} */
  rooms = new Map();
  /** The room that is shown. @type {Room | null} */
  active = null;
  /** Whether the user looks at the page. */
  watched = false;
  outgoing = new Outgoing();
  /**
   * The server's rooms whose names begin with `prefix`; null if it did not list them.
   * @type {{rooms: ListedRoom[], more: boolean, prefix: string} | null}
   */
  found = null;
  /** The beginning of the names that the server was asked for, until it answers. @type {string | null} */
  #finding = null;
  /** Whether the server lists its rooms. An older one does not. */
  #lists = true;
  #changed;
  #mentioned;
  /** @type {Asked[]} */
  #asked = [];
  /** @type {number | null} */
  #askAgain = null;
  #typed = 0;
  /** When the token expires, in milliseconds since 1970; null unless that is soon. @type {number | null} */
  expires = null;
  /** The fresh token that the server was given. @type {string | null} */
  #renewing = null;
  /** Why the fresh token was not taken. */
  renewalProblem = "";
  /** Whether the user was told, on this connection, that the server lost its log. */
  #toldAnew = false;

  /**
   * The chat calls `changed` after every change, which is often, and `mentioned(room, message)` after a new
   * mention of the user, who does not look at the room.
   * @param {() => void} changed
   * @param {(room: Room, message: Told) => void} mentioned
   */
  constructor(changed, mentioned) {
    this.#changed = changed;
    this.#mentioned = mentioned;
    answerTabs((name, room) => name === this.user && this.rooms.get(room)?.state === "joined");
    this.connection = new Connection({
      event: (event) => this.#take(event),
      state: () => this.#changed(),
      lost: (code) => this.#lost(code),
      quiet: () => this.#request("members", this.active ?? new Room("lobby")),
    });
  }

  get state() {
    return this.connection.state;
  }

  /**
   * Begins as this user, with the value that `saved` returned before a reload. On a new visit it looks
   * first whether the name is in use in the active room.
   * @param {Saved} saved
   */
  begin({ name, token = "", rooms = [], active = null, lines = [] }, isNewVisit = false) {
    this.user = name;
    this.token = token;
    this.rooms.clear();
    for (const room of rooms) this.#add(new Room(room.name, room));
    this.active = this.rooms.get(active ?? "") ?? this.rooms.values().next().value ?? null;
    this.outgoing = new Outgoing(lines);
    this.found = null;
    if (isNewVisit && this.active?.name === active) this.#lookAndJoin(this.active);
    this.connection.start(name, token);
  }

  end() {
    this.connection.stop();
    this.rooms.clear();
    this.active = null;
    this.outgoing = new Outgoing();
    this.user = "";
    this.#changed();
  }

  /** @returns {Saved} */
  saved() {
    return {
      name: this.user,
      token: this.token,
      rooms: [...this.rooms.values()].map(({ name, read, draft, muted }) => ({ name, read, draft, muted })),
      active: this.active?.name ?? null,
      lines: this.outgoing.saved(),
    };
  }

  /** Joins a room and shows it. Returns the reason if the room cannot be joined. @param {string} name */
  open(name) {
    let room = this.rooms.get(name);
    if (!room) {
      if (this.rooms.size >= this.limits.rooms) {
        return `You can be in ${this.limits.rooms} rooms at a time. Leave one first.`;
      }
      room = new Room(name);
      this.#add(room);
      this.#lookAndJoin(room);
    }
    if (this.active !== room) {
      if (this.active?.unread === 0) this.active.newFrom = null;
      this.active = room;
    }
    this.#changed();
    return null;
  }

  /** @param {Room} room */
  #add(room) {
    this.rooms.set(room.name, room);
    this.rooms = new Map([...this.rooms].sort(([a], [b]) => inOrder(a, b)));
  }

  /**
   * Another tab of this user has joined a room, or changed what is kept of it. Returns false if there is no place.
   * @param {string} name
   * @param {{read: string | null, draft: string, muted: boolean}} kept
   */
  agree(name, kept) {
    let room = this.rooms.get(name);
    if (!room) {
      if (this.rooms.size >= this.limits.rooms) return false;
      room = new Room(name, kept);
      this.#add(room);
      this.active ??= room;
      this.#join(room);
    }
    room.draft = kept.draft;
    room.muted = kept.muted;
    if (kept.read !== null) room.readTo(kept.read, (message) => this.#isOthers(message));
    this.#changed();
    return true;
  }

  /** Mutes a room, or ends that. @param {Room} room */
  mute(room) {
    room.muted = !room.muted;
    this.#changed();
  }

  /** Asks for the server's rooms whose names begin so. @param {string} prefix */
  findRooms(prefix) {
    if (!this.#lists || this.#finding !== null) return;
    if (!this.connection.ask({ type: "rooms", ...(prefix !== "" && { prefix }) })) return;
    this.#asked.push({ type: "rooms", room: new Room("") });
    this.#finding = prefix;
  }

  /** @param {Room} room */
  leave(room) {
    const names = [...this.rooms.keys()];
    const index = names.indexOf(room.name);
    this.rooms.delete(room.name);
    this.outgoing.removeRoom(room.name);
    if (room.state === "joined" || room.state === "joining") this.#request("leave", room);
    if (this.active === room) {
      this.active = this.rooms.get(names[index + 1] ?? names[index - 1]) ?? null;
    }
    this.#changed();
  }

  /**
   * Sends a line, now or once it can. Returns the reason if it never can be sent.
   * @param {Room} room
   * @param {string} words
   */
  say(room, words) {
    if (room.state === "refused") return room.why;
    // The server cannot decode half a surrogate pair, and could not tell which line is wrong.
    const text = words.toWellFormed();
    const frame = { type: "send", room: room.name, text, ref: "0".repeat(32) };
    const excess = bytes(JSON.stringify(frame)) - this.limits.max_message;
    if (excess > 0) return `Too long by ${excess.toLocaleString()} bytes. Shorten it, or send it in parts.`;
    this.outgoing.add(room.name, text);
    room.newFrom = null;
    room.draft = "";
    this.#typed = 0;
    this.#sendNext(room);
    this.#changed();
    return null;
  }

  /** @param {Line} line */
  retry(line) {
    this.outgoing.retry(line);
    this.#sendNext(this.rooms.get(line.room));
    this.#changed();
  }

  /** @param {Line} line */
  discard(line) {
    this.outgoing.remove(line);
    this.#changed();
  }

  /** The user goes on under a name that is in use. @param {Room} room */
  keepName(room) {
    room.nameInUse = false;
    this.#changed();
  }

  /** Tries again to enter a room. @param {Room} room */
  tryRoom(room) {
    this.#join(room);
    this.#changed();
  }

  /** Reads the messages before the oldest one here. @param {Room} room */
  readOlder(room, limit = PAGE) {
    const before = room.oldest();
    if (room.state !== "joined" || !room.older || room.olderState === "reading" || !before) return;
    if (this.#request("history", room, { before, limit })) room.olderState = "reading";
    this.#changed();
  }

  /**
   * Shows a message of a room, and reads back to it first if necessary. Without an id, stops doing so.
   * @param {Room} room
   * @param {string | null} id
   */
  seek(room, id) {
    room.sought = id === null ? null : { id, state: "reading" };
    this.#seekOn(room);
    this.#changed();
  }

  /** @param {Room} room */
  #seekOn(room) {
    const { sought } = room;
    if (sought?.state !== "reading" || room.state !== "joined") return;
    const oldest = room.oldest();
    if (room.has(sought.id)) sought.state = "here";
    else if (!room.older || !oldest || compare(oldest, sought.id) < 0) sought.state = "gone";
    else if (room.entries.length > FAR) sought.state = "far";
    else this.readOlder(room, this.limits.page);
  }

  /**
   * Reads a page of a room's past for a search, and shows nothing of it. Resolves to the page, or to the
   * `problem`, with `retry_after_ms` if the server was asked too fast.
   * @param {Room} room
   * @param {string} before
   * @returns {Promise<Events["history"] | Refusal>}
   */
  past(room, before) {
    return new Promise((take) => {
      const fields = { before, limit: this.limits.page };
      const asked = room.state === "joined" && this.#request("history", room, fields, take);
      if (!asked) take({ problem: "Not connected." });
    });
  }

  /** @param {Room} room */
  typing(room, now = Date.now()) {
    if (room.state !== "joined" || now - this.#typed < TYPING_EVERY) return;
    this.#typed = now;
    this.connection.ask({ type: "typing", room: room.name });
  }

  /** The user looks at the page, so the messages of the shown room are read, if its end is in view. */
  look() {
    if (this.active && this.#isSeen(this.active) && this.active.markRead()) this.#changed();
  }

  /** @param {Room} room */
  #isSeen(room) {
    return this.watched && room === this.active && room.atEnd;
  }

  /**
   * Sends a request that has exactly one answer. Answers come in the order of the requests. With `take`,
   * the answer goes there and nowhere else.
   * @param {string} type
   * @param {Room} room
   * @param {object} fields
   * @param {Take} [take]
   */
  #request(type, room, fields = {}, take) {
    const asked = this.connection.ask({ type, room: room.name, ...fields });
    if (asked) this.#asked.push({ type, room, take });
    return asked;
  }

  /**
   * Joins a room, and looks first whether the name is in use there, if names are free. The answer counts
   * only if no join was sent meanwhile: otherwise it may be this connection that is there.
   * @param {Room} room
   */
  #lookAndJoin(room) {
    if (this.token !== "") return this.#join(room);
    room.state = "looking";
    isInUse(this.user, room.name).then((inUse) => {
      if (room.state !== "looking" || this.rooms.get(room.name) !== room) return;
      room.nameInUse = inUse;
      this.#join(room);
      this.#changed();
    });
  }

  /** @param {Room} room */
  #join(room) {
    const from = room.last === null ? { history: PAGE } : { since: room.last };
    room.state = this.#request("join", room, from) ? "joining" : "outside";
  }

  /** The rooms of an earlier visit may be more than the server allows now. */
  #dropBeyondLimit() {
    const others = [...this.rooms.values()].filter((room) => room !== this.active);
    for (const room of others.slice(Math.max(0, this.limits.rooms - 1))) this.rooms.delete(room.name);
  }

  /** @param {Room | undefined} room */
  #sendNext(room) {
    if (room?.state !== "joined") return;
    const line = this.outgoing.next(room.name);
    if (!line) return;
    const { text, ref } = line;
    if (this.connection.ask({ type: "send", room: room.name, text, ref })) this.outgoing.given(line);
  }

  /** Takes a fresh token. It counts once the server has taken it, or for the next connection. @param {string} token */
  renew(token) {
    this.renewalProblem = "";
    if (this.connection.ask({ type: "renew", token })) this.#renewing = token;
    else this.#renewed(token);
    this.#changed();
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
    this.#finding = null;
    this.#lists = true;
    clearTimeout(this.#askAgain ?? undefined);
    this.#askAgain = null;
    for (const { take } of this.#asked) take?.({ problem: "The connection is lost." });
    this.#asked = [];
    for (const room of this.rooms.values()) {
      if (room.state !== "refused") room.state = "outside";
      if (room.olderState === "reading") room.olderState = "";
      room.typing.clear();
    }
    const tooLarge = 1009;
    for (const line of this.outgoing.saved()) {
      // The server would close each connection on which this line is sent.
      if (code === tooLarge && line.state === "sending") this.outgoing.fail(line, "Too large for the server.");
    }
    this.outgoing.disconnected();
  }

  /** Asks again after a while, and not before `least` milliseconds have passed. */
  #askAgainSoon(least = 0) {
    this.#askAgain ??= setTimeout(() => {
      this.#askAgain = null;
      for (const room of this.rooms.values()) {
        if (room.state === "outside") this.#join(room);
        this.#seekOn(room);
        this.#sendNext(room);
      }
      this.#changed();
    }, Math.max(least, ASK_AGAIN * (0.5 + Math.random() / 2)));
  }

  /** The request that this event answers; nothing if it no longer matters. @param {(one: Asked) => boolean} fits */
  #answered(fits) {
    const index = this.#asked.findIndex(fits);
    if (index < 0) return null;
    const [{ type, room, take }] = this.#asked.splice(index, 1);
    if (this.rooms.get(room.name) === room) return { type, room, take };
    take?.({ problem: "You have left the room." });
    return null;
  }

  /** @param {ServerEvent} event */
  #take(event) {
    const room = this.rooms.get(event.room ?? "");
    /** @param {string} type */
    const asked = (type) => this.#answered((one) => one.type === type && one.room.name === event.room);
    /** @param {string} type */
    const answers = (type) => asked(type)?.room;
    switch (event.type) {
      case "welcome":
        this.limits = event.limits;
        this.readonly = event.readonly ?? false;
        this.#toldAnew = false;
        this.#dropBeyondLimit();
        for (const one of this.rooms.values()) if (one.state !== "looking") this.#join(one);
        break;
      case "room":
        this.#entered(answers("join"), event);
        break;
      case "parted":
        if (room && event.reason) {
          room.state = "refused";
          room.why = sentence(event.reason);
        } else answers("leave");
        break;
      case "history":
        this.#read(asked("history"), event);
        break;
      case "rooms":
        this.#answered((one) => one.type === "rooms");
        this.found = { rooms: event.rooms, more: event.more, prefix: this.#finding ?? "" };
        this.#finding = null;
        break;
      case "members": {
        const asker = answers("members");
        asker?.here(event);
        break;
      }
      case "message":
        // While a newer join is on its way, this event belongs to the join before it.
        if (room?.state === "joined") {
          const message = this.#marked(room, event);
          if (room.heard(message)) this.#heard(room, message);
        }
        break;
      case "deleted":
        room?.deleted(event);
        break;
      case "joined":
      case "left":
        if (room?.state === "joined" && event.user !== this.user) {
          room.came(event.user, event.type === "joined", event.looks_like);
        }
        break;
      case "typing":
        if (room?.state === "joined" && event.user !== this.user) {
          room.typing.set(event.user, Date.now());
        }
        break;
      case "gap":
        room?.lost(event);
        break;
      case "expiring":
        this.expires = Date.now() + event.expires_in_ms;
        break;
      case "renewed":
        this.readonly = event.readonly ?? false;
        if (this.#renewing !== null) this.#renewed(this.#renewing);
        break;
      case "sent":
        this.#sent(room, event);
        break;
      case "error":
        if (event.ref) this.#notSent(event.ref, event);
        else if (this.#renewing !== null && !event.room) {
          this.#renewing = null;
          this.renewalProblem = sentence(event.message);
        } else this.#refused(event);
        break;
      default:
      // A newer server may send events that this page does not know.
    }
    this.#changed();
  }

  /** @param {Room | undefined} room @param {Events["room"]} event */
  #entered(room, event) {
    if (!room) return;
    if (event.anew && !event.recovered && room.last !== null && !this.#toldAnew) {
      // Told once, in the shown room, and not in every room.
      this.#toldAnew = true;
      (this.active ?? room).startedAnew();
    }
    const messages = event.messages.map((message) => this.#marked(room, message));
    const isPast = room.last === null;
    const fresh = room.entered({ ...event, messages });
    // Old messages of a room that was never open do not count as unread.
    if (isPast) room.read ??= room.last;
    for (const message of fresh) this.#heard(room, message, isPast);
    this.#settle(room);
    this.#sendNext(room);
    this.#seekOn(room);
  }

  /** Takes in a page of a room's past. @param {Asked | null} asked @param {Events["history"]} event */
  #read(asked, event) {
    if (asked?.take) asked.take(event);
    else if (asked) {
      this.#readBefore(asked.room, event);
      this.#seekOn(asked.room);
    }
  }

  /**
   * Marks a line under the user's name that this page did not say. Of the past nobody knows, and with a
   * token the other connection is the user's as well.
   * @param {Room} room
   * @param {Message} message
   */
  #marked(room, message) {
    const isNew = message.from === this.user && this.token === "" && room.last !== null;
    const isElsewhere = isNew && !this.outgoing.has(room.name, message);
    return this.#withMention(isElsewhere ? { ...message, elsewhere: true } : message);
  }

  /** @param {Told} message */
  #isOthers({ from, elsewhere }) {
    return from !== this.user || elsewhere === true;
  }

  /** @param {Told} message @returns {Told} */
  #withMention(message) {
    return this.#isOthers(message) && mentions(message.text, this.user) ? { ...message, mention: true } : message;
  }

  /**
   * Takes in a new message. One of the past is read once the user gets to the room's end.
   * @param {Room} room
   * @param {Told} message
   */
  #heard(room, message, isPast = false) {
    if (!this.#isOthers(message)) {
      this.outgoing.heard(room.name, message);
    } else if (room.read === null || compare(message.id, room.read) > 0 || room.anew) {
      if (!isPast && this.#isSeen(room)) room.read = message.id;
      else room.addUnread(message);
      const isLookedAt = this.watched && room === this.active;
      if (message.mention && !isPast && !isLookedAt) this.#mentioned(room, message);
    }
    this.#settle(room);
  }

  /** @param {Room} room @param {Events["history"]} event */
  #readBefore(room, event) {
    const messages = event.messages.map((message) => this.#withMention(message));
    /** @param {Told} one */
    const isUnread = (one) => this.#isOthers(one) && room.read !== null && compare(one.id, room.read) > 0;
    room.addOlderUnread(messages.filter((one) => !room.has(one.id) && isUnread(one)));
    room.before({ ...event, messages });
  }

  /** Removes the lines that are in the room now from the outgoing lines. @param {Room} room */
  #settle(room) {
    for (const line of this.outgoing.of(room.name)) {
      const { state, id = "" } = line;
      if (state === "sent" && (room.has(id) || (room.last !== null && compare(id, room.last) <= 0))) {
        this.outgoing.remove(line);
      }
    }
  }

  /** @param {Room | undefined} room @param {Events["sent"]} event */
  #sent(room, { ref, id }) {
    const line = this.outgoing.find(ref);
    if (!line) return;
    line.state = "sent";
    line.id = id;
    if (room) {
      this.#settle(room);
      this.#sendNext(room);
    }
  }

  /** @param {string} ref @param {Events["error"]} event */
  #notSent(ref, { code, message, retry, retry_after_ms }) {
    const line = this.outgoing.find(ref);
    if (!line) return;
    if (retry && this.outgoing.again(line, code)) {
      this.#askAgainSoon(retry_after_ms);
      return;
    }
    this.outgoing.fail(line, sentence(message));
    this.#sendNext(this.rooms.get(line.room));
  }

  /**
   * A request other than a send failed. Shows the error in the room that it concerns.
   * @param {Events["error"]} event
   */
  #refused({ room: name, message, retry, retry_after_ms }) {
    if (name === undefined && this.#asked[0]?.type === "rooms") {
      this.#asked.shift();
      this.#finding = null;
      this.#lists = retry === true;
      return;
    }
    const asked = this.#answered((one) => name === undefined || one.room.name === name);
    if (!asked) return;
    const { type, room, take } = asked;
    if (take) take({ problem: sentence(message), retry_after_ms });
    else if (type === "history" && room.sought && retry_after_ms) {
      room.olderState = "";
      this.#askAgainSoon(retry_after_ms);
    } else if (type === "history") {
      room.olderState = sentence(message);
      room.sought = null;
    }
    if (type !== "join") return;
    room.state = retry ? "outside" : "refused";
    room.why = sentence(message);
    if (retry) this.#askAgainSoon(retry_after_ms);
  }
}

/** The server's message, as a sentence. @param {string} words */
function sentence(words) {
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;
}
