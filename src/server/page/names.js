/**
 * Names of users and rooms: which can be one, how they stand in addresses, and the colour that
 * belongs to each.
 */

/** The longest name, in characters. */
export const LONGEST = 64;

/** How many colours the style sheet has for names. */
const HUES = 12;

// The rules of message.rs, in its order and its words. The server decides; the page says so sooner.
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

/** Why `name` cannot be one, in words that follow "The name"; nothing if it can. */
export function objection(name) {
  const broken = RULES.find(([pattern]) => pattern.test(name));
  return broken ? broken[1] : null;
}

/** What was typed, as a name: a keyboard may have its own form of a letter. */
export const typed = (text) => text.trim().normalize("NFC");

/**
 * The path of a user's chat, relative to the page, so that both may live below a prefix.
 * A browser takes `.` and `..` for steps in the path, however they are encoded.
 */
export function chatUrl(user) {
  return new URL(`chat/${encodeURIComponent(user)}`, new URL(".", location.href));
}

/** Why `name` cannot be a user's, who is named in an address. */
export function userObjection(name) {
  return name === "." || name === ".." ? "must not be only dots" : objection(name);
}

/** The same colour for the same name, everywhere: an index into the style sheet's. */
export function hue(name) {
  let hash = 2166136261;
  for (const character of name) {
    hash = Math.imul(hash ^ character.codePointAt(0), 16777619);
  }
  return (hash >>> 8) % HUES;
}

/** What stands in a user's round picture. */
export function initial(name) {
  const segments = new Intl.Segmenter().segment(name.trim());
  const [first] = segments;
  return first ? first.segment.toLocaleUpperCase() : "?";
}
