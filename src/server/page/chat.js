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
 */

/** @import { Line } from "./outgoing.js" */
/** @import { KeptRoom, Told } from "./room.js" */
/** @import { Answer, Answers, Events, Message, ServerEvent } from "./wire" */

import { compare } from "./ids.js";
import { answerTabs, isInUse } from "./elsewhere.js";
import { mentions } from "./mention.js";
import { inOrder } from "./names.js";
import { Outgoing } from "./outgoing.js";
import { PAGE, Room } from "./room.js";
import { Session, sentence } from "./session.js";

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
  /** In the order of their names. @type {Map<string, Room>} */
  rooms = new Map();
  /** The room that is shown. @type {Room | null} */
  active = null;
  /** Whether the user looks at the page. */
  watched = false;
  outgoing = new Outgoing();
  #changed;
  #mentioned;
  /** @type {number | null} */
  #askAgain = null;
  #typed = 0;
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
    this.session = new Session({
      event: (event) => this.#take(event),
      changed,
      lost: (code) => this.#lost(code),
      quiet: () => this.#askWhoIsIn(this.active ?? new Room("lobby")),
    });
  }

  /**
   * Begins as this user, with the value that `saved` returned before a reload. On a new visit it looks
   * first whether the name is in use in the active room.
   * @param {Saved} saved
   */
  begin({ name, token = "", rooms = [], active = null, lines = [] }, isNewVisit = false) {
    this.user = name;
    this.rooms.clear();
    for (const room of rooms) this.#add(new Room(room.name, room));
    this.active = this.rooms.get(active ?? "") ?? this.rooms.values().next().value ?? null;
    this.outgoing = new Outgoing(lines);
    this.session.start(name, token);
    if (isNewVisit && this.active?.name === active) this.#lookAndJoin(this.active);
  }

  end() {
    this.session.connection.stop();
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
      token: this.session.token,
      rooms: [...this.rooms.values()].map(({ name, read, draft, muted }) => ({ name, read, draft, muted })),
      active: this.active?.name ?? null,
      lines: this.outgoing.saved(),
    };
  }

  /** Joins a room and shows it. Returns the reason if the room cannot be joined. @param {string} name */
  open(name) {
    let room = this.rooms.get(name);
    if (!room) {
      const most = this.session.limits.rooms;
      if (this.rooms.size >= most) {
        return `You can be in ${most} rooms at a time. Leave one first.`;
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
      if (this.rooms.size >= this.session.limits.rooms) return false;
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

  /** @param {Room} room */
  leave(room) {
    const names = [...this.rooms.keys()];
    const index = names.indexOf(room.name);
    this.rooms.delete(room.name);
    this.outgoing.removeRoom(room.name);
    if (room.state === "joined" || room.state === "joining") {
      this.session.ask({ type: "leave", room: room.name }, () => {});
    }
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
    const excess = bytes(JSON.stringify(frame)) - this.session.limits.max_message;
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
    if (this.#request("history", room, { before, limit }, (answer) => this.#read(room, answer))) {
      room.olderState = "reading";
    }
    this.#changed();
  }

  /** @param {Room} room @param {Answer<"history">} answer */
  #read(room, answer) {
    if (answer.type === "history") {
      this.#readBefore(room, answer);
      this.#seekOn(room);
    } else if (room.sought && answer.retry_after_ms) {
      room.olderState = "";
      this.#askAgainSoon(answer.retry_after_ms);
    } else {
      room.olderState = sentence(answer.message);
      room.sought = null;
    }
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
    else this.readOlder(room, this.session.limits.page);
  }

  /**
   * Reads a page of a room's past for a search, and shows nothing of it. Resolves to the page, or to the
   * `problem`, with `retry_after_ms` if the server was asked too fast.
   * @param {Room} room
   * @param {string} before
   * @returns {Promise<Events["history"] | {problem: string, retry_after_ms?: number}>}
   */
  past(room, before) {
    return new Promise((resolve) => {
      if (room.state !== "joined") return resolve({ problem: "Not connected." });
      const page = { before, limit: this.session.limits.page };
      const asked = this.session.ask({ type: "history", room: room.name, ...page }, (answer) => {
        if (answer === null) resolve({ problem: "The connection is lost." });
        else if (!this.#has(room)) resolve({ problem: "You have left the room." });
        else if (answer.type === "history") resolve(answer);
        else resolve({ problem: sentence(answer.message), retry_after_ms: answer.retry_after_ms });
      });
      if (!asked) resolve({ problem: "Not connected." });
    });
  }

  /** @param {Room} room */
  typing(room, now = Date.now()) {
    if (room.state !== "joined" || now - this.#typed < TYPING_EVERY) return;
    this.#typed = now;
    this.session.connection.ask({ type: "typing", room: room.name });
  }

  /** The user looks at the page, so the messages of the shown room are read, if its end is in view. */
  look() {
    if (this.active && this.#isSeen(this.active) && this.active.markRead()) this.#changed();
  }

  /** @param {Room} room */
  #isSeen(room) {
    return this.watched && room === this.active && room.atEnd;
  }

  /** Whether this room was not left meanwhile. @param {Room} room */
  #has(room) {
    return this.rooms.get(room.name) === room;
  }

  /**
   * Asks about a room. The answer counts if the user has neither left it nor lost the connection.
   * @template {keyof Answers} Type
   * @param {Type} type
   * @param {Room} room
   * @param {object} fields
   * @param {(answer: Answer<Type>) => void} take
   */
  #request(type, room, fields, take) {
    return this.session.ask({ type, room: room.name, ...fields }, (answer) => {
      if (answer !== null && this.#has(room)) take(answer);
    });
  }

  /** @param {Room} room */
  #askWhoIsIn(room) {
    this.#request("members", room, {}, (answer) => {
      if (answer.type === "members") room.here(answer);
    });
  }

  /**
   * Joins a room, and looks first whether the name is in use there, if names are free. The answer counts
   * only if no join was sent meanwhile: otherwise it may be this connection that is there.
   * @param {Room} room
   */
  #lookAndJoin(room) {
    if (this.session.token !== "") return this.#join(room);
    room.state = "looking";
    isInUse(this.user, room.name).then((inUse) => {
      if (room.state !== "looking" || !this.#has(room)) return;
      room.nameInUse = inUse;
      this.#join(room);
      this.#changed();
    });
  }

  /** @param {Room} room */
  #join(room) {
    const from = room.last === null ? { history: PAGE } : { since: room.last };
    const asked = this.#request("join", room, from, (answer) => {
      if (answer.type === "room") this.#entered(room, answer);
      else this.#notEntered(room, answer);
    });
    room.state = asked ? "joining" : "outside";
  }

  /** @param {Room} room @param {Events["error"]} error */
  #notEntered(room, { message, retry, retry_after_ms }) {
    room.state = retry ? "outside" : "refused";
    room.why = sentence(message);
    if (retry) this.#askAgainSoon(retry_after_ms);
  }

  /** The rooms of an earlier visit may be more than the server allows now. */
  #dropBeyondLimit() {
    const others = [...this.rooms.values()].filter((room) => room !== this.active);
    for (const room of others.slice(Math.max(0, this.session.limits.rooms - 1))) this.rooms.delete(room.name);
  }

  /** @param {Room | undefined} room */
  #sendNext(room) {
    if (room?.state !== "joined") return;
    const line = this.outgoing.next(room.name);
    if (!line) return;
    const { text, ref } = line;
    if (this.session.connection.ask({ type: "send", room: room.name, text, ref })) this.outgoing.given(line);
  }

  /** @param {number | null} code */
  #lost(code) {
    clearTimeout(this.#askAgain ?? undefined);
    this.#askAgain = null;
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

  /** @param {ServerEvent} event */
  #take(event) {
    const room = this.rooms.get(event.room ?? "");
    switch (event.type) {
      case "welcome":
        this.#toldAnew = false;
        this.#dropBeyondLimit();
        for (const one of this.rooms.values()) if (one.state !== "looking") this.#join(one);
        break;
      case "parted":
        if (!room || !event.reason) break;
        room.state = "refused";
        room.why = sentence(event.reason);
        break;
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
      case "sent":
        this.#sent(room, event);
        break;
      case "error":
        if (event.ref) this.#notSent(event.ref, event);
        break;
      default:
      // The session takes the others, and this page does not know those of a newer server.
    }
  }

  /** @param {Room} room @param {Events["room"]} event */
  #entered(room, event) {
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

  /**
   * Marks a line under the user's name that this page did not say. Of the past nobody knows, and with a
   * token the other connection is the user's as well.
   * @param {Room} room
   * @param {Message} message
   */
  #marked(room, message) {
    const isNew = message.from === this.user && this.session.token === "" && room.last !== null;
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
}
