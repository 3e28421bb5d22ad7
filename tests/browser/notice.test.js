/** What calls a user: mentions, counts, notifications, sounds, and the mark where the new begins. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Crowd } from "./crowd.js";
import { Instance, openBrowser, tearDown, until } from "./house.js";
import { Person } from "./person.js";

/** @type {Instance} */
let one;
/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  one = await Instance.start("--send-rate", "0");
  browser = await openBrowser();
});

after(() => tearDown(browser));

/**
 * A test with alice, who must have nothing to complain about, and with others who only talk.
 * @param {string} sentence
 * @param {(alice: Person, crowd: Crowd) => Promise<void>} tell
 */
function story(sentence, tell) {
  test(sentence, { timeout: 60_000 }, async () => {
    const alice = await Person.at(browser, one);
    const crowd = await Crowd.at(browser, one);
    try {
      await alice.context.addInitScript(standIns);
      await tell(alice, crowd);
      assert.deepEqual(alice.complaints, []);
    } finally {
      await alice.context.close();
    }
  });
}

/** Runs in each page: notifications and sounds that are noted, and not seen or heard. */
function standIns() {
  window.asked = 0;
  window.shown = [];
  window.beeps = 0;
  window.Notification = /** @type {any} */ (class {
    static get permission() {
      return localStorage.getItem("test.permission") ?? "default";
    }
    static async requestPermission() {
      window.asked += 1;
      localStorage.setItem("test.permission", localStorage.getItem("test.answer") ?? "granted");
      return this.permission;
    }
    constructor(title, { body, tag }) {
      window.shown.push({ title, body, tag });
      window.lastShown = this;
    }
    close() {}
  });
  const { send } = WebSocket.prototype;
  WebSocket.prototype.send = function (data) {
    window.socket = this;
    send.call(this, data);
  };
  const { start } = OscillatorNode.prototype;
  OscillatorNode.prototype.start = function (...all) {
    window.beeps += 1;
    start.apply(this, all);
  };
}

/** Runs in a page: what another tab has told of is stored, and not here yet. */
function storesLate() {
  const { getItem } = Storage.prototype;
  Storage.prototype.getItem = function (key) {
    return key.startsWith("hubbub.told") ? null : getItem.call(this, key);
  };
}

/** Whether the user looks at a page; all pages of a test have the focus otherwise. */
const looks = (person, isHere) =>
  person.page.evaluate((here) => {
    document.hasFocus = () => here;
    dispatchEvent(new Event(here ? "focus" : "blur"));
  }, isHere);

const shown = (person) => person.page.evaluate(() => window.shown.map(({ title, body }) => `${title}: ${body}`));
const count = (person, where) => person.page.locator(where).count();

