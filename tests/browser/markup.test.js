/** The small markup of messages, without a browser: what is markup, and what stays as it was typed. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

// As text, since its folder does not say that it holds modules.
const source = readFileSync(new URL("../../src/server/page/markup.js", import.meta.url), "utf8");
const { parse } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

/** The tree in a short form: `strong(a em(b))`. */
function shown(text) {
  const form = (node) => {
    if (typeof node === "string") return node;
    const { kind, value = "", children } = node;
    return `${kind}${value}(${children.map(form).join("")})`;
  };
  return parse(text).map(form).join("");
}

test("emphasis stands around words", () => {
  const cases = {
    "**bold** and *italic* and _italic_": "strong(bold) and em(italic) and em(italic)",
    "**bold, *both* and _both_**": "strong(bold, em(both) and em(both))",
    "(*so*), \"**so**\".": "(em(so)), \"strong(so)\".",
    "*see `a*b` at https://example.org/_x_y*": "em(see code(a*b) at link(https://example.org/_x_y))",
    "**https://example.org/**": "strong(link(https://example.org/))",
    "**🚀 Zoë é**": "strong(🚀 Zoë é)",
    "これは**重要**です": "これはstrong(重要)です",
    "*one *two*": "*one em(two)",
    "**a *b** c*": "strong(a *b) c*",
    "***_both_** and `more`*": "***em(both)** and code(more)*",
    "**_both_**": "strong(em(both))",
  };
  for (const [typed, expected] of Object.entries(cases)) assert.equal(shown(typed), expected);
});

test("what is not clearly markup stays as it was typed", () => {
  const cases = [
    "words_with_underscores and snake_case_names and __init__",
    "2 * 3 * 4 and 2*3*4 and 2**10 and 3**2",
    "* a star and * another",
    "src/*.rs, tests/*.rs and **/*.js and *.toml, *.lock",
    "f(*args, **kwargs)",
    "char *p = *q; p->x",
    "(*_*) and *_* and ^_^ and o_o",
    "*their", "5* hotels, 4* motels",
    "***three***, ****, __, _",
    "**open and\nclosed** on another line",
    "[a link](bank) and ![a picture](x) and <b>bold</b> and # a title",
    "> ",
    ">:( and >text",
    "-5 degrees, -- and ---",
    "1.5 and 1.",
    "    - deep inside",
  ];
  for (const typed of cases) assert.equal(shown(typed), typed);
});

test("a link reads as the address that it leads to", () => {
  assert.equal(shown("[bank](https://evil.example)"), "[bank](link(https://evil.example))");
  assert.equal(shown("https://user:pw@example.org/ http://[bad"), "https://user:pw@example.org/ http://[bad");
  assert.equal(shown("https://example.org/a_(b)). *"), "link(https://example.org/a_(b))). *");
  const links = (nodes) => nodes.flatMap((node) => (node.kind === "link" ? [node] : node.children ? links(node.children) : []));
  for (const typed of ["*https://a.example* _https://b.example/c_d_", "> - https://c.example", "**[x](http://d.example)**"]) {
    const found = links(parse(typed));
    assert.ok(found.length > 0, typed);
    for (const { href, children } of found) assert.equal(new URL(children[0]).href, href);
  }
});

test("lists keep their numbers, and quotes may hold lists", () => {
  assert.equal(shown("before:\n- a\n- *b*\nafter"), "before:ul(li(a)li(em(b)))after");
  assert.equal(shown("2. yes\n5. no"), "ol(li2(yes)li5(no))");
  assert.equal(shown("> said\n>\n> - a\n> > b\nanswer"), "quote(saidul(li(a))> b)answer");
  assert.equal(shown("one\n\ntwo"), "one\n\ntwo");
  assert.equal(shown("one\n\n- a\n\n> b\n\n\ntwo"), "oneul(li(a))quote(b)\ntwo");
  assert.equal(shown("x:\n```rust\n*a*\n- b\n```\ny `*c*`"), "x:pre(code(*a*\n- b))y code(*c*)");
});

test("the longest message is read at once, whatever is in it, and its tree is flat", () => {
  const pieces = [
    "*", "**", "_", "*a", "*a ", "a* ", "*a* ", "*a _b **c ", "**c b_ a* ", "`", "`a", "```", "```a", "> ", "> > ", "- a\n", "1. a\n",
    "\n", " ", ")", "(", "http://", "http://a)", "http://a ", "https://a*_", "[a](", "\u{1f680}*", "漢*", "- *a _b **c `d`** e_ f*\n",
  ];
  const depth = (nodes) => Math.max(0, ...nodes.map((node) => 1 + (node.children ? depth(node.children) : 0)));
  for (const piece of pieces) {
    for (const start of ["", "http://a", "> ", "*a"]) {
      const text = start + piece.repeat(65_536 / piece.length);
      const began = performance.now();
      const tree = parse(text);
      const took = performance.now() - began;
      assert.ok(took < 2_000, `${JSON.stringify(start + piece)} took ${took} ms`);
      assert.ok(depth(tree.slice(0, 10)) <= 8, `${JSON.stringify(piece)} is ${depth(tree)} deep`);
    }
  }
});
