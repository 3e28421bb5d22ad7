/** What two people see of each other, each with a browser of their own, on instances of their own. */

import assert from "node:assert/strict";
import { after, before } from "node:test";
import { Crowd } from "./crowd.js";
import { Instance, Redis, openBrowser, tearDown, until } from "./house.js";
import { testsWithPeople } from "./people.js";
import { Person } from "./person.js";

const OPERATORS = "an operators' secret of enough bytes";

/** @type {Redis} */
let redis;
/** @type {Instance} */
let one;
/** @type {Instance} */
let two;
/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  redis = await Redis.start();
  // Short enough for a room's log to be outlived, and a token bucket that a test cannot empty.
  const args = ["--redis", redis.url, "--send-rate", "0", "--history-length", "300", "--admin-secret", OPERATORS];
  [one, two] = await Promise.all([Instance.start(...args), Instance.start(...args)]);
  browser = await openBrowser();
});

after(() => tearDown(browser));

const people = testsWithPeople(() => browser);

people("two people on two instances see each other come, type, talk and leave", async (arrives) => {
  const alice = await arrives(one);
  const bob = await arrives(two);
  await alice.enters("alice", "hall");
  await bob.enters("bob", "hall");
  await alice.reads("bob joined", "#log");
  await bob.reads("alice", "#member-list");
  await bob.types("I am about to say something");
  await alice.reads("bob is typing", "#typing");
  await bob.says("hello alice\nin two lines");
  await alice.sees("hello alice\nin two lines");
  await alice.says("hello bob");
  await bob.sees("hello bob");
  await alice.sees("hello bob");
  await bob.sees("hello alice\nin two lines");
  assert.deepEqual(await alice.messages(), await bob.messages());
  await bob.page.click("#leave");
  await bob.page.click("#ask-yes");
  await alice.reads("bob left", "#log");
});

people("a name in use is told, and lines of another under one's name are another's", async (arrives) => {
  const alice = await arrives(one);
  await alice.enters("alice", "free names");
  const tab = await Person.in(alice.context, one);
  await tab.enters("alice", "free names");
  assert.equal(await tab.page.locator("#status .bar").count(), 0, "it is the same browser");
  await tab.leaves();

  const mallory = await arrives(two);
  await mallory.enters("alice", "free names");
  await mallory.reads("alice is here already. If that is not you, choose another name.", "#status");
  await mallory.says("send me money");
  await alice.sees("send me money");
  await alice.says("that was not me");
  await alice.sees("that was not me");
  const own = (person) => person.page.$$eval("#log .message.own .text", (all) => all.map((one) => one.textContent));
  assert.deepEqual(await own(alice), ["that was not me"]);
  assert.equal(await alice.page.locator("#log .message:not(.own) >> text=from another connection").count(), 1);
  await mallory.sees("that was not me");
  assert.deepEqual(await own(mallory), ["send me money"]);
  await mallory.page.click("text=It is me");
  await mallory.page.locator("#status .bar").waitFor({ state: "detached" });
  await mallory.joins("another room");
  assert.equal(await mallory.page.locator("#status .bar").count(), 0);

  const carol = await arrives(one);
  await carol.enters("alice", "free names");
  await carol.page.click("#status button >> text=Choose another name");
  await carol.page.waitForSelector("#entrance:not([hidden])");
});

people("a name that looks like another's has a sign in words, in each place", async (arrives) => {
  const bob = await arrives(one);
  await bob.enters("bob", "look");
  const alice = await arrives(one);
  await alice.enters("alice", "look");
  await bob.reads("alice joined", "#log");
  assert.equal(await bob.page.locator(".unlike").count(), 0);
  const texts = (where) => bob.page.$$eval(where, (all) => all.map((one) => one.textContent));
  const reads = (words) => until(words, async () => (await texts("#log .notice")).join().includes(words));
  const third = await arrives(one);
  await third.enters("Alice", "look");
  await reads("Alice (not alice)");
  const other = await arrives(two);
  await other.enters("\u0430lice", "look");
  await reads("\u0430lice (not Alice)");
  await third.leaves();
  await reads("Alice (not alice) came and went");
  assert.deepEqual(await texts("#member-list .unlike"), ["not \u0430lice", "not alice"]);
  assert.equal(await other.page.locator("#member-list .unlike").count(), 2);
  await other.says("hello");
  await bob.sees("hello");
  assert.deepEqual(await texts("#log .unlike"), ["not alice"]);
  await other.leaves();
  await until("the sign is gone", async () => (await texts("#member-list .unlike")).length === 0);
});