story("a mention is the user's own name behind an at sign, and not in code or in a link", async (alice, crowd) => {
  const me = "Ann O. [x]";
  await alice.enters(me, "names");
  await crowd.enters("bob", "names");
  const mentions = [
    `hi @${me}!`,
    "@ANN o. [X], and @ann O. [x] again",
    `(@${me})`,
    `\u05d0 @${me}`,
    `\`@${me}\` is @${me}`,
    // As it is shown: emphasised, and no link, since such an address pretends to be another.
    `_@${me}_`,
    `https://a:b@example.org/?@${me}`,
  ];
  const others = [
    `mail bob@${me}`,
    "@Ann O. [xy]".replace("[xy]", "[x]y"),
    `\`@${me}\` and \`\`\`\n@${me}\`\`\``,
    `https://example.org/@${me}`,
    `https://example.org/,@${me}`,
    me,
    "@Ann OX [x]",
  ];
  for (const text of [...mentions, ...others]) await crowd.says("bob", text, "names");
  await crowd.says("bob", "last", "names");
  await alice.sees("last");
  const marked = await alice.page.$$eval("#log .message.mention .text", (all) => all.map((row) => row.textContent));
  assert.deepEqual(marked, mentions.map((text) => text.replace(/[`_]/g, "")));
  const marks = await alice.page.$$eval("#log mark", (all) => all.map((mark) => mark.textContent));
  assert.deepEqual(marks, [`@${me}`, "@ANN o. [X]", "@ann O. [x]", ...Array(5).fill(`@${me}`)]);
  await crowd.says("bob", `@${me} `.repeat(101), "names");
  await until("a hundred more", async () => (await count(alice, "#log mark")) === marks.length + 100);
  await alice.says(`I am @${me}`);
  await alice.sees(`I am @${me}`);
  assert.equal(await count(alice, "#log .own.mention"), 0);
});

story("mentions are counted apart, in the sidebar and in the title, and a muted room is quiet", async (alice, crowd) => {
  await alice.enters("alice", "ops");
  await alice.joins("elsewhere");
  await crowd.enters("bob", "ops");
  await crowd.says("bob", "nothing for anybody", "ops");
  await alice.title("• elsewhere · Hubbub");
  await crowd.says("bob", "@alice, and @alice again", "ops");
  await crowd.says("bob", "@alice?", "ops");
  await alice.title("(2) elsewhere · Hubbub");
  await alice.reads("@2", "#room-list .mentions");
  await alice.reads("3", "#room-list .unread");
  await alice.page.click("#room-list >> text=ops");
  await alice.title("ops · Hubbub");
  assert.equal(await count(alice, "#room-list .mentions, #room-list .unread"), 0);
  await alice.page.click("#mute");
  await alice.page.waitForSelector("#mute[aria-pressed=true]");
  await alice.page.click("#room-list >> text=elsewhere");
  await crowd.says("bob", "@alice, are you there?", "ops");
  await alice.reads("@1", "#room-list .muted .mentions");
  await alice.title("elsewhere · Hubbub");
  await alice.page.reload();
  await alice.reads("@1", "#room-list .muted .mentions");
  await alice.title("elsewhere · Hubbub");
});

story("a notification is asked for by a button only, and comes for mentions out of sight", async (alice, crowd) => {
  await alice.enters("alice", "bell");
  await crowd.enters("bob", "bell");
  await crowd.says("bob", "@alice, before", "bell");
  await alice.sees("@alice, before");
  assert.equal(await alice.page.evaluate(() => window.asked), 0);
  await alice.page.click("text=Settings");
  await alice.page.click("#notify");
  await alice.reads("Notify me of mentions: on", "#notify");
  assert.equal(await alice.page.evaluate(() => window.asked), 1);
  await alice.joins("desk");
  await crowd.enters("bob", "desk");
  await crowd.says("bob", "@alice, you see this", "desk");
  await crowd.says("bob", "nobody's name", "bell");
  await crowd.says("bob", "@alice, come", "bell");
  await until("a notification", async () => (await shown(alice)).length > 0);
  assert.deepEqual(await shown(alice), ["bob in bell: @alice, come"]);
  await alice.page.evaluate(() => window.lastShown.onclick());
  await alice.isIn("bell");
  await looks(alice, false);
  await crowd.says("bob", "@alice, look here", "bell");
  await until("another", async () => (await shown(alice)).length > 1);
  assert.equal((await shown(alice))[1], "bob in bell: @alice, look here");
  // A muted room is not told of.
  await alice.page.click("#room-list >> text=desk");
  await alice.isIn("desk");
  await alice.page.click("#mute");
  await alice.page.waitForSelector("#room-list .muted");
  await crowd.says("bob", "@alice, muted", "desk");
  await alice.reads("@1", "#room-list .muted .mentions");
  await crowd.says("bob", "@alice, the marker", "bell");
  await until("the marker", async () => (await shown(alice)).length > 2);
  assert.equal((await shown(alice))[2], "bob in bell: @alice, the marker");
});

story("what was said before the page came is counted, and not told of", async (alice, crowd) => {
  await alice.enters("alice", "inbox");
  await crowd.enters("bob", "inbox");
  await crowd.says("bob", "hello", "inbox");
  await alice.sees("hello");
  await alice.page.click("text=Settings");
  await alice.page.click("#notify");
  await alice.reads("Notify me of mentions: on", "#notify");
  await alice.joins("desk");
  await alice.page.goto("about:blank");
  await crowd.says("bob", "@alice, while you were out", "inbox");
  await alice.opens();
  await alice.reads("@1", "#room-list .mentions");
  await crowd.says("bob", "@alice, the marker", "inbox");
  await until("the marker", async () => (await shown(alice)).length > 0);
  assert.deepEqual(await shown(alice), ["bob in inbox: @alice, the marker"]);
});

story("what came while the page was away is told of, and once for all tabs", async (alice, crowd) => {
  await alice.enters("alice", "relay");
  await alice.page.click("text=Settings");
  await alice.page.click("#notify");
  await alice.reads("Notify me of mentions: on", "#notify");
  const tab = await Person.in(alice.context, one);
  await tab.enters("alice", "relay");
  await crowd.enters("bob", "relay");
  for (const each of [alice, tab]) {
    await looks(each, false);
    await each.page.evaluate(storesLate);
  }
  await alice.context.setOffline(true);
  // An open socket outlives that.
  for (const each of [alice, tab]) await each.page.evaluate(() => window.socket.close());
  for (const each of [alice, tab]) await each.reads("Reconnecting", "#status");
  await crowd.says("bob", "@alice, one", "relay");
  await alice.context.setOffline(false);
  const all = async () => [...(await shown(alice)), ...(await shown(tab))];
  await until("one tab tells", async () => (await all()).length > 0);
  await crowd.says("bob", "@alice, two", "relay");
  await until("one tab tells again", async () => (await all()).length > 1);
  assert.deepEqual((await all()).sort(), ["bob in relay: @alice, one", "bob in relay: @alice, two"]);
  // A tab that shows the room reads it, so no other tells.
  await looks(tab, true);
  await crowd.says("bob", "@alice, three", "relay");
  await tab.sees("@alice, three");
  await looks(tab, false);
  await crowd.says("bob", "@alice, four", "relay");
  await until("the fourth", async () => (await all()).length > 2);
  assert.ok(!(await all()).join().includes("three"), (await all()).join());
});

story("a browser that blocks notifications is said so, and a sound is heard once it is turned on", async (alice, crowd) => {
  await alice.enters("alice", "horn");
  await crowd.enters("bob", "horn");
  await alice.page.evaluate(() => localStorage.setItem("test.answer", "denied"));
  await alice.page.click("text=Settings");
  await alice.page.click("#notify");
  await alice.reads("Notify me of mentions: blocked by the browser", "#notify");
  await looks(alice, false);
  await crowd.says("bob", "@alice, silently", "horn");
  await alice.sees("@alice, silently");
  await alice.reads("Sound: off", "#sound");
  await alice.page.click("#sound");
  await alice.reads("Sound: on", "#sound");
  // The first one is a sample.
  await crowd.says("bob", "@alice, aloud", "horn");
  await until("a sound", async () => (await alice.page.evaluate(() => window.beeps)) > 1);
  assert.equal(await alice.page.evaluate(() => window.beeps), 2);
  assert.deepEqual(await shown(alice), []);
});

story("new messages below are counted at the way to them, and their beginning stays marked", async (alice, crowd) => {
  await alice.enters("alice", "tall");
  await alice.page.click("text=Settings");
  await alice.page.click("#notify");
  await crowd.enters("bob", "tall");
  for (let i = 0; i < 60; i += 1) await crowd.says("bob", `line ${i}`, "tall");
  await alice.sees("line 59");
  await alice.page.evaluate(() => (document.getElementById("scroller").scrollTop = 700));
  await alice.page.waitForSelector("#to-end:not([hidden])");
  await alice.reads("To the newest", "#to-end");
  for (let i = 0; i < 12; i += 1) await crowd.says("bob", `news ${i}`, "tall");
  await alice.reads("12 new, to the newest", "#to-end");
  await alice.title("• tall · Hubbub");
  const behindMark = () => alice.page.locator("#log .new + .message .text").textContent();
  assert.equal(await behindMark(), "news 0");
  await alice.joins("other");
  await alice.page.click("#room-list >> text=tall");
  assert.equal(await behindMark(), "news 0");
  await alice.reads("12 new, to the newest", "#to-end");
  await alice.page.click("#to-end");
  await alice.title("tall · Hubbub");
  assert.equal(await behindMark(), "news 0");
  await alice.page.evaluate(() => (document.getElementById("scroller").scrollTop = 700));
  await alice.reads("To the newest", "#to-end");
  await crowd.says("bob", "newer, @alice", "tall");
  await alice.reads("1 new, to the newest", "#to-end");
  assert.equal(await behindMark(), "newer, @alice");
  // Who looks at the room is not told of it, even further up.
  await crowd.enters("bob", "other");
  await crowd.says("bob", "@alice, the marker", "other");
  await until("the marker", async () => (await shown(alice)).length > 0);
  assert.deepEqual(await shown(alice), ["bob in other: @alice, the marker"]);
  await alice.title("(2) tall · Hubbub");
  await alice.page.click("#to-end");
  await alice.title("(1) tall · Hubbub");
  await alice.page.click("#room-list >> text=other");
  await alice.page.click("#room-list >> text=tall");
  await alice.sees("news 11");
  assert.equal(await count(alice, "#log .new"), 0);
});

story("who comes back finds the mark in view, and more unread messages as they read back", async (alice, crowd) => {
  await alice.enters("alice", "long ago");
  await crowd.enters("bob", "long ago");
  for (let i = 0; i < 60; i += 1) await crowd.says("bob", `seen ${i}`, "long ago");
  await alice.sees("seen 59");
  const { context } = alice;
  await alice.leaves();
  for (let i = 0; i < 40; i += 1) await crowd.says("bob", i === 3 ? "@alice 3" : `line ${i}`, "long ago");
  const again = await Person.in(context, one);
  await again.enters("alice", "long ago");
  await again.reads("40 new, to the newest", "#to-end");
  const isInView = () =>
    again.page.$eval("#log .new", (mark) => {
      const { top, bottom } = mark.getBoundingClientRect();
      return top > 0 && bottom < innerHeight;
    });
  assert.ok(await isInView());
  const behindMark = (person) => person.page.locator("#log .new + .message .text").textContent();
  assert.equal(await behindMark(again), "line 0");
  await again.title("(1) long ago · Hubbub");
  await again.leaves();
  for (let i = 40; i < 120; i += 1) await crowd.says("bob", `line ${i}`, "long ago");
  const third = await Person.in(context, one);
  await third.enters("alice", "long ago");
  await third.sees("line 119");
  await until("all are counted", async () => {
    await third.page.evaluate(() => (document.getElementById("scroller").scrollTop = 0));
    return (await third.page.textContent("#to-end")) === "120 new, to the newest";
  });
  await third.title("(1) long ago · Hubbub");
  assert.equal(await behindMark(third), "line 0");
  assert.deepEqual([...again.complaints, ...third.complaints], []);
});

story("a name that is begun behind an at sign is completed by Tab", async (alice, crowd) => {
  await alice.enters("alice", "tabs");
  await crowd.enters("Bob Ross", "tabs");
  await alice.reads("Bob Ross", "#member-list");
  await alice.types("hello @bo");
  await alice.page.press("#text", "Tab");
  assert.equal(await alice.page.inputValue("#text"), "hello @Bob Ross ");
  await alice.page.press("#text", "Tab");
  assert.equal(await alice.page.inputValue("#text"), "hello @Bob Ross ");
  assert.notEqual(await alice.page.evaluate(() => document.activeElement.id), "text");
});
