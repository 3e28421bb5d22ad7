/** The page itself: writing, reading back, finding, leaving, and the way in. */

import assert from "node:assert/strict";
import { after, before } from "node:test";
import { Crowd } from "./crowd.js";
import { Instance, openBrowser, tearDown, until } from "./house.js";
import { testsWithPeople } from "./people.js";

const OPERATORS = "an operators' secret of enough bytes";

/** @type {Instance} */
let one;
/** @type {Instance} */
let slow;
/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  // Commands for a few pages of the past, and then five each second.
  [one, slow] = await Promise.all([
    Instance.start("--send-rate", "0", "--history-length", "2000", "--admin-secret", OPERATORS),
    Instance.start("--send-rate", "0", "--command-rate", "5", "--command-burst", "4"),
  ]);
  browser = await openBrowser();
});

after(() => tearDown(browser));

const people = testsWithPeople(() => browser);

const focused = (person) => person.page.evaluate(() => document.activeElement.id || document.activeElement.className);
const texts = (person, where) => person.page.$$eval(where, (all) => all.map((one) => one.textContent));

/** Whether the middle of an element is what one sees there. */
const isInView = (person, where) =>
  person.page.$eval(where, (element) => {
    const { left, top, width, height } = element.getBoundingClientRect();
    return element.contains(document.elementFromPoint(left + width / 2, top + height / 2));
  });

/** Goes on with the Tab key to the element. */
async function tabsTo(person, id) {
  for (let tabs = 0; (await focused(person)) !== id; tabs += 1) {
    assert.ok(tabs < 20, `${id} cannot be reached`);
    await person.page.keyboard.press("Shift+Tab");
  }
  const outline = await person.page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(outline, "solid", `${id} does not show that it has the focus`);
}

const lines = (count) => Array.from({ length: count }, (_, i) => `line ${i}.`);

/** Somebody who has said this many lines in a room, by the hundred at a time. */
async function archive(instance, room, count) {
  const crowd = await Crowd.at(browser, instance);
  await crowd.enters("bob", room);
  const all = lines(count);
  while (all.length > 0) await Promise.all(all.splice(0, 100).map((line) => crowd.says("bob", line, room)));
  return crowd;
}

/** Holds what the page asks of the past from this request on, until the function that it returns is called. */
async function holdsHistory(person, user, first) {
  let held = [];
  let asked = 0;
  await person.page.routeWebSocket(`**/chat/${user}`, (socket) => {
    const server = socket.connectToServer();
    socket.onMessage((text) => {
      const isPast = JSON.parse(text).type === "history";
      if (isPast) asked += 1;
      if (held && isPast && asked >= first) held.push(() => server.send(text));
      else server.send(text);
    });
  });
  return {
    held: () => held.length,
    release: () => {
      const requests = held;
      held = null;
      for (const goesOn of requests) goesOn();
    },
  };
}

people("the field grows with its wrapped text, then scrolls, and is small again", async (arrives) => {
  const alice = await arrives(one);
  await alice.enters("alice", "composer");
  const field = () => alice.page.$eval("#text", ({ clientHeight, scrollHeight }) => ({ clientHeight, scrollHeight }));
  const small = await field();
  assert.equal(small.clientHeight, small.scrollHeight);
  await alice.types("word ".repeat(100));
  const grown = await field();
  assert.ok(grown.clientHeight > 2 * small.clientHeight, JSON.stringify(grown));
  assert.equal(grown.clientHeight, grown.scrollHeight);
  await alice.page.setViewportSize({ width: 390, height: 800 });
  await until("it grows when it gets narrower", async () => (await field()).clientHeight > grown.clientHeight);
  await alice.types("word ".repeat(1_000));
  const full = await field();
  assert.ok(full.clientHeight < 400 && full.scrollHeight > full.clientHeight, JSON.stringify(full));
  await alice.says("short");
  await alice.sees("short");
  assert.deepEqual(await field(), small);
});

