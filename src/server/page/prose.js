/**
 * The text of a message as elements: links that can be followed, and code between backticks.
 * Whatever else a text holds is shown as it is, in text nodes.
 */

import { h } from "./dom.js";

// Without white space, quotes and angle brackets, and without what hides or turns characters, so
// that a link says where it leads.
const LINK = /\bhttps?:\/\/[^\s<>"'`\p{Cc}\p{Cf}]+/giu;
const FENCE = /```(?:[\w+-]*\n)?([\s\S]+?)```/g;
const CODE = /`([^`\n]+)`/g;

/** The nodes that show `text`. */
export function prose(text) {
  return split(text, FENCE, fence, (rest) => split(rest, CODE, code, (plain) => split(plain, LINK, link, (t) => [t])));
}

/** Makes nodes of the matches with `make` and of what is between them with `others`. */
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

const fence = ([all, inside]) => ({ node: h("pre", {}, h("code", {}, inside.replace(/\n$/, ""))), length: all.length });
const code = ([all, inside]) => ({ node: h("code", {}, inside), length: all.length });

function link([all]) {
  const address = withoutEnd(all);
  const url = URL.parse ? URL.parse(address) : parse(address);
  // Who is named in front of an at sign is mostly somebody that the address does not lead to.
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

/** Punctuation at the end belongs to the sentence; a bracket does unless its partner is inside. */
function withoutEnd(address) {
  let text = address;
  for (;;) {
    const last = text.at(-1);
    const unbalanced = last === ")" && text.split(")").length > text.split("(").length;
    if (!/[.,:;!?*_\]}]/.test(last) && !unbalanced) return text;
    text = text.slice(0, -1);
  }
}
