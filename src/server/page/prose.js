/** The text of a message as elements. What is not markup is in text nodes. */

import { h } from "./dom.js";
import { parse } from "./markup.js";

/** The nodes for `text`. */
export const prose = (text) => parse(text).map(node);

const TAGS = { quote: "blockquote", link: "a" };
const LINK = { target: "_blank", rel: "noopener noreferrer nofollow" };

function node(part) {
  if (typeof part === "string") return part;
  const { kind, children, ...attributes } = part;
  const more = kind === "link" ? LINK : {};
  return h(TAGS[kind] ?? kind, { ...attributes, ...more }, ...children.map(node));
}
