/** What the page does when the server or Redis is away: nothing is lost, doubled, or kept silent. */

/** @import { WebSocketRoute } from "playwright-core" */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Crowd } from "./crowd.js";
import { Instance, Redis, mint, openBrowser, tearDown, until } from "./house.js";
import { Person } from "./person.js";

/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  browser = await openBrowser();
});

after(() => tearDown(browser));

/**
 * A test with a Redis and two instances of its own, since it breaks them.
 * @param {string} sentence
 * @param {(house: {redis: Redis, one: Instance, two: Instance, alice: Person}) => Promise<void>} story
 * @param {string[]} args
 */
function faults(sentence, story, ...args) {
  test(sentence, { timeout: 60_000 }, async () => {
    const redis = await Redis.start();
    const all = ["--redis", redis.url, "--send-rate", "0", ...args];
    const [one, two] = await Promise.all([Instance.start(...all), Instance.start(...all)]);
    const alice = await Person.at(browser, one);
    try {
      await story({ redis, one, two, alice });
      assert.deepEqual(alice.complaints, []);
    } finally {
      await alice.context.close();
      await Promise.all([one.kill(), two.kill(), redis.kill()]);
    }
  });
}

/** The sends of a line, in order. */
const sends = (person, text) => person.sent.filter((command) => command.type === "send" && command.text === text);

faults("a server that is killed and comes back finds everything where it was", async ({ one, two, alice }) => {
  const crowd = await Crowd.at(browser, two);
  await crowd.enters("bob", "lobby");
  await alice.enters("alice");
  await crowd.says("bob", "before");
  await alice.sees("before");
  await one.kill();
  await alice.reads("Reconnecting", "#status");
  await crowd.says("bob", "while alice was away");
  await alice.says("typed while away");
  await alice.says("and another");
  await alice.reads("Waiting to be sent", "#log");
  await one.start();
  await alice.isOnline();
  await alice.sees("and another");
  const expected = ["before", "while alice was away", "typed while away", "and another"];
  assert.deepEqual(await alice.messages(), expected);
  assert.equal(await alice.page.locator(".gap, .failed, .queued, .sending").count(), 0);
  await crowd.says("bob", "after");
  await alice.sees("after");
  assert.deepEqual(await alice.messages(), [...expected, "after"]);
});

faults("a line on its way when the server is killed is said once", async ({ redis, one, alice }) => {
  await alice.enters("alice");
  redis.freeze();
  await alice.says("on its way");
  await until("it was sent", () => sends(alice, "on its way").length === 1);
  await one.kill();
  redis.thaw();
  await one.start();
  await alice.sees("on its way");
  const refs = sends(alice, "on its way").map(({ ref }) => ref);
  assert.ok(refs.length >= 2, "it was not sent again");
  assert.equal(new Set(refs).size, 1, "it was sent under another ref");
  await alice.says("marker");
  await alice.sees("marker");
  assert.deepEqual(await alice.messages(), ["on its way", "marker"]);
});

faults("a line that a reload interrupts is said once, whether it had arrived or not", async ({ redis, alice }) => {
  const taken = [];
  let swallows = false;
  await alice.page.routeWebSocket("**/chat/alice", (socket) => {
    const server = socket.connectToServer();
    socket.onMessage((text) => {
      const { type, text: line } = JSON.parse(String(text));
      if (type === "send") taken.push(line);
      if (type !== "send" || !swallows) server.send(text);
    });
  });
  await alice.enters("alice");
  redis.freeze();
  await alice.says("arrived");
  await until("it was sent", () => taken.includes("arrived"));
  await alice.page.reload();
  redis.thaw();
  await alice.sees("arrived");
  swallows = true;
  await alice.says("lost on the way");
  await until("it was sent", () => taken.includes("lost on the way"));
  swallows = false;
  await alice.page.reload();
  await alice.sees("lost on the way");
  await alice.says("marker");
  await alice.sees("marker");
  assert.deepEqual(await alice.messages(), ["arrived", "lost on the way", "marker"]);
});

faults("a refused line says so, and is tried again under its ref", async ({ redis, alice }) => {
  await alice.enters("alice");
  await redis.kill();
  await alice.says("into the void");
  await alice.reads("Not sent: Redis is unavailable", ".message.failed");
  await redis.start();
  await until("it is stored", async () => {
    const again = alice.page.locator(".message.failed button >> text=Try again");
    if (await again.count()) await again.click();
    return (await alice.messages()).includes("into the void");
  });
  const refs = sends(alice, "into the void").map(({ ref }) => ref);
  assert.ok(refs.length > 1 && new Set(refs).size === 1, refs.join());
  await alice.says("marker");
  await alice.sees("marker");
  assert.equal((await alice.messages()).filter((text) => text === "into the void").length, 1);
});

