/**
 * Mentions: `@name` with the user's own name, in any case, at a word's beginning, and not followed by a
 * letter or a digit. What stands in code or in a link is no mention.
 */

import { h } from "./dom.js";

const NO_MENTION = /```[\s\S]+?```|`[^`\n]+`|\bhttps?:\/\/\S+/gi;

/** A pattern for this text: characters that mean something in a pattern stand for themselves. @param {string} text */
export const literal = (text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");

/** @param {string} name */
const pattern = (name) =>
  new RegExp(`(?<![\\p{L}\\p{N}_])[@\uff20]${literal(name)}(?![\\p{L}\\p{M}\\p{N}_])`, "giu");

/** Whether a message's text mentions the user. @param {string} text @param {string} name */
export function mentions(text, name) {
  return /[@\uff20]/.test(text) && pattern(name).test(text.replace(NO_MENTION, " "));
}

/** The most mentions that are marked in one message. Thousands would hold the page up. */
const MOST = 100;

/** Puts a `mark` around the mentions of the user in an element. @param {Element} element @param {string} name */
export function markMentions(element, name) {
  let left = MOST;
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const nodes = [];
  while (walker.nextNode()) nodes.push(/** @type {Text} */ (walker.currentNode));
  for (const node of nodes) {
    if (node.parentElement?.closest("code, a")) continue;
    const all = [...node.data.matchAll(pattern(name))].slice(0, left);
    left -= all.length;
    // From the last to the first, so that the places of those before it stay right.
    for (const { 0: whole, index } of all.reverse()) {
      const found = node.splitText(index);
      found.splitText(whole.length);
      found.replaceWith(h("mark", {}, whole));
    }
  }
}

/**
 * A text with the name completed that is begun behind an `@` before `caret`, as `{text, caret}`; nothing
 * if no name begins so.
 * @param {string} text
 * @param {number} caret
 * @param {string[]} names
 */
export function completed(text, caret, names) {
  const begun = /(?<![\p{L}\p{N}_])[@\uff20]([^@\uff20\n]{1,64})$/u.exec(text.slice(0, caret));
  if (!begun) return null;
  const start = begun[1].toLowerCase();
  const name = names.find((one) => one.toLowerCase().startsWith(start));
  if (!name) return null;
  const before = `${text.slice(0, begun.index)}@${name} `;
  return { text: before + text.slice(caret), caret: before.length };
}
