/** How one finds the rooms of a server, from the field in the sidebar. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Crowd } from "./crowd.js";
import { Instance, openBrowser, tearDown, until } from "./house.js";
import { Person } from "./person.js";

/** @type {Instance} */
let one;
/** @type {import("playwright-core").Browser} */
let browser;
/** @type {Crowd} */
let crowd;

before(async () => {
  one = await Instance.start("--send-rate", "0", "--command-rate", "0");
  browser = await openBrowser();
  crowd = await Crowd.at(browser, one);
  for (const user of ["bob", "carol"]) await crowd.enters(user, "ops");
  await crowd.says("bob", "something", "ops");
  await crowd.enters("bob", "Operators' lounge");
  await crowd.enters("bob", "dev");
});

after(() => tearDown(browser));

/** @param {string} sentence @param {(alice: Person) => Promise<void>} tell */
function story(sentence, tell) {
  test(sentence, { timeout: 60_000 }, async () => {
    const alice = await Person.at(browser, one);
    try {
      await tell(alice);
      assert.deepEqual(alice.complaints, []);
    } finally {
      await alice.context.close();
    }
  });
}

const asks = (person) => person.sent.filter(({ type }) => type === "rooms");
const focused = (person) => person.page.evaluate(() => document.activeElement.id || document.activeElement.textContent);
const found = (person) => person.page.$$eval("#found li", (all) => all.map((one) => one.textContent.replace(/ · .*/, "")));
const finds = (person, expected) =>
  until(`rooms: ${expected}`, async () => JSON.stringify(await found(person)) === JSON.stringify(expected));

story("the server's rooms are asked for by the field, found as one types, and joined by a press", async (alice) => {
  await alice.enters("alice", "lobby");
  assert.equal(asks(alice).length, 0);
  await alice.page.focus("#join-room");
  await alice.reads("2 here · this minute", "#found");
  assert.deepEqual((await found(alice)).sort(), ["#Operators' lounge1 here", "#dev1 here", "#ops2 here"]);
  await alice.page.fill("#join-room", "OP");
  await until("two and a new one", async () => (await found(alice)).length === 3);
  assert.equal((await found(alice))[2], "+Create OP");
  await alice.page.fill("#join-room", "ops");
  await finds(alice, ["#ops2 here"]);
  assert.equal(await alice.page.textContent("#join-button"), "Join");
  await alice.page.click("#found button");
  await alice.isIn("ops");
  assert.equal(await alice.page.locator("#found").isVisible(), false);
  assert.equal(await alice.page.inputValue("#join-room"), "");
  assert.equal(asks(alice).length, 1);
});

story("the keyboard is enough to find a room, and to create one", async (alice) => {
  await alice.enters("alice", "lobby");
  await alice.page.focus("#join-room");
  await alice.reads("dev", "#found");
  const { keyboard } = alice.page;
  await keyboard.type("de");
  await finds(alice, ["#dev1 here", "+Create de"]);
  await keyboard.press("ArrowDown");
  await keyboard.press("ArrowDown");
  assert.equal(await focused(alice), "+Create de");
  await keyboard.press("ArrowUp");
  await keyboard.press("ArrowUp");
  assert.equal(await focused(alice), "join-room");
  await keyboard.press("Escape");
  assert.equal(await alice.page.locator("#found").isVisible(), false);
  await keyboard.type("ep end");
  await alice.reads("Create deep end", "#found");
  assert.equal(await alice.page.textContent("#join-button"), "Create");
  await keyboard.press("ArrowDown");
  await keyboard.press("Enter");
  await alice.isIn("deep end");
  assert.equal(await focused(alice), "text");
});

story("a server with more rooms than it lists is asked for those that begin as one types", async (alice) => {
  for (let i = 0; i < 110; i += 1) await crowd.enters(`user ${i}`, `many ${i}`);
  await crowd.enters("bob", "aardvark");
  await until("all are listed", async () => {
    const { rooms } = await (await fetch(`${one.url}api/rooms?limit=1000`)).json();
    return rooms.length > 113;
  });
  await alice.enters("alice", "lobby");
  await alice.page.focus("#join-room");
  await until("a hundred", async () => (await found(alice)).length >= 99);
  const prefix = (await found(alice)).join().includes("#dev1 here") ? "many 109" : "dev";
  await alice.page.fill("#join-room", prefix);
  await finds(alice, [`#${prefix}1 here`]);
  assert.deepEqual(asks(alice).at(-1), { type: "rooms", prefix });
  await alice.page.fill("#join-room", "nowhere/at all");
  await alice.page.press("#join-room", "Enter");
  await alice.reads("must not contain a slash", "#join-problem");
});

story("a server that lists no rooms is asked once, and leaves the plain field", async (alice) => {
  await alice.context.addInitScript(() => {
    const { send } = WebSocket.prototype;
    WebSocket.prototype.send = function (data) {
      send.call(this, String(data).replace('"type":"rooms"', '"type":"no rooms"'));
    };
  });
  await alice.enters("alice", "lobby");
  const refusals = () => alice.sent.filter(({ type }) => type.endsWith("rooms")).length;
  await alice.page.focus("#join-room");
  await until("it is asked", () => refusals() === 1);
  await alice.joins("dev");
  await alice.joins("lobby");
  assert.equal(refusals(), 1);
  assert.equal(await alice.page.locator("#found").isVisible(), false);
});
