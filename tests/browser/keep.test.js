/** What a browser keeps for the next visit, how the tabs of one user agree, and the rooms one finds. */

/** @import { BrowserContext } from "playwright-core" */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Crowd } from "./crowd.js";
import { Instance, mint, openBrowser, tearDown, until } from "./house.js";
import { Person } from "./person.js";

const SECRET = "a secret of at least thirty-two bytes";

/** @type {Instance} */
let one;
/** @type {Instance} */
let guarded;
/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  [one, guarded] = await Promise.all([
    Instance.start("--send-rate", "0"),
    Instance.start("--token-secret", SECRET),
  ]);
  browser = await openBrowser();
});

after(() => tearDown(browser));

/**
 * A test with a browser of its own, in which tabs are opened; no page has anything to complain about.
 * @param {string} sentence
 * @param {(opens: (instance?: Instance) => Promise<Person>, context: BrowserContext) => Promise<void>} tell
 */
function story(sentence, tell) {
  test(sentence, { timeout: 60_000 }, async () => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
    const everybody = [];
    const opens = async (instance = one) => {
      const person = await Person.in(context, instance);
      everybody.push(person);
      return person;
    };
    try {
      await tell(opens, context);
      for (const { complaints } of everybody) assert.deepEqual(complaints, []);
    } finally {
      await context.close();
    }
  });
}

const rooms = (person) => person.page.$$eval("#room-list .label", (all) => all.map((one) => one.textContent).sort());
const hasRooms = (person, expected) =>
  until(`the rooms ${expected}`, async () => (await rooms(person)).join() === expected.join());
const kept = (person) => person.page.evaluate(() => JSON.stringify({ ...localStorage }));

story("rooms, drafts, mutes and what was read outlast the tab, for each user", async (opens) => {
  const alice = await opens();
  await alice.enters("alice", "den");
  const crowd = await Crowd.at(browser, one);
  await crowd.enters("bob", "den");
  await crowd.says("bob", "read already", "den");
  await alice.sees("read already");
  await alice.types("half a thou");
  await alice.joins("attic");
  await alice.page.click("#mute");
  await alice.page.waitForSelector("#room-list .muted");
  await alice.leaves();
  const carol = await opens();
  await carol.enters("carol", "hall");
  await hasRooms(carol, ["hall"]);
  await carol.leaves();
  const again = await opens();
  await again.opens();
  assert.equal(await again.page.inputValue("#first-room"), "hall");
  await again.enters("alice", "den");
  await hasRooms(again, ["attic", "den"]);
  assert.equal(await again.page.inputValue("#text"), "half a thou");
  assert.equal(await again.page.locator("#room-list .muted >> text=attic").count(), 1);
  await again.sees("read already");
  assert.equal(await again.page.locator(".unread, .new").count(), 0);
  await again.page.click("#leave");
  await again.page.click("#ask-yes");
  await hasRooms(again, ["attic"]);
  await again.page.click("#sign-out");
  assert.equal(await again.page.inputValue("#first-room"), "attic");
  await again.enters("alice", "attic");
  await hasRooms(again, ["attic"]);
});

story("of more rooms than the server allows, as many are entered as it does", async (opens) => {
  const alice = await opens();
  await alice.opens();
  await alice.page.evaluate(() => {
    localStorage.setItem('hubbub.user["/","alice"]', JSON.stringify({ at: Date.now() }));
    for (let i = 10; i < 50; i += 1) {
      localStorage.setItem(`hubbub.room${JSON.stringify(["/", "alice", `r${i}`])}`, JSON.stringify({ at: Date.now() }));
    }
  });
  await alice.enters("alice", "one more");
  await until("32 rooms", async () => (await rooms(alice)).length === 32);
  assert.ok((await rooms(alice)).includes("one more"));
  assert.equal(await alice.page.locator("#room-list .trouble").count(), 0);
  await until("as many are kept", async () => ((await kept(alice)).match(/hubbub\.room/g) ?? []).length === 32);
});

story("a name that somebody else uses meanwhile is told on the next visit as well", async (opens) => {
  const alice = await opens();
  await alice.enters("alice", "in use");
  await alice.leaves();
  const crowd = await Crowd.at(browser, one);
  await crowd.enters("alice", "in use");
  const again = await opens();
  await again.enters("alice", "in use");
  await again.reads("alice is here already.", "#status");
});

story("a token is kept nowhere beyond the tab", async (opens) => {
  const alice = await opens(guarded);
  const token = mint("alice", SECRET);
  await alice.opens(`#token=${token}`);
  await alice.page.fill("#first-room", "vault");
  await alice.page.click("text=Enter");
  await alice.isHere();
  await alice.types(`a draft`);
  await until("the draft is kept", async () => (await kept(alice)).includes("a draft"));
  assert.ok(!(await kept(alice)).includes(token.split(".")[2]));
});

