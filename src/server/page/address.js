/** The page's address: the room, the message and the token that it names; and the address of a message. */

import { objection } from "./names.js";

/** The room, the message in it and the token that the address names. Removes a token from the address. */
export function fromAddress() {
  const query = new URLSearchParams(location.search);
  const { room, at, token } = fromHash();
  if (query.has("room") || query.has("token") || token !== null) {
    history.replaceState(null, "", location.pathname);
  }
  return { room: valid(query.get("room")) ?? room, at, token: query.get("token") ?? token ?? "" };
}

/** The same of the part behind the hash: `ops`, or fields such as `room=ops&at=1700000000000-0` or `token=…`. */
export function fromHash() {
  const hash = location.hash.slice(1);
  // An equals sign in a room's name is encoded in the address.
  const hasFields = hash.includes("=");
  const fields = new URLSearchParams(hasFields ? hash : "");
  const at = fields.get("at");
  return {
    room: valid(hasFields ? fields.get("room") : decoded(hash)),
    at: at !== null && /^\d{1,20}-\d{1,20}$/.test(at) ? at : null,
    token: fields.get("token"),
  };
}

/**
 * The address of a message. Nothing else of this page's address is in it.
 * @param {string} room
 * @param {string} id
 */
export function messageUrl(room, id) {
  return `${location.origin}${location.pathname}#room=${encodeURIComponent(room)}&at=${id}`;
}

/** @param {string | null} room */
const valid = (room) => (room !== null && objection(room) === null ? room : null);

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}