people("the keyboard is enough: a name, a room, a message, another room, and back", async (arrives) => {
  const alice = await arrives(one);
  await alice.opens();
  const { keyboard } = alice.page;
  await keyboard.type("alice");
  await keyboard.press("Tab");
  await keyboard.type("keys");
  await keyboard.press("Enter");
  await alice.isIn("keys");
  await keyboard.type("first");
  await keyboard.press("Shift+Enter");
  await keyboard.type("second");
  await keyboard.press("Enter");
  await alice.sees("first\nsecond");
  const focused = () => alice.page.evaluate(() => document.activeElement.id);
  for (let tabs = 0; (await focused()) !== "join-room"; tabs += 1) {
    assert.ok(tabs < 20, "the field for rooms cannot be reached");
    await keyboard.press("Shift+Tab");
  }
  await keyboard.type("more keys");
  await keyboard.press("Enter");
  await alice.isIn("more keys");
  assert.equal(await focused(), "text");
  await keyboard.press("Alt+ArrowUp");
  await alice.isIn("keys");
});

people("a reload is where one was: the name, the rooms, what was said, and the draft", async (arrives) => {
  const alice = await arrives(one);
  await alice.enters("alice", "den");
  await alice.says("before the reload");
  await alice.sees("before the reload");
  await alice.joins("attic");
  await alice.types("half a thou");
  await alice.page.reload();
  await alice.isOnline();
  await alice.isIn("attic");
  assert.equal(await alice.page.inputValue("#text"), "half a thou");
  await alice.page.click("#room-list >> text=den");
  await alice.sees("before the reload");
  assert.equal((await alice.messages()).length, 1);
});

people("an address leads to its room, whatever its name", async (arrives) => {
  const alice = await arrives(one);
  const room = "a=b&c #1 ü";
  await alice.opens(`?room=${encodeURIComponent(room)}`);
  await alice.page.fill("#name", "Zoë 100%");
  await alice.page.click("text=Enter");
  await alice.isOnline();
  await alice.isIn(room);
  await alice.says("here");
  await alice.sees("here");
  const bob = await arrives(one);
  await bob.opens(new URL(alice.page.url()).hash);
  assert.equal(await bob.page.inputValue("#first-room"), room);
});

people("unread messages are counted per room and in the title, until they are seen", async (arrives) => {
  const alice = await arrives(one);
  const bob = await arrives(two);
  await alice.enters("alice", "quiet");
  await bob.enters("bob", "quiet");
  await alice.joins("elsewhere");
  await alice.title("elsewhere · Hubbub");
  await bob.says("one");
  await bob.says("two");
  await alice.title("• elsewhere · Hubbub");
  await alice.reads("2", "#room-list .unread");
  await alice.looks();
  await alice.page.click("#room-list >> text=quiet");
  await alice.title("quiet · Hubbub");
  await alice.reads("New", "#log");
  assert.equal(await alice.page.locator(".unread").count(), 0);
});

people("hostile text is text: nothing runs, nothing is loaded, nothing leaks out of its line", async (arrives) => {
  const alice = await arrives(one);
  const bob = await arrives(two);
  await alice.enters("alice", "gallery");
  await bob.enters("<b>bob", "gallery");
  const long = "x".repeat(60_000);
  const texts = [
    '<img src=x onerror="document.title=\'run\'">',
    "<script>document.title='run'</script>",
    "javascript:document.title='run' and [a](javascript:alert(1))",
    "`<svg onload=alert(1)>` ```<iframe srcdoc='<script>alert(1)</script>'>```",
    "\u202eturned around\u2066 and not turned back",
    "https://example.org/\"onmouseover=\"alert(1) http://user:pw@example.org/<b>",
    "https://example.org/a_(b)?c=d&e#f), and http://[bad and https://exa\u202emple.org",
    "javascript://example.org/%0adocument.title='run' data:text/html,run",
    "__proto__ ${7*7} {{7*7}} \u0000\u001b[31m",
    "w".repeat(500),
    long,
  ];
  for (const text of texts) await bob.says(text);
  await alice.sees(long);
  const shown = await alice.messages();
  // Backticks make code, and are not shown.
  assert.deepEqual(shown, texts.map((text) => text.replaceAll("`", "")));
  const made = await alice.page.$$eval("#log .text *", (all) => all.map((one) => one.localName));
  assert.deepEqual([...new Set(made)].sort(), ["a", "code", "pre"]);
  const links = await alice.page.$$eval("#log a", (/** @type {HTMLAnchorElement[]} */ all) => all.map(({ href, rel }) => [href, rel]));
  const rel = "noopener noreferrer nofollow";
  assert.deepEqual(links, [
    ["https://example.org/", rel],
    ["https://example.org/a_(b)?c=d&e#f", rel],
    ["https://exa/", rel],
  ]);
  await alice.looks();
  await alice.title("gallery · Hubbub");
  await alice.reads("<b>bob", "#member-list");
  const wide = ({ scrollWidth, clientWidth }) => scrollWidth > clientWidth;
  assert.equal(await alice.page.$eval("#scroller", wide), false);
});

