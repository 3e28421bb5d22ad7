/**
 * Names of users and rooms: their rules, their form in addresses, and their colours.
 */

/** The longest name, in characters. */
export const LONGEST = 64;

/** The number of colours that the style sheet has for names. */
const HUES = 12;

// The rules of message.rs, in the same order and words. The server decides; the page only tells sooner.
/** @type {[{ test(name: string): boolean }, string][]} */
const RULES = [
  [/^$/u, "must not be empty"],
  [new RegExp(`^[^]{${LONGEST + 1}}`, "u"), `must not be longer than ${LONGEST} characters`],
  [/\//u, "must not contain a slash"],
  [/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/u, "must not contain control characters"],
  [/^ | $|  |(?! )\p{White_Space}/u, "must not contain white space other than single spaces inside it"],
  [/[\p{DI}\u2800\ufff9-\ufffb\u{1d159}]/u, "must not contain invisible characters, as some emoji do"],
  [/^\p{M}/u, "must not begin with a combining mark"],
  [{ test: (name) => name !== name.normalize("NFC") }, "must be in Unicode normalization form C"],
  [/^[*!] /u, "must not begin with an asterisk or an exclamation mark before a space"],
  [/[:,](?: |$)/u, "must not contain a colon or a comma before a space or at its end"],
];

/** The reason why `name` is not valid, in words that follow "The name"; nothing if it is valid. @param {string} name */
export function objection(name) {
  const broken = RULES.find(([pattern]) => pattern.test(name));
  return broken ? broken[1] : null;
}

/** Turns typed text into a name, in the Unicode form that names have. @param {string} text */
export const typed = (text) => text.trim().normalize("NFC");

/**
 * The path of a user's chat. It is relative to the page, so that a proxy may serve both below a prefix.
 * A browser resolves `.` and `..` as steps in the path, even if they are encoded.
 * @param {string} user
 */
export function chatUrl(user) {
  return new URL(`chat/${encodeURIComponent(user)}`, new URL(".", location.href));
}

/** Where the server tells who is in a room. @param {string} room */
export function membersUrl(room) {
  return new URL(`api/rooms/${encodeURIComponent(room)}/members`, new URL(".", location.href));
}

/** Compares two names as people sort them: room 9 before room 10. */
export const inOrder = new Intl.Collator(undefined, { numeric: true }).compare;

/** The reason why `name` is not valid for a user, whose name stands in an address. @param {string} name */
export function userObjection(name) {
  return name === "." || name === ".." ? "must not be only dots" : objection(name);
}

/** The colour of a name, as an index into the style sheet's colours. @param {string} name */
export function hue(name) {
  let hash = 2166136261;
  for (const character of name) {
    hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 16777619);
  }
  return (hash >>> 8) % HUES;
}

/** The letters in a user's round picture. @param {string} name */
export function initial(name) {
  const segments = new Intl.Segmenter().segment(name.trim());
  const [first] = segments;
  return first ? first.segment.toLocaleUpperCase() : "?";
}
