/** The text of a message as elements. What is not markup is in text nodes. */

/** @import { Markup } from "./markup.js" */

import { h } from "./dom.js";
import { parse } from "./markup.js";
import { marked } from "./mention.js";

/** The nodes for `text`, with the mentions of a user marked. @param {string} text @param {string} [user] */
export const prose = (text, user) => (user === undefined ? parse(text) : marked(parse(text), user)).map(node);

/** @type {Record<string, keyof HTMLElementTagNameMap>} */
const TAGS = { quote: "blockquote", link: "a" };
/** @type {Record<string, object>} */
const MORE = {
  link: { target: "_blank", rel: "noopener noreferrer nofollow" },
  // The keyboard scrolls what has the focus, and code may be wider than its place.
  pre: { tabindex: "0" },
};

/** @param {Markup} part @returns {Node | string} */
function node(part) {
  if (typeof part === "string") return part;
  const { kind, children, ...attributes } = part;
  return h(TAGS[kind] ?? kind, { ...attributes, ...MORE[kind] }, ...children.map(node));
}