story("rooms that are joined, left, muted or read in one tab are so in the others", async (opens) => {
  const left = await opens();
  const crowd = await Crowd.at(browser, one);
  await left.enters("alice", "first");
  const right = await opens();
  await right.enters("alice", "first");
  await left.joins("second");
  await hasRooms(right, ["first", "second"]);
  await right.isIn("first");
  await crowd.enters("bob", "second");
  await right.joins("third");
  await hasRooms(left, ["first", "second", "third"]);
  await left.joins("first");
  await crowd.says("bob", "for both", "second");
  await crowd.says("bob", "@alice, as well", "second");
  for (const tab of [left, right]) await tab.reads("2", "#room-list .unread");
  await left.page.click("#room-list >> text=second");
  await left.sees("for both");
  await right.title("third · Hubbub");
  assert.equal(await right.page.locator("#room-list .unread, #room-list .mentions").count(), 0);
  await left.page.click("#mute");
  await right.page.waitForSelector("#room-list .muted");
  await right.page.click("#room-list >> text=second");
  await right.page.click("#leave");
  await right.page.click("#ask-yes");
  await hasRooms(left, ["first", "third"]);
  await crowd.enters("carol", "second");
  const { members } = await (await fetch(`${one.url}api/rooms/second/members`)).json();
  assert.deepEqual(members.sort(), ["bob", "carol"]);
});

story("a draft is the last writer's, and no field changes under the hands of who writes in it", async (opens) => {
  const left = await opens();
  await left.enters("alice", "desk");
  const right = await opens();
  await right.enters("alice", "desk");
  await right.types("mine");
  await left.page.locator("#text").blur();
  await right.types("mine, and more");
  await until("it is there", async () => (await left.page.inputValue("#text")) === "mine, and more");
  await left.types("theirs");
  await until("it is kept", async () => (await kept(right)).includes("theirs"));
  assert.equal(await right.page.inputValue("#text"), "mine, and more");
  await left.joins("a marker");
  await hasRooms(right, ["a marker", "desk"]);
  assert.equal(await right.page.inputValue("#text"), "mine, and more");
  await right.says("mine, and done");
  await until("the draft is gone", async () => {
    await left.page.click("#room-list >> text=a marker");
    await left.page.click("#room-list >> text=desk");
    return (await left.page.inputValue("#text")) === "";
  });
  await left.sees("mine, and done");
});

story("the browser forgets a user who wants it, in all tabs, and nobody else", async (opens) => {
  const carol = await opens();
  await carol.enters("carol", "stays");
  await carol.leaves();
  const alice = await opens();
  await alice.enters("alice", "secret plan");
  await alice.types("a draft");
  const tab = await opens();
  await tab.enters("alice", "secret plan");
  await until("it is kept", async () => (await kept(alice)).includes("a draft"));
  await alice.page.click("text=Settings");
  await alice.page.click("text=Forget this browser");
  // The other tab hears of the rooms before it hears of their user; a browser chooses any order.
  await alice.page.evaluate(() => {
    const { keys } = Object;
    Object.keys = (of) => keys(of).sort();
  });
  await alice.page.click("#forget");
  for (const each of [alice, tab]) await each.page.waitForSelector("#entrance:not([hidden])");
  assert.equal(await alice.page.inputValue("#first-room"), "lobby");
  // What the other tab stored before this is here then.
  await tab.page.evaluate(() => localStorage.setItem("test.marker", "1"));
  await until("the marker", async () => (await kept(alice)).includes("test.marker"));
  const rest = await kept(alice);
  assert.ok(!rest.includes("alice") && !rest.includes("secret plan"), rest);
  assert.ok(rest.includes("stays"), rest);
  assert.equal(await alice.page.evaluate(() => sessionStorage.length), 0);
  await alice.enters("alice", "lobby");
  await hasRooms(alice, ["lobby"]);
});

story("a browser that stores nothing, or holds nonsense, has the page as it is", async (opens, context) => {
  const alice = await opens();
  await alice.opens();
  await alice.page.evaluate(() => {
    const at = Date.now();
    const put = (key, value) => localStorage.setItem(`hubbub.${key}`, value);
    put('user["/","alice"]', "{");
    put('room["/","alice","a"]', "[");
    put("room[", "{}");
    put("room[]", "{}");
    put('user["/","bob"]', JSON.stringify({ active: 7, at }));
    put('room["/","bob","den"]', JSON.stringify({ read: 7, draft: {}, muted: "x", at }));
    put('room["/","bob","x/y"]', JSON.stringify({ at }));
    put('room["/","bob",7]', JSON.stringify({ at }));
    put('room["/","bob","old"]', JSON.stringify({ at: at - 91 * 24 * 3_600_000 }));
    put('room["/elsewhere/","bob","other server"]', JSON.stringify({ at }));
  });
  await alice.enters("alice", "plain");
  await alice.page.click("#sign-out");
  await alice.enters("bob", "plain");
  await hasRooms(alice, ["den", "plain"]);
  assert.equal(await alice.page.locator("#room-list .muted").count(), 0);
  await context.addInitScript(() => {
    Storage.prototype.setItem = () => {
      throw new DOMException("full", "QuotaExceededError");
    };
    Object.defineProperty(window, "localStorage", {
      get() {
        throw new DOMException("forbidden", "SecurityError");
      },
    });
  });
  const private_ = await opens();
  await private_.enters("carol", "plain");
  await private_.joins("another");
  await private_.page.click("text=Settings");
  await private_.page.click("#sound");
  await private_.says("hello");
  await private_.sees("hello");
});
