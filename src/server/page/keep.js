/**
 * The rooms that the browser keeps for a user's next visit, each with its draft, the last message that was
 * read, and whether it is muted. The tabs of one user agree by them, since each tab hears of what another stores.
 */

/** @import { Chat } from "./chat.js" */

import { objection } from "./names.js";
import { dropOld, forgetRoom, forgetUser, isRoom, isUser, keptAt, loadRooms, loadUser, saveRoom, saveUser } from "./store.js";

export class Kept {
  #chat;
  #hooks;
  /**
   * Each room as it is stored, so that only changes are written; empty if its age is to begin anew.
   * @type {Map<string, string>}
   */
  #stored = new Map();
  /** @type {string | null} */
  #active = null;

  /**
   * Hooks: `drafted()` when another tab wrote a draft, `changed()`, and `forgotten()`.
   * @param {Chat} chat
   * @param {{drafted(): void, changed(): void, forgotten(): void}} hooks
   */
  constructor(chat, hooks) {
    this.#chat = chat;
    this.#hooks = hooks;
    addEventListener("storage", (event) => this.#hear(event));
  }

  /** The rooms that are kept for a user, in any order; null if nothing is kept. @param {string} user */
  recall(user) {
    dropOld();
    this.#stored.clear();
    this.#active = null;
    if (!loadUser(user)) return null;
    const rooms = [...loadRooms(user)].map(([name, value]) => ({ name, ...checked(value) }));
    const valid = rooms.filter(({ name }) => isName(name));
    for (const { name } of valid) this.#stored.set(name, "");
    return valid;
  }

  /** Stores what has changed. */
  save() {
    const { user, rooms, active, session } = this.#chat;
    if (user === "") return;
    const shown = active?.name ?? null;
    if (shown !== this.#active) saveUser(user, { active: shown });
    this.#active = shown;
    for (const { name, read, draft, muted } of rooms.values()) {
      // A draft that is too long to be sent is not kept either.
      const value = { read, draft: draft.length > session.limits.max_message ? "" : draft, muted };
      if (this.#stored.get(name) === look(value)) continue;
      this.#stored.set(name, look(value));
      saveRoom(user, name, value);
    }
    for (const name of this.#stored.keys()) {
      if (rooms.has(name)) continue;
      this.#stored.delete(name);
      forgetRoom(user, name);
    }
  }

  /** Forgets the user; the user's other tabs are told. @param {string} user */
  forget(user) {
    this.#stored.clear();
    forgetUser(user);
  }

  /** Another tab has stored something. @param {StorageEvent} event */
  #hear({ key, newValue }) {
    const one = keptAt(key);
    if (!one || one.user !== this.#chat.user || this.#chat.user === "") return;
    if (isUser(one)) {
      if (newValue === null) this.#hooks.forgotten();
      else this.#hooks.changed();
    } else if (isRoom(one) && one.room !== undefined) {
      if (newValue === null) this.#left(one.room);
      else this.#heard(one.room, checked(parsed(newValue)));
    }
  }

  /** @param {string} name */
  #left(name) {
    this.#stored.delete(name);
    const room = this.#chat.rooms.get(name);
    // A line that waits here to be sent keeps the room.
    if (room && this.#chat.outgoing.of(name).length === 0) this.#chat.leave(room);
  }

  /** @param {string} name @param {ReturnType<typeof checked>} value */
  #heard(name, value) {
    const before = this.#chat.rooms.get(name)?.draft;
    if (!isName(name) || !this.#chat.agree(name, value)) return;
    this.#stored.set(name, look(value));
    if (before !== undefined && before !== value.draft) this.#hooks.drafted();
  }
}

/** @param {unknown} name */
const isName = (name) => typeof name === "string" && objection(name) === null;

/** @param {ReturnType<typeof checked>} value */
const look = ({ read, draft, muted }) => JSON.stringify([read, draft, muted]);

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

/** A room as it was stored, perhaps by another version of this page. @param {Record<string, unknown>} stored */
function checked({ read, draft, muted }) {
  return {
    read: typeof read === "string" && /^\d+-\d+$/.test(read) ? read : null,
    draft: typeof draft === "string" ? draft : "",
    muted: muted === true,
  };
}
