/**
 * Names of users and rooms: which can be one, how they stand in addresses, and the colour that
 * belongs to each.
 */

/** The longest name, in characters. */
export const LONGEST = 64;

/** How many colours the style sheet has for names. */
const HUES = 12;

// What the server refuses in a name: control characters, line separators, direction marks.
const DISTURBING = /[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/u;

/** Why `name` cannot be one, in words that follow "The name"; nothing if it can. */
export function objection(name) {
  if (name === "") return "must not be empty";
  if ([...name].length > LONGEST) return `must not be longer than ${LONGEST} characters`;
  if (name.includes("/")) return "must not contain a slash";
  if (DISTURBING.test(name)) return "must not contain control characters";
  return null;
}

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
