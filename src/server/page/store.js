/**
 * The storage that outlives a reload. The state of the tab (user, rooms, unsent lines) is kept with the
 * tab. For the next visit the browser keeps the name, the theme, and for each user of this server the
 * settings and the rooms, each with its draft and what was read. A token is never kept longer than the
 * tab.
 *
 * @typedef {{active?: string | null, notify?: boolean, sound?: boolean}} KeptUser
 * @typedef {{kind: string, user: string, room?: string}} Place What a key is for.
 */

/** @import { Saved } from "./chat.js" */

const TAB = "hubbub.tab";
const NAME = "hubbub.name";
const THEME = "hubbub.theme";

/** The server: several may be below one origin, each at a path of its own. */
const SERVER = new URL(".", location.href).pathname;

/** The kinds of keys: a user, a room of a user, and the last message of a room that a notification told of. */
const USER = "hubbub.user";
const ROOM = "hubbub.room";
const TOLD = "hubbub.told";

/** Users and rooms that were not used for this long are dropped. */
const KEPT_FOR = 90 * 24 * 3_600_000;

/** The most rooms that are kept, of all users together. */
const MOST = 500;

/**
 * Storage may be forbidden or full; the page works without it.
 * @template Result
 * @param {() => Result} action
 */
function attempt(action) {
  try {
    return action();
  } catch {
    return null;
  }
}

/** @param {() => Storage} storage @param {string} key */
const load = (storage, key) => attempt(() => JSON.parse(storage().getItem(key) ?? "null"));

/**
 * Stores a value. Returns null if it could not be stored.
 * @param {() => Storage} storage
 * @param {string} key
 * @param {unknown} value
 */
const save = (storage, key, value) =>
  attempt(() => {
    storage().setItem(key, JSON.stringify(value));
    return true;
  });

// Where storage is forbidden, even to name it throws.
const tab = () => sessionStorage;
const browser = () => localStorage;

/** @returns {Partial<Saved>} */
export const loadTab = () => load(tab, TAB) ?? {};
/** @param {Saved} state */
export const saveTab = (state) => save(tab, TAB, state);
export const forgetTab = () => attempt(() => sessionStorage.removeItem(TAB));
export const loadName = () => attempt(() => localStorage.getItem(NAME)) ?? "";
/** @param {string} name */
export const saveName = (name) => attempt(() => localStorage.setItem(NAME, name));
export const loadTheme = () => attempt(() => localStorage.getItem(THEME)) ?? "auto";
/** @param {string} theme */
export const saveTheme = (theme) => attempt(() => localStorage.setItem(THEME, theme));

/** @param {string} kind @param {string[]} names */
const keyOf = (kind, ...names) => kind + JSON.stringify([SERVER, ...names]);

/**
 * What a key is for; null unless it is of a user of this server.
 * @param {string | null} key
 * @returns {Place | null}
 */
export function keptAt(key) {
  const [, kind, names] = /^(hubbub\.\w+)(\[.*\])$/su.exec(key ?? "") ?? [];
  const [server, user, room] = attempt(() => JSON.parse(names ?? "")) ?? [];
  return server === SERVER ? { kind, user, room } : null;
}

/** @param {Place} place */
export const isRoom = ({ kind }) => kind === ROOM;
/** @param {Place} place */
export const isUser = ({ kind }) => kind === USER;

const keys = () => attempt(() => Object.keys(localStorage)) ?? [];
const kept = () =>
  keys().flatMap((key) => {
    const place = keptAt(key);
    return place ? [{ key, ...place }] : [];
  });

/** The user's settings and last room; null if nothing is kept. @type {(user: string) => KeptUser | null} */
export const loadUser = (user) => load(browser, keyOf(USER, user));

/** Changes some fields that are kept for a user. @param {string} user @param {KeptUser} fields */
export const saveUser = (user, fields) =>
  save(browser, keyOf(USER, user), { ...loadUser(user), ...fields, at: Date.now() });

/** The rooms that are kept for a user, by name. @param {string} user */
export function loadRooms(user) {
  const theirs = kept().filter((one) => isRoom(one) && one.user === user);
  return new Map(theirs.map(({ key, room = "" }) => [room, load(browser, key) ?? {}]));
}

/**
 * Keeps a room, without its draft if there is no place for it.
 * @param {string} user
 * @param {string} room
 * @param {object} value
 */
export function saveRoom(user, room, value) {
  const key = keyOf(ROOM, user, room);
  const at = Date.now();
  return save(browser, key, { ...value, at }) ?? save(browser, key, { ...value, draft: "", at });
}

/** @param {string} key */
const remove = (key) => attempt(() => localStorage.removeItem(key));

/** @param {string} user @param {string} room */
export function forgetRoom(user, room) {
  for (const kind of [ROOM, TOLD]) remove(keyOf(kind, user, room));
}

/** Forgets all that is kept for a user, and the name for the entrance. @param {string} user */
export function forgetUser(user) {
  for (const one of kept()) if (one.user === user) remove(one.key);
  if (loadName() === user) remove(NAME);
}

/** Drops users and rooms that were not used for long, and the oldest of too many. */
export function dropOld(now = Date.now()) {
  const all = kept().filter((one) => isRoom(one) || isUser(one));
  const aged = all.map((one) => ({ ...one, at: load(browser, one.key)?.at ?? 0 })).sort((a, b) => b.at - a.at);
  for (const [index, { key, user, room, at }] of aged.entries()) {
    if (index < MOST && now - at < KEPT_FOR) continue;
    remove(key);
    if (room !== undefined) forgetRoom(user, room);
  }
}

/** @type {(user: string, room: string) => string | null} */
export const loadTold = (user, room) => load(browser, keyOf(TOLD, user, room));
/** @param {string} user @param {string} room @param {string} id */
export const saveTold = (user, room, id) => save(browser, keyOf(TOLD, user, room), id);
