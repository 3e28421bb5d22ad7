/**
 * Mentions: `@name` with the user's own name, in any case, at a word's beginning, and not followed by a
 * letter or a digit. What stands in code or in a link is no mention.
 */

/** @import { Markup } from "./markup.js" */

import { parse } from "./markup.js";

/** The kinds of markup in which nobody is mentioned. */
const SILENT = ["code", "pre", "link"];

/** The most mentions that are marked in one message. Thousands would hold the page up. */
const MOST = 100;

/** A pattern for this text: characters that mean something in a pattern stand for themselves. @param {string} text */
export const literal = (text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");

/** @param {string} name */
const at = (name) => `[@\uff20]${literal(name)}`;

/** @param {string} name */
const pattern = (name) => new RegExp(`(?<![\\p{L}\\p{N}_])${at(name)}(?![\\p{L}\\p{M}\\p{N}_])`, "giu");

/** Whether a message's text mentions the user. @param {string} text @param {string} name */
export function mentions(text, name) {
  // Most texts name nobody, and a long one takes long to parse.
  if (!new RegExp(at(name), "iu").test(text)) return false;
  const mention = pattern(name);
  return parse(text).some((node) => isIn(node, mention));
}

/** @param {Markup} node @param {RegExp} mention @returns {boolean} */
function isIn(node, mention) {
  if (typeof node === "string") return node.search(mention) >= 0;
  return !SILENT.includes(node.kind) && node.children.some((child) => isIn(child, mention));
}

/** The nodes, with the mentions of the user as `mark`. @param {Markup[]} nodes @param {string} name */
export function marked(nodes, name) {
  const mention = pattern(name);
  let left = MOST;
  /** @param {Markup} node @returns {Markup[]} */
  const split = (node) => {
    if (typeof node !== "string") {
      return [SILENT.includes(node.kind) ? node : { ...node, children: node.children.flatMap(split) }];
    }
    /** @type {Markup[]} */
    const parts = [];
    let end = 0;
    for (const { 0: whole, index } of node.matchAll(mention)) {
      if (left === 0) break;
      left -= 1;
      parts.push(node.slice(end, index), { kind: "mark", children: [whole] });
      end = index + whole.length;
    }
    return [...parts, node.slice(end)];
  };
  return nodes.flatMap(split);
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
