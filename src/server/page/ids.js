/**
 * Message ids. The server writes them `millis-number`, and their order is the room's order; both
 * halves are 64-bit numbers, which a JavaScript number does not hold, so they are compared as text.
 */

/** The id before every other one. A room resumed after it has its whole log. */
export const BEGINNING = "0-0";

/** @param {string} a @param {string} b */
const compareNumbers = (a, b) => a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);

/** Negative, zero or positive, as for `Array.sort`. @param {string} a @param {string} b */
export function compare(a, b) {
  const [aMillis, aNumber] = a.split("-");
  const [bMillis, bNumber] = b.split("-");
  return compareNumbers(aMillis, bMillis) || compareNumbers(aNumber, bNumber);
}

/** A ref that is unique. Not made by `crypto.randomUUID`, which plain http does not offer. */
export function randomRef() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
