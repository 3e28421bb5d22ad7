/**
 * The small markup of a message, as a tree without any element: a node is a string, or
 * `{kind, children}`. Text that is not clearly markup stays as it was typed, and a link always reads as
 * its own address. The tree is eight nodes deep at most, and the time grows with the length alone.
 *
 * | typed | kind |
 * |---|---|
 * | `*a*`, `_a_`, `**a**` | `em`, `em`, `strong` |
 * | words between backticks; lines between three of them | `code`; `pre` |
 * | lines that begin with `- ` | `ul`, of `li` |
 * | lines that begin with `1. ` | `ol`, of `li` with a `value` |
 * | lines that begin with `> ` | `quote` |
 * | `https://example.org` | `link`, with an `href` |
 *
 * @typedef {"quote" | "ul" | "ol"} Block
 * @typedef {Block | "em" | "strong" | "code" | "pre" | "li" | "link" | "mark"} Kind
 * @typedef {{kind: Kind, children: Markup[], value?: string, href?: string}} Part
 * @typedef {string | Part} Markup
 */

const FENCE = /```(?:[\w+-]*\n)?([\s\S]+?)```\n?/g;

// An address has no white space, quotes or angle brackets, and no characters that are invisible or change
// the direction of writing: the text of a link must show where it leads.
const TOKEN = /`([^`\n]+)`|\bhttps?:\/\/[^\s<>"'`\p{Cc}\p{Cf}]+|\*+|_+/giu;

/** @type {Record<string, "em" | "strong">} */
const EMPHASIS = { "*": "em", _: "em", "**": "strong" };