faults(
  "what cannot be recovered is shown as missing",
  async ({ one, two, alice }) => {
    const crowd = await Crowd.at(browser, two);
    await crowd.enters("bob", "lobby");
    await alice.enters("alice");
    await crowd.says("bob", "the last one heard");
    await alice.sees("the last one heard");
    await one.kill();
    // The log is trimmed in pieces, so many more than it holds.
    for (let i = 0; i < 400; i += 1) await crowd.says("bob", `unheard ${i}`);
    await one.start();
    await alice.sees("unheard 399");
    await alice.reads("Some messages are missing here", "#log .gap");
  },
  "--history-length",
  "10",
);

faults("a drain is waited for as long as it asks, and a goodbye is said", async ({ one, alice }) => {
  await alice.enters("alice");
  await one.drain();
  await alice.reads("Reconnecting", "#status");
  await one.start();
  await alice.isOnline();
  await alice.says("back");
  await alice.sees("back");
});

/**
 * A test with a server that only pretends, to the page of somebody who has come in.
 * @typedef {(socket: WebSocketRoute, event: object) => void} Says
 * @param {string} sentence
 * @param {(house: {alice: Person, says: Says}) => Promise<void>} story
 */
function pretended(sentence, story) {
  test(sentence, { timeout: 60_000 }, async () => {
    const server = await Instance.start();
    const alice = await Person.at(browser, server);
    await alice.page.clock.install();
    /** @type {Says} */
    const says = (socket, event) => socket.send(JSON.stringify(event));
    try {
      await story({ alice, says });
      assert.deepEqual(alice.complaints, []);
    } finally {
      await alice.context.close();
      await server.kill();
    }
  });
}

const WELCOME = { type: "welcome", user: "alice", instance: "x", limits: { max_message: 65536, rooms: 32, page: 200 } };
const LOBBY = { type: "room", room: "lobby", members: ["alice"], messages: [], recovered: false, last: null };

pretended("a server that asks for a pause gets it, unless its user cannot wait", async ({ alice, says }) => {
  let connections = 0;
  await alice.page.routeWebSocket("**/chat/alice", (socket) => {
    connections += 1;
    says(socket, WELCOME);
    socket.onMessage(() => says(socket, LOBBY));
    if (connections > 1) return;
    says(socket, { type: "closing", reason: "restart", retry_after_ms: 60_000 });
    socket.close({ code: 1012 });
  });
  await alice.opens();
  await alice.page.fill("#name", "alice");
  await alice.page.click("text=Enter");
  await alice.reads(/The server is restarting. Reconnecting in [3-6]\d s/, "#status");
  await alice.page.clock.fastForward(25_000);
  assert.equal(connections, 1);
  await alice.page.click("text=Try now");
  await alice.isOnline();
  assert.equal(connections, 2);
});

pretended("a server that has gone silent is left for another connection", async ({ alice, says }) => {
  let connections = 0;
  const asked = [];
  await alice.page.routeWebSocket("**/chat/alice", (socket) => {
    connections += 1;
    says(socket, WELCOME);
    socket.onMessage((text) => {
      const command = JSON.parse(String(text));
      asked.push(command.type);
      if (command.type === "join") says(socket, LOBBY);
    });
  });
  await alice.enters("alice");
  await alice.page.clock.fastForward(31_000);
  await until("it is asked for a sign", () => asked.includes("members"));
  assert.equal(connections, 1);
  await alice.page.clock.fastForward(16_000);
  await until("there is another connection", () => connections === 2);
  await alice.isOnline();
});

pretended("a line too old for its ref is not repeated unasked", async ({ alice, says }) => {
  let away = false;
  const sent = [];
  await alice.page.routeWebSocket("**/chat/alice", (socket) => {
    if (away) {
      socket.close();
      return;
    }
    says(socket, WELCOME);
    socket.onMessage((text) => {
      const { type, ref, room } = JSON.parse(String(text));
      if (type === "join") says(socket, LOBBY);
      if (type !== "send") return;
      sent.push(ref);
      away = sent.length === 1;
      if (away) socket.close({ code: 1012 });
      else says(socket, { type: "sent", ref, room, id: "5-0", duplicate: false });
    });
  });
  await alice.enters("alice");
  await alice.says("old");
  await alice.reads("Waiting to be sent", "#log");
  await alice.page.clock.fastForward(300_000);
  away = false;
  await alice.reads("Not confirmed: it may have been sent or not", ".message.failed");
  assert.equal(sent.length, 1);
  await alice.page.locator(".message.failed button >> text=Try again").click();
  await alice.reads("Sent", ".message.sent");
  assert.equal(sent.length, 2);
  assert.notEqual(sent[0], sent[1]);
});