people("Enter that ends a composed character sends nothing", async (arrives) => {
  const alice = await arrives(one);
  await alice.enters("alice", "input method");
  await alice.types("へん");
  const enters = (init) =>
    alice.page.$eval("#text", (field, more) => field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", cancelable: true, bubbles: true, ...more })), init);
  assert.ok(await enters({ isComposing: true }));
  // As Safari does, after the composition.
  assert.ok(await enters({ keyCode: 229 }));
  assert.equal(await alice.page.inputValue("#text"), "へん");
  assert.equal(await enters({}), false);
  await alice.sees("へん");
});

people("a room is left after a question, with the keyboard alone as well", async (arrives) => {
  const alice = await arrives(one);
  await alice.enters("alice", "ops");
  await alice.joins("other");
  await alice.page.click("#leave");
  await alice.reads("Leave other?", "#ask");
  assert.equal(await focused(alice), "ask-no");
  await alice.page.keyboard.press("Escape");
  await alice.isIn("other");
  await alice.page.click("#leave");
  await alice.page.click("#ask >> text=Stay");
  await alice.isIn("other");
  await alice.page.focus("#text");
  await tabsTo(alice, "leave");
  await alice.page.keyboard.press("Enter");
  await alice.reads("Leave other?", "#ask");
  await alice.page.keyboard.press("Tab");
  await alice.page.keyboard.press("Enter");
  await alice.isIn("ops");
  assert.deepEqual(await texts(alice, "#room-list .label"), ["ops"]);
});

people("whoever has come and gone between two messages is told in one line, and all are counted", async (arrives) => {
  const alice = await arrives(one);
  await alice.enters("alice", "door");
  const crowd = await Crowd.at(browser, one);
  const names = Array.from({ length: 30 }, (_, i) => `guest ${i}`);
  for (const name of names) await crowd.enters(name, "door");
  await until("all are counted", async () => (await texts(alice, ".notice")).join() === "guest 0, guest 1, guest 2 and 27 others joined Show all");
  await crowd.leaves("guest 29", "door");
  await until("it is one line", async () => (await texts(alice, ".notice")).join().includes("and 26 others joined, guest 29 came and went"));
  await crowd.says("guest 0", "hello", "door");
  await alice.sees("hello");
  await crowd.leaves("guest 1", "door");
  await crowd.leaves("guest 2", "door");
  await crowd.leaves("guest 3", "door");
  await crowd.enters("guest 3", "door");
  await crowd.enters("guest 30", "door");
  await until("it is one more line", async () => (await texts(alice, ".notice"))[1] === "guest 30 joined, guest 1 and guest 2 left");
  await alice.page.click(".notice .unfold");
  const all = (await texts(alice, ".notice"))[0];
  assert.ok(names.slice(0, 29).every((name) => all.includes(name)), all);
});

people("rooms and members are in the order of people, and the shown room is in view", async (arrives) => {
  const alice = await arrives(one, { viewport: { width: 1280, height: 500 } });
  await alice.enters("user 10", "room 10");
  for (const number of [9, 2, 30, 31, 32, 33, 34, 35, 36, 37]) await alice.joins(`room ${number}`);
  const rooms = ["room 2", "room 9", "room 10", "room 30"];
  assert.deepEqual((await texts(alice, "#room-list .label")).slice(0, 4), rooms);
  assert.ok(await isInView(alice, "#room-list [aria-current]"));
  await alice.page.keyboard.press("Alt+ArrowDown");
  await alice.isIn("room 2");
  await until("it is in view", () => isInView(alice, "#room-list [aria-current]"));
  const crowd = await Crowd.at(browser, one);
  for (const name of ["user 9", "user 100"]) await crowd.enters(name, "room 2");
  await until("both are here", async () => (await texts(alice, "#member-list .label")).join() === "user 9,user 10,user 100");
  for (const [width, id] of /** @type {[number, string][]} */ ([[390, "#member-count"], [900, "#member-count"], [1280, "#here-count"]])) {
    await alice.page.setViewportSize({ width, height: 500 });
    assert.ok(await alice.page.isVisible(id), `at ${width}`);
    assert.equal(await alice.page.textContent(id), "3");
  }
});

people("a little markup is shown, and a link never hides where it leads", async (arrives) => {
  const alice = await arrives(one);
  await alice.enters("alice", "markup");
  await alice.says("**bold** and *soft*:\n- one\n- two\n> said\n3. three");
  await until("it is shown", async () => (await alice.page.locator(".message:not(.sent, .sending, .queued) ol").count()) === 1);
  const made = await alice.page.$eval("#log .text", (text) => [...text.querySelectorAll("*")].map(({ localName, textContent }) => `${localName} ${textContent}`));
  assert.deepEqual(made, ["strong bold", "em soft", "ul onetwo", "li one", "li two", "blockquote said", "ol three", "li three"]);
  assert.equal(await alice.page.$eval("#log ol li", (/** @type {HTMLLIElement} */ { value }) => value), 3);
  await alice.says("[bank](https://evil.example) keeps_its_words 2 * 3 * 4");
  await alice.sees("[bank](https://evil.example) keeps_its_words 2 * 3 * 4");
  assert.deepEqual(await texts(alice, "#log a"), ["https://evil.example"]);
});

people("a message has a link, which leads back to it however old it is", async (arrives) => {
  const crowd = await archive(one, "links & more", 500);
  const alice = await arrives(one, { permissions: ["clipboard-read", "clipboard-write"] });
  // A room may be named as a field of the address is.
  await alice.opens("#token");
  assert.equal(await alice.page.inputValue("#first-room"), "token");
  assert.equal(new URL(alice.page.url()).hash, "#token");
  await alice.enters("alice", "links & more");
  const { page } = alice;
  await page.locator(".message").last().waitFor();
  while ((await alice.messages())[0] !== "line 0.") await page.$eval("#scroller", (scroller) => (scroller.scrollTop = 0));
  await page.locator(".message", { hasText: "line 7." }).first().hover();
  await page.locator(".message", { hasText: "line 7." }).first().locator(".when").click();
  await alice.reads("Link copied");
  const link = await page.evaluate(() => navigator.clipboard.readText());
  assert.match(link, /^http:\/\/[\d.:]+\/#room=links%20%26%20more&at=\d+-\d+$/);

  const bob = await arrives(one);
  await bob.opens("#nowhere");
  await bob.page.evaluate((hash) => (location.hash = hash), new URL(link).hash);
  await until("the entrance has its room", async () => (await bob.page.inputValue("#first-room")) !== "nowhere");
  assert.equal(await bob.page.inputValue("#first-room"), "links & more");
  await bob.page.fill("#name", "carol");
  await bob.page.click("text=Enter");
  await bob.page.locator(".message.sought", { hasText: "line 7." }).waitFor();
  assert.ok(await isInView(bob, ".sought .text"));
  // It stays in view while others talk.
  await crowd.says("bob", "news", "links & more");
  await bob.sees("news");
  assert.ok(await isInView(bob, ".sought .text"));
  // In a page that is open already, and of a message that nobody keeps.
  await bob.joins("elsewhere");
  await bob.page.evaluate((hash) => (location.hash = hash), new URL(link).hash.replace(/at=\d+/, "at=1000"));
  await bob.isIn("links & more");
  await bob.reads("The room does not keep this message", "#status");
  await bob.page.click("#status >> text=Close");
  await until("it is closed", async () => (await bob.page.textContent("#status")) === "");
});

people("what is said while the page reads back to a message makes no hole", async (arrives) => {
  const crowd = await archive(one, "deep", 1_200);
  const alice = await arrives(one);
  const past = await holdsHistory(alice, "alice", 6);
  await alice.enters("alice", "deep");
  await alice.sees("line 1199.");
  // Any message that is older than all; the page reads up to the room's beginning to find out.
  await alice.page.evaluate(() => (location.hash = "room=deep&at=1-0"));
  await until("it is held up", () => past.held() === 1);
  await crowd.says("bob", "news", "deep");
  await alice.sees("news");
  past.release();
  await alice.reads("The room does not keep this message", "#status");
  assert.deepEqual(await alice.messages(), [...lines(1_200), "news"]);
});

people("the links of messages are one stop of the Tab key, and the arrow keys go through them", async (arrives) => {
  const alice = await arrives(one, { permissions: ["clipboard-read", "clipboard-write"] });
  await alice.enters("alice", "stops");
  for (const text of ["first", "second", "third"]) {
    await alice.says(text);
    await alice.sees(text);
  }
  const about = () => alice.page.evaluate(() => document.activeElement.closest(".message")?.querySelector(".text").textContent);
  await alice.page.focus("#text");
  await tabsTo(alice, "when");
  assert.equal(await about(), "third");
  await alice.page.keyboard.press("ArrowUp");
  await alice.page.keyboard.press("ArrowUp");
  assert.equal(await about(), "first");
  await alice.page.keyboard.press("Enter");
  await alice.reads("Link copied");
  // Without TLS a browser has no clipboard for a page.
  await alice.page.evaluate(() => Object.defineProperty(navigator, "clipboard", { value: undefined }));
  await alice.page.keyboard.press("Enter");
  await until("the link is shown", () => alice.complaints.length > 0);
  assert.deepEqual(alice.complaints.splice(0), ["opened a dialog: Copy this link to the message:"]);
  await alice.page.keyboard.press("Shift+Tab");
  assert.equal(await focused(alice), "scroller");
});

people("a search finds what the room keeps, waits when it is too fast, and leads there", async (arrives) => {
  const crowd = await archive(slow, "papers", 950);
  await crowd.says("bob", "The NEEDLE in the hay (1)", "papers");
  await crowd.says("bob", "later", "papers");
  const alice = await arrives(slow);
  await alice.enters("alice", "papers");
  await alice.sees("later");
  const { keyboard } = alice.page;
  await keyboard.press("Control+k");
  await keyboard.type("needle");
  await keyboard.press("Enter");
  await alice.reads(/^1 found in 952 messages, the whole room/, "#search-state");
  assert.deepEqual(await texts(alice, "#search mark"), ["NEEDLE"]);
  await alice.page.fill("#search-words", "LINE 3.");
  await keyboard.press("Enter");
  await alice.reads(/^1 found in 952 messages, the whole room/, "#search-state");
  await alice.page.fill("#search-words", "nobody said (this");
  await keyboard.press("Enter");
  await alice.reads("Nothing found in 952 messages, the whole room", "#search-state");
  await alice.page.fill("#search-words", "line 3.");
  await keyboard.press("Enter");
  await alice.page.locator(".match").waitFor();
  for (let tabs = 0; (await focused(alice)) !== "match"; tabs += 1) {
    assert.ok(tabs < 5, "the match cannot be reached");
    await keyboard.press("Tab");
  }
  await keyboard.press("Enter");
  await alice.page.locator(".message.sought", { hasText: "line 3." }).waitFor();
  assert.ok(await isInView(alice, ".sought .text"));
});

people("a search stops when it is told to, says how far it came, and goes on", async (arrives) => {
  await archive(slow, "long", 900);
  const alice = await arrives(slow);
  const past = await holdsHistory(alice, "alice", 1);
  await alice.enters("alice", "long");
  await alice.page.click("#search-button");
  await alice.page.fill("#search-words", "line 1.");
  await alice.page.keyboard.press("Enter");
  await alice.reads(/^Nothing found in 50 messages, back to .* Looking on/, "#search-state");
  await alice.page.click("#search-more");
  await alice.reads("Go on", "#search-more");
  await alice.page.click("#search-more");
  await until("it is asked again", () => past.held() === 2);
  // The answer to what was asked before the stop counts no more.
  past.release();
  await alice.reads(/^1 found in 900 messages, the whole room/, "#search-state");
  await alice.page.focus("#search-words");
  await alice.page.keyboard.press("Escape");
  await until("it is closed", async () => !(await alice.page.isVisible("#search")));
});

people("what an operator does counts for what is open over the page as well", async (arrives) => {
  const operate = async (method, path) => {
    const answer = await fetch(`${one.url}api/admin/${path}`, { method, headers: { Authorization: `Bearer ${OPERATORS}` } });
    assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
  };
  const alice = await arrives(one);
  await alice.enters("searcher", "secrets");
  await alice.says("the plan");
  await alice.sees("the plan");
  await alice.page.keyboard.press("Control+k");
  await alice.page.fill("#search-words", "plan");
  await alice.page.keyboard.press("Enter");
  await alice.reads("the plan", ".match");
  await operate("DELETE", "rooms/secrets/messages");
  await alice.reads("(deleted by an operator)", ".match");
  assert.equal(await alice.page.getByText("the plan").count(), 0);
  await operate("POST", "users/searcher/disconnect");
  await alice.reads("an operator disconnected this user", "#entrance-problem");
  assert.equal(await alice.page.isVisible("#search"), false);
  assert.equal(await focused(alice), "name");
});

people("what is wrong at the entrance is said beside its field", async (arrives) => {
  const alice = await arrives(one);
  const beside = (id) =>
    alice.page.$eval(`#${id}`, (field) => ({
      words: document.getElementById(field.getAttribute("aria-describedby")).innerText,
      invalid: field.getAttribute("aria-invalid"),
      focused: document.activeElement === field,
    }));
  await alice.opens();
  await alice.page.fill("#name", "a/b");
  await alice.page.click("text=Enter");
  assert.deepEqual(await beside("name"), { words: "Your name must not contain a slash.", invalid: "true", focused: true });
  await alice.page.fill("#name", "alice");
  assert.deepEqual(await beside("name"), { words: "", invalid: "false", focused: true });
  await alice.page.fill("#first-room", "a  b");
  await alice.page.click("text=Enter");
  assert.equal((await beside("name")).words, "");
  assert.match((await beside("first-room")).words, /^The room's name must not contain white space/);
  assert.equal((await beside("first-room")).focused, true);
});

people("the button for the colours shows which ones are chosen", async (arrives) => {
  const alice = await arrives(one);
  await alice.enters("alice", "colours");
  const state = () =>
    alice.page.$eval("#theme", (/** @type {HTMLElement} */ button) => {
      const [icon, ...others] = [...button.querySelectorAll("svg")].filter((one) => one.checkVisibility());
      return [button.innerText.trim(), button.ariaLabel, icon.getAttribute("class"), others.length, getComputedStyle(button).colorScheme].join("|");
    });
  assert.equal(await state(), "System|System colours. Change them|auto|0|light dark");
  await alice.page.click("#theme");
  assert.equal(await state(), "Light|Light colours. Change them|light|0|light");
  await alice.page.click("#theme");
  assert.equal(await state(), "Dark|Dark colours. Change them|dark|0|dark");
});