// Emphasis stands around words, and not inside of a word, a product or a path. Scripts that write no
// spaces have word ends everywhere.
const UNSPACED = "\\p{Ideographic}\\p{scx=Hiragana}\\p{scx=Katakana}";
const BEFORE = new RegExp(`(?:^|[\\s(\\[{"'“‘«¿¡—–*_${UNSPACED}])$`, "u");
const FIRST = /^[\p{L}\p{N}\p{Extended_Pictographic}\p{Sc}"'“‘«([¿¡`*_@#]/u;
const LAST = /[\p{L}\p{M}\p{N}\p{Extended_Pictographic}\p{Sc}\ufe0f.,:;!?"'”’»)\]…`%]$/u;
const AFTER = new RegExp(`^(?:$|[\\s.,:;!?)\\]}"'”’»…—–*_${UNSPACED}])`, "u");

const BULLET = /^ {0,3}- (?=\S)/;
const NUMBER = /^ {0,3}(0|[1-9]\d{0,3})\. (?=\S)/;

/** The tree of a message's text. @param {string} text */
export function parse(text) {
  /** @type {Markup[]} */
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(FENCE)) {
    // A block breaks the line by itself.
    nodes.push(...blocks(text.slice(end, match.index).replace(/\n$/, "")));
    nodes.push({ kind: "pre", children: [{ kind: "code", children: [match[1].replace(/\n$/, "")] }] });
    end = match.index + match[0].length;
  }
  nodes.push(...blocks(text.slice(end)));
  return nodes;
}

/**
 * The nodes of a text without fences. A quote holds no other quote.
 * @param {string} text
 * @returns {Markup[]}
 */
function blocks(text, quoted = false) {
  return runs(text.split("\n"), quoted).flatMap(({ kind, lines }, index, all) => {
    switch (kind) {
      case "quote":
        return { kind, children: blocks(lines.map((line) => line.slice(2)).join("\n"), true) };
      case "ul":
        return { kind, children: lines.map((line) => ({ kind: "li", children: inline(line.replace(BULLET, "")) })) };
      case "ol":
        // Each item keeps the number that was typed.
        return { kind, children: lines.map((line) => ({ kind: "li", value: NUMBER.exec(line)?.[1], children: inline(line.replace(NUMBER, "")) })) };
      default:
        return plain(lines, index > 0, index < all.length - 1);
    }
  });
}

/**
 * Lines as they are. A blank one beside a block is not shown: the block stands apart by itself.
 * @param {string[]} lines
 * @param {boolean} isAfterBlock
 * @param {boolean} isBeforeBlock
 */
function plain(lines, isAfterBlock, isBeforeBlock) {
  const from = isAfterBlock && lines[0] === "" ? 1 : 0;
  const to = lines.length - (isBeforeBlock && lines.at(-1) === "" ? 1 : 0);
  return lines.slice(from, Math.max(from, to)).flatMap((line, index) => (index === 0 ? inline(line) : ["\n", ...inline(line)]));
}

/** The lines, with those of one kind together. @param {string[]} lines @param {boolean} quoted */
function runs(lines, quoted) {
  /** @type {{kind: Block | "text", lines: string[]}[]} */
  const result = [];
  for (const line of lines) {
    const before = result.at(-1);
    const kind = kindOf(line, quoted, before?.kind);
    if (before?.kind === kind) before.lines.push(line);
    else result.push({ kind, lines: [line] });
  }
  return result;
}

/** @param {string} line @param {boolean} quoted @param {string} [before] */
function kindOf(line, quoted, before) {
  const goesOn = before === "quote" && line === ">";
  if (!quoted && (goesOn || (line.startsWith("> ") && line.trim() !== ">"))) return "quote";
  if (BULLET.test(line)) return "ul";
  if (NUMBER.test(line)) return "ol";
  return "text";
}

/**
 * The nodes of one line. A mark that ends emphasis pairs with the nearest one of its kind that begins
 * it. At most one of each kind is open, so nothing nests deeper than there are kinds.
 * @param {string} line
 */
function inline(line) {
  /** @type {Markup[]} */
  const nodes = [];
  /** @type {Opening[]} */
  const open = [];
  let end = 0;
  TOKEN.lastIndex = 0;
  for (let match; (match = TOKEN.exec(line)); TOKEN.lastIndex = end) {
    const [typed, code] = match;
    if (match.index > end) nodes.push(line.slice(end, match.index));
    if (code !== undefined) {
      nodes.push({ kind: "code", children: [code] });
      end = match.index + typed.length;
    } else if (/^h/i.test(typed)) {
      const address = withoutEnd(typed);
      nodes.push(link(address));
      end = match.index + address.length;
    } else {
      end = match.index + typed.length;
      // Two code units hold one character at least.
      mark(typed, line.slice(Math.max(0, match.index - 2), match.index), line.slice(end, end + 2), nodes, open);
    }
  }
  if (end < line.length) nodes.push(line.slice(end));
  return joined(nodes);
}

/**
 * Takes in a mark between two texts: it ends emphasis, or may begin it, or stays as it was typed.
 * @typedef {{typed: string, at: number}} Opening The mark, and its place among the nodes.
 * @param {string} typed
 * @param {string} before
 * @param {string} after
 * @param {Markup[]} nodes
 * @param {Opening[]} open
 */
function mark(typed, before, after, nodes, open) {
  const kind = EMPHASIS[typed];
  const ends = kind && (LAST.test(before) || typeof nodes.at(-1) === "object") && AFTER.test(after);
  const index = ends ? open.findIndex((one) => one.typed === typed) : -1;
  if (index >= 0) {
    const [, ...children] = nodes.splice(open[index].at);
    nodes.push({ kind, children: joined(children) });
    open.length = index;
    return;
  }
  if (kind && BEFORE.test(before) && FIRST.test(after)) {
    const earlier = open.findIndex((one) => one.typed === typed);
    if (earlier >= 0) open.splice(earlier, 1);
    open.push({ typed, at: nodes.length });
  }
  nodes.push(typed);
}

/** The nodes, with strings beside each other as one. @param {Markup[]} nodes */
function joined(nodes) {
  /** @type {Markup[]} */
  const result = [];
  for (const node of nodes) {
    const before = result.at(-1);
    if (typeof node === "string" && typeof before === "string") result[result.length - 1] = before + node;
    else result.push(node);
  }
  return result;
}

/** @param {string} address @returns {Markup} */
function link(address) {
  const url = URL.parse ? URL.parse(address) : parsed(address);
  // A name before an at sign mostly pretends to be the host of the link, and is not.
  if (!url || !["http:", "https:"].includes(url.protocol) || url.username || url.password) return address;
  return { kind: "link", href: url.href, children: [address] };
}

/** @param {string} address */
function parsed(address) {
  try {
    return new URL(address);
  } catch {
    return null;
  }
}

/**
 * Punctuation at the end belongs to the sentence. So does a closing bracket without an opening one.
 * @param {string} address
 */
function withoutEnd(address) {
  /** @param {string} bracket */
  const count = (bracket) => address.split(bracket).length;
  let unopened = count(")") - count("(");
  let end = address.length;
  for (; end > 0; end -= 1) {
    const last = address[end - 1];
    if (last === ")") {
      if (unopened <= 0) break;
      unopened -= 1;
    } else if (last === "(") {
      break;
    } else if (!/[.,:;!?*_\]}]/.test(last)) {
      break;
    }
  }
  return address.slice(0, end);
}