test("a token that is wanted is asked for, and what is wrong with one is told", { timeout: 60_000 }, async () => {
  const secret = "a secret of at least thirty-two bytes";
  const server = await Instance.start("--token-secret", secret);
  const alice = await Person.at(browser, server);
  await alice.opens();
  await alice.page.fill("#name", "alice");
  await alice.page.click("text=Enter");
  await alice.reads("a valid token is needed", "#token-problem");
  await alice.page.fill("#token", mint("bob", secret));
  await alice.page.press("#token", "Enter");
  await alice.reads("the token is not this user's", "#token-problem");
  await alice.page.fill("#token", mint("alice", secret, "--room", "lobby"));
  await alice.page.press("#token", "Enter");
  await alice.isOnline();
  await alice.says("let in");
  await alice.sees("let in");
  await alice.page.fill("#join-room", "vault");
  await alice.page.press("#join-room", "Enter");
  await alice.reads("The token does not allow the room vault", "#status");
  // In an address it is taken, and does not stay there.
  const bob = await Person.at(browser, server);
  await bob.opens(`#token=${mint("bob", secret)}`);
  assert.equal(await bob.page.inputValue("#name"), "bob");
  assert.equal(new URL(bob.page.url()).hash, "");
  await bob.page.click("text=Enter");
  await bob.isOnline();
  assert.deepEqual([...alice.complaints, ...bob.complaints], []);
  await Promise.all([alice.context.close(), bob.context.close(), server.kill()]);
});

test("with a token for reading only, the page says why nothing can be written", { timeout: 60_000 }, async () => {
  const secret = "a secret of at least thirty-two bytes";
  const server = await Instance.start("--token-secret", secret);
  const alice = await Person.at(browser, server);
  const bob = await Person.at(browser, server);
  const enters = async (person, token) => {
    await person.opens(`#token=${token}`);
    await person.page.click("text=Enter");
    await person.isOnline();
    await person.isHere();
  };
  await enters(alice, mint("alice", secret, "--read-only"));
  assert.ok(await alice.page.isDisabled("#text"));
  assert.equal(await alice.page.getAttribute("#text", "placeholder"), "Your token is for reading only");
  await enters(bob, mint("bob", secret));
  assert.ok(await bob.page.isEnabled("#text"));
  await bob.says("hello");
  await alice.sees("hello");
  // A token that allows more counts at once.
  await alice.page.evaluate((token) => (location.hash = `token=${token}`), mint("alice", secret));
  await until("alice may write", () => alice.page.isEnabled("#text"));
  await alice.says("hello bob");
  await bob.sees("hello bob");
  assert.deepEqual([...alice.complaints, ...bob.complaints], []);
  await Promise.all([alice.context.close(), bob.context.close(), server.kill()]);
});

test("a token that expires is renewed on the page, or asked for at the entrance", { timeout: 60_000 }, async () => {
  const secret = "a secret of at least thirty-two bytes";
  const server = await Instance.start("--token-secret", secret);
  const short = (user) => mint(user, secret, "--life", "8");
  const enters = async (user) => {
    const person = await Person.at(browser, server);
    await person.opens(`#token=${short(user)}`);
    await person.page.click("text=Enter");
    await person.reads("Your token expires soon", "#status");
    return person;
  };
  const [alice, bob] = [await enters("alice"), await enters("bob")];
  const renews = async (token) => {
    await alice.page.fill("[aria-label='A fresh token']", token);
    await alice.page.press("[aria-label='A fresh token']", "Enter");
  };
  await renews(mint("bob", secret));
  await alice.reads("The token is not this user's", "#status");
  await renews(mint("alice", secret));
  await until("the bar is gone", async () => (await alice.page.textContent("#status")) === "");
  await bob.reads("a valid token is needed", "#token-problem");
  await alice.says("still here");
  await alice.sees("still here");
  assert.deepEqual([...alice.complaints, ...bob.complaints], []);
  await Promise.all([alice.context.close(), bob.context.close(), server.kill()]);
});