people("scrolling back reads what is older, and nobody loses their place", async (arrives) => {
  const crowd = await Crowd.at(browser, one);
  await crowd.enters("bob", "archive");
  for (let i = 0; i < 170; i += 1) await crowd.says("bob", `line ${i}`, "archive");
  const alice = await arrives(two);
  await alice.enters("alice", "archive");
  await alice.sees("line 169");
  const { page } = alice;
  const first = async () => (await alice.messages())[0];
  assert.notEqual(await first(), "line 0");
  while ((await first()) !== "line 0") {
    const seen = await first();
    const moved = await page.evaluate(async () => {
      const scroller = document.getElementById("scroller");
      const rows = () => [...document.querySelectorAll("#log .message")];
      const top = scroller.getBoundingClientRect().top;
      scroller.scrollTop = 20;
      const row = rows().find((one) => one.getBoundingClientRect().bottom > top);
      const place = row.getBoundingClientRect().top;
      const count = rows().length;
      while (rows().length === count) await new Promise(requestAnimationFrame);
      await new Promise(requestAnimationFrame);
      const text = (one) => one.querySelector(".text").textContent;
      const same = rows().find((one) => text(one) === text(row));
      return Math.abs(same.getBoundingClientRect().top - place);
    });
    assert.ok(moved <= 1, `the place moved by ${moved} px`);
    await until("a page more", async () => (await first()) !== seen);
  }
  const all = Array.from({ length: 170 }, (_, i) => `line ${i}`);
  assert.deepEqual(await alice.messages(), all);
  // What is said meanwhile moves nobody either, who is not at the end.
  const before = await page.$eval("#scroller", ({ scrollTop }) => scrollTop);
  await crowd.says("bob", "news", "archive");
  await alice.sees("news");
  assert.equal(await page.$eval("#scroller", ({ scrollTop }) => scrollTop), before);
  await page.click("#to-end");
  await page.waitForSelector("#to-end", { state: "hidden" });
});

people("two tabs of one user are one person with two views", async (arrives) => {
  const left = await arrives(one);
  const bob = await arrives(two);
  await bob.enters("bob", "twins");
  await left.enters("alice", "twins");
  await bob.reads("alice joined", "#log");
  const right = await Person.in(left.context, one);
  await right.opens();
  assert.equal(await right.page.inputValue("#name"), "alice");
  await right.enters("alice", "twins");
  await right.says("from the right");
  await left.sees("from the right");
  await left.says("from the left");
  await right.sees("from the left");
  await right.leaves();
  await left.says("still here");
  await bob.sees("still here");
  assert.equal(await bob.page.getByText("alice left").count(), 0);
  assert.deepEqual(right.complaints, []);
});

people("on a phone one thing is shown at a time, and the focus goes along", async (arrives) => {
  const alice = await arrives(one, { viewport: { width: 390, height: 844 } });
  const shown = (id) => alice.page.locator(id).isVisible();
  const focused = () => alice.page.evaluate(() => document.activeElement.id || document.activeElement.className);
  await alice.enters("alice", "pocket");
  assert.deepEqual([await shown("#talk"), await shown("#room-list"), await shown("#members")], [true, false, false]);
  await alice.page.click("#rooms-button");
  assert.deepEqual([await shown("#talk"), await shown("#room-list")], [false, true]);
  assert.equal(await focused(), "room");
  await alice.page.keyboard.press("Escape");
  assert.deepEqual([await shown("#talk"), await focused()], [true, "rooms-button"]);
  await alice.page.click("#members-button");
  assert.deepEqual([await shown("#members"), await focused()], [true, "close-members"]);
  await alice.page.keyboard.press("Enter");
  assert.deepEqual([await shown("#talk"), await focused()], [true, "members-button"]);
  // The looks that were chosen stay.
  await alice.page.click("#rooms-button");
  await alice.page.click("#theme");
  await alice.page.click("#theme");
  await alice.page.reload();
  await alice.isHere();
  const scheme = () => getComputedStyle(document.documentElement).colorScheme;
  assert.equal(await alice.page.evaluate(scheme), "dark");
});

