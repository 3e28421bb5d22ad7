/** A browser's own `EventSource`: it comes back by itself after a drain, a kill and a refusal, and misses nothing. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Instance, Redis, openBrowser, tearDown, until } from "./house.js";

/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  browser = await openBrowser();
});

after(() => tearDown(browser));

async function post(instance, text) {
  const address = `${instance.url}api/rooms/ops/messages?user=ci`;
  const answer = await fetch(address, { method: "POST", body: text });
  assert.equal(answer.status, 201, await answer.text());
}

/** A page that follows the room, and notes what it hears. */
async function follower(instance) {
  const page = await browser.newPage();
  await page.goto(instance.url);
  await page.evaluate(() => {
    window.heard = { texts: [], kinds: [] };
    window.source = new EventSource("/api/rooms/ops/messages?follow");
    window.source.onmessage = (event) => window.heard.texts.push(JSON.parse(event.data).text);
    for (const kind of ["room", "gap", "closing", "closed", "refused"]) {
      window.source.addEventListener(kind, (event) => window.heard.kinds.push({ kind, ...JSON.parse(event.data) }));
    }
  });
  const heard = () => page.evaluate(() => window.heard);
  return {
    page,
    heard,
    hears: (text) => until(text, async () => (await heard()).texts.includes(text)),
    hearsKind: (kind, least) =>
      until(kind, async () => (await heard()).kinds.filter((one) => one.kind === kind).length >= least),
  };
}

test("an EventSource misses nothing through a drain and a kill", { timeout: 60_000 }, async () => {
  const redis = await Redis.start();
  const all = ["--redis", redis.url, "--send-rate", "0"];
  const [one, two] = await Promise.all([Instance.start(...all), Instance.start(...all)]);
  const reader = await follower(one);
  await reader.hearsKind("room", 1);
  await one.drain();
  // It has heard nothing yet but where the room began.
  await post(two, "during the drain");
  await one.start();
  await reader.hears("during the drain");
  await post(two, "before the kill");
  await reader.hears("before the kill");
  await one.kill();
  await post(two, "during the kill");
  await one.start();
  await reader.hears("during the kill");
  await post(one, "after");
  await reader.hears("after");
  const { texts, kinds } = await reader.heard();
  assert.deepEqual(texts, ["during the drain", "before the kill", "during the kill", "after"]);
  const rooms = kinds.filter((one) => one.kind === "room").map((one) => one.recovered);
  assert.deepEqual(rooms, [false, true, true]);
  const ends = kinds.filter((one) => one.kind === "closed").map((one) => one.code);
  assert.deepEqual(ends, [1012]);
  await reader.page.close();
  await Promise.all([one.kill(), two.kill(), redis.kill()]);
});

test("an EventSource that is refused for a while comes back", { timeout: 60_000 }, async () => {
  const redis = await Redis.start();
  const one = await Instance.start("--redis", redis.url, "--send-rate", "0");
  await redis.kill();
  const reader = await follower(one);
  await reader.hearsKind("refused", 1);
  await redis.start();
  await reader.hearsKind("room", 1);
  await post(one, "hello");
  await reader.hears("hello");
  assert.equal((await reader.heard()).kinds[0].code, "unavailable");
  await reader.page.close();
  await Promise.all([one.kill(), redis.kill()]);
});
