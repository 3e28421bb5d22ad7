/**
 * The text of a message as elements: links that can be followed, and code between backticks.
 * All other text is shown as it is, in text nodes.
 */

import { h } from "./dom.js";

// No white space, quotes or angle brackets, and no characters that are invisible or change the
// direction of writing: the text of a link must show where it leads.
const LINK = /\bhttps?:\/\/[^\s<>"'`\p{Cc}\p{Cf}]+/giu;
const FENCE = /```(?:[\w+-]*\n)?([\s\S]+?)```/g;
const CODE = /`([^`\n]+)`/g;

/** The nodes for `text`. */
export function prose(text) {
  return split(text, FENCE, fence, (rest) => split(rest, CODE, code, (plain) => split(plain, LINK, link, (t) => [t])));
}

/** Makes nodes of the matches with `make`, and of the text between them with `others`. */
function split(text, pattern, make, others) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    const { node, length } = make(match);
    if (!node) continue;
    if (match.index > end) nodes.push(...others(text.slice(end, match.index)));
    nodes.push(node);
    end = match.index + length;
  }
  if (end < text.length) nodes.push(...others(text.slice(end)));
  return nodes;
}

// The keyboard scrolls what has the focus, and code may be wider than its place.
const fence = ([all, inside]) => ({
  node: h("pre", { tabindex: "0" }, h("code", {}, inside.replace(/\n$/, ""))),
  length: all.length,
});
const code = ([all, inside]) => ({ node: h("code", {}, inside), length: all.length });

function link([all]) {
  const address = withoutEnd(all);
  const url = URL.parse ? URL.parse(address) : parse(address);
  // A name before an at sign mostly pretends to be the host of the link, and is not.
  if (!url || !["http:", "https:"].includes(url.protocol) || url.username || url.password) return { node: null };
  const node = h("a", { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow" }, address);
  return { node, length: address.length };
}

function parse(address) {
  try {
    return new URL(address);
  } catch {
    return null;
  }
}

/** Punctuation at the end belongs to the sentence. So does a closing bracket without an opening one. */
function withoutEnd(address) {
  let text = address;
  for (;;) {
    const last = text.at(-1);
    const unbalanced = last === ")" && text.split(")").length > text.split("(").length;
    if (!/[.,:;!?*_\]}]/.test(last) && !unbalanced) return text;
    text = text.slice(0, -1);
  }
}