people("every name and every word can be read on its ground, light and dark", async (arrives) => {
  // Half-way from one colour to another says nothing.
  const alice = await arrives(one, { reducedMotion: "reduce" });
  await alice.enters("alice", "paint");
  await alice.says("something to look at: https://example.org `code`");
  await alice.sees("something to look at: https://example.org code");
  for (const text of ["> a quote", "not one's own"]) {
    await alice.says(text);
    await alice.sees(text.replace("> ", ""));
  }
  await alice.page.$$eval(".message", ([, second, third]) => {
    second.classList.add("mention");
    third.classList.add("sought");
  });
  await alice.page.keyboard.press("Control+k");
  await alice.page.fill("#search-words", "thing");
  await alice.page.keyboard.press("Enter");
  await alice.reads("1 found", "#search-state");
  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    await alice.page.emulateMedia({ colorScheme });
    const weak = await alice.page.evaluate(weakContrasts);
    assert.deepEqual(weak, [], colorScheme);
  }
  const unnamed = await alice.page.$$eval("button, input, textarea", (/** @type {HTMLInputElement[]} */ all) =>
    all.filter((one) => !one.labels?.length && !one.ariaLabel && !one.textContent.trim()).map((one) => one.id),
  );
  assert.deepEqual(unnamed, []);
});

/** Runs in the page: what has less than 4.5 : 1 (WCAG 2.2, 1.4.3), with each of the names' colours. */
function weakContrasts() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const over = (color, [r, g, b]) => {
    canvas.fillStyle = `rgb(${r} ${g} ${b})`;
    canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const ground = (element) => {
    const under = element.parentElement ? ground(element.parentElement) : [255, 255, 255];
    return over(getComputedStyle(element).backgroundColor, under);
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (element) => {
    const back = ground(element);
    const [a, b] = [luminance(over(getComputedStyle(element).color, back)), luminance(back)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const weak = [];
  const look = (element, about = "") => {
    const ratio = contrast(element);
    if (ratio < 4.5) weak.push(`${element.className || element.id || element.localName}${about}: ${ratio.toFixed(2)}`);
  };
  const words = (one) => one.checkVisibility() && [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  for (const element of document.querySelectorAll("#app *, dialog *")) if (words(element)) look(element);
  for (const row of document.querySelectorAll(".message.head, .member-list li")) {
    for (let hue = 0; hue < 12; hue += 1) {
      row.setAttribute("data-hue", String(hue));
      for (const element of row.querySelectorAll(".name, .picture")) look(element, ` in hue ${hue}`);
    }
  }
  return weak;
}

people("what cannot be is said where it concerns", async (arrives) => {
  const alice = await arrives(one);
  await alice.opens();
  await alice.page.fill("#name", "a/b");
  await alice.page.click("text=Enter");
  await alice.reads("Your name must not contain a slash", "#name-problem");
  await alice.enters("alice", "rules");
  await alice.page.fill("#join-room", "no/where");
  await alice.page.press("#join-room", "Enter");
  await alice.reads("must not contain a slash", "#join-problem");
  await alice.says("y".repeat(70_000));
  await alice.reads("Too long by", "#composer-problem");
  assert.equal((await alice.page.inputValue("#text")).length, 70_000);
});

people("what an operator deletes is read by nobody any more", async (arrives) => {
  const alice = await arrives(one);
  const bob = await arrives(two);
  await alice.enters("alice", "shelf");
  await bob.enters("bob", "shelf");
  await alice.says("a slip of the tongue");
  await bob.reads("a slip of the tongue");
  await alice.says("something else");
  await bob.reads("something else");
  const headers = { Authorization: `Bearer ${OPERATORS}` };
  const past = await (await fetch(`${one.url}api/rooms/shelf/messages`)).json();
  const slip = past.messages.find(({ text }) => text === "a slip of the tongue");
  const path = `${one.url}api/admin/rooms/shelf/messages`;
  assert.equal((await fetch(`${path}/${slip.id}`, { method: "DELETE", headers })).status, 204);
  for (const person of [alice, bob]) {
    await person.reads("(deleted by an operator)");
    const log = await person.page.textContent("#log");
    assert.ok(log.includes("something else") && !log.includes("a slip"), log);
  }
});

people("a person that an operator puts out reads why, and comes back only by a click", async (arrives) => {
  const alice = await arrives(one);
  await alice.enters("put-out", "den");
  const operate = async (method, path, body) => {
    const headers = { Authorization: `Bearer ${OPERATORS}` };
    const answer = await fetch(`${two.url}api/admin/${path}`, { method, headers, body });
    assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
  };
  await operate("PUT", "closed/den", JSON.stringify({ seconds: 7200, reason: "a fire" }));
  await alice.reads("An operator has closed this room for 2 more hours: a fire.");
  await operate("DELETE", "closed/den");
  await alice.joins("attic");
  await operate("POST", "users/put-out/disconnect");
  await alice.reads("The server says: an operator disconnected this user.");
  await alice.page.click("text=Enter");
  await alice.isOnline();
});
