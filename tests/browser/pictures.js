/**
 * Takes pictures of the page in the states worth looking at, narrow and wide, light and dark, into
 * the folder that is named. `busy-1280-light.png` is the README's. In each of them nothing may keep
 * anybody from using the page.
 */

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { barriers } from "./accessible.js";
import { Instance, Redis, openBrowser, tearDown } from "./house.js";
import { Crowd } from "./crowd.js";
import { Person } from "./person.js";

const folder = process.argv[2] ?? "pictures";
mkdirSync(folder, { recursive: true });

const LOG = `thread 'reader-17' panicked at src/session.rs:214:9
  left: Stored { id: 1764000000000-0, duplicate: false }
 right: Stored { id: 1764000000000-0, duplicate: true }`;

const SAID = [
  ["ines", "Morning! The canary has been on the new build for an hour now."],
  ["ines", "No restarts, memory flat at 31 MB."],
  ["Zoë", "Nice. I compared p99 before and after: https://metrics.example.org/d/fanout?from=now-1h (the dip at 9:40 is me, restarting Redis)."],
  ["omar", "صباح الخير! هل يمكنني نشر الإصدار الجديد الآن؟"],
  ["ines", "Yes, go ahead 🚀"],
  ["ken", "Before you do: the replay test failed once on my machine, with `cargo test --test it property`\n```\n" + LOG + "\n```"],
  ["me", "That one is known. The assertion compares the second answer with the first, and the second says `duplicate: true`, as it should. I'll mend the test."],
  ["me", "Done, see the branch. Please run it again when you have a minute."],
  ["ken", "Green. 200 runs, no failure.\nThree things I noticed on the way:\n  1. the log says \"connection 17\" twice\n  2. the drain takes 2.0 s even when nobody is there\n  3. <b>bold</b> is shown as typed, which I like"],
  ["Zoë", "👏👏 @maya will you tell the *on-call* people?"],
];

const OTHERS = ["aaliyah", "Björn", "chen", "dmitri", "eleni", "farid", "Νίκος", "grace.hopper", "hana", "jürgen-with-a-rather-long-name", "ci-bot"];

const redis = await Redis.start();
const instance = await Instance.start("--redis", redis.url, "--send-rate", "0");
const browser = await openBrowser();
const found = [];

/** Takes a picture, and asks what keeps people from using what is on it. */
async function shootOne({ page }, name) {
  await page.screenshot({ path: join(folder, `${name}.png`) });
  for (const barrier of await barriers(page)) found.push(`${name}: ${barrier}`);
}

async function shoot(person, name) {
  await person.page.mouse.move(640, 400);
  for (const [width, height] of [[390, 844], [768, 1024], [1280, 800], [1920, 1080]]) {
    for (const colorScheme of ["light", "dark"]) {
      await person.page.setViewportSize({ width, height });
      await person.page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      // Two frames: one for the layout, one for what follows from it.
      await person.page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
      await shootOne(person, `${name}-${width}-${colorScheme}`);
    }
  }
}

const crowd = await Crowd.at(browser, instance);
const me = await Person.at(browser, instance);
await me.opens();
await shoot(me, "entrance");
await me.page.setViewportSize({ width: 1280, height: 800 });
await me.enters("maya", "somewhere new");
await me.reads("Nothing has been said here yet");
await shoot(me, "empty");

await me.page.setViewportSize({ width: 1280, height: 800 });
await me.joins("release");
await me.page.click("text=somewhere new");
await me.isIn("somewhere new");
await me.page.click("#leave");
await me.page.click("#ask-yes");
await me.isIn("release");
for (const user of ["ines", "Zoë", "omar", "ken", ...OTHERS]) await crowd.enters(user, "release");
for (const [user, text] of SAID) {
  if (user === "me") await me.says(text);
  else await crowd.says(user, text, "release");
  await untilSeen(text);
}
/** @type {[string, string, number][]} Each room, who speaks there, and how many lines. */
const ELSEWHERE = [["lobby", "ines", 3], ["on-call", "ci-bot", 128], ["random", "ken", 0]];
for (const [room, user, count] of ELSEWHERE) {
  await me.joins(room);
  await crowd.enters(user, room);
  await me.joins("release");
  for (let i = 0; i < count; i += 1) await crowd.says(user, `line ${i}`, room);
}
await me.types("Thanks! Rolling it out to the ");
await crowd.types("omar", "release");
await me.reads("is typing");
await shoot(me, "busy");
await me.page.setViewportSize({ width: 1280, height: 800 });
await me.page.keyboard.press("Control+k");
await me.page.fill("#search-words", "the");
await me.page.keyboard.press("Enter");
await me.reads("found in", "#search-state");
await shoot(me, "search");
await me.page.keyboard.press("Escape");
await me.page.click("#leave");
await shoot(me, "leave");
await me.page.keyboard.press("Escape");
await me.page.setViewportSize({ width: 900, height: 700 });
await me.page.click("#members-button");
await shootOne(me, "members-900-dark");
await me.page.click(".members .close-pane");
await me.page.setViewportSize({ width: 390, height: 844 });
await me.page.click("#rooms-button");
await shootOne(me, "rooms-390-dark");
await me.page.click(".sidebar .close-pane");
await me.page.click("#members-button");
await shootOne(me, "members-390-dark");
await me.page.click(".members .close-pane");

await me.page.setViewportSize({ width: 1280, height: 800 });
await crowd.says("Zoë", "word ".repeat(800), "release");
await crowd.says("Zoë", "x".repeat(300), "release");
await untilSeen("x".repeat(300));
await shoot(me, "long");

await me.page.setViewportSize({ width: 1280, height: 800 });
for (const user of ["grace.hopper", "hana", "Νίκος"]) await crowd.enters(user, "on-call");
await me.page.click("#room-list >> text=on-call");
await me.reads("joined", "#log");
await shoot(me, "unread");
await me.page.setViewportSize({ width: 1280, height: 800 });
await me.page.click("#mute");
await me.joins("release");
await crowd.says("ken", "@maya, have you seen this?", "random");
await crowd.says("ci-bot", "@maya, build 128 is red.", "on-call");
await crowd.says("ken", "@maya, it is out. Thanks!", "release");
await me.page.waitForSelector("#log .mention");
await me.page.waitForSelector("#room-list .muted .mentions");
await me.page.click("text=Settings");
await me.page.click("text=Forget this browser");
await me.page.fill("#join-room", "rel");
await me.reads("Create rel", "#found");
await shoot(me, "mentions");
await me.page.setViewportSize({ width: 390, height: 844 });
await me.page.fill("#text", "");
await me.page.click("#rooms-button");
await me.page.fill("#join-room", "rel");
await shoot(me, "settings");
await me.page.click("text=Settings");
await me.page.keyboard.press("Escape");
await me.page.setViewportSize({ width: 1280, height: 800 });
await me.joins("release");

const guarded = await Instance.start("--token-secret", "a secret of at least thirty-two bytes");
const stranger = await Person.at(browser, guarded);
await stranger.opens("?room=vault");
await stranger.page.fill("#name", "maya");
await stranger.page.click("text=Enter");
await stranger.reads("token is needed", "#token-problem");
await shoot(stranger, "refused");

await redis.kill();
await me.says("Is this thing on?");
await me.page.waitForSelector(".message.failed");
await instance.kill();
await me.says("And this one waits.");
await me.page.waitForSelector(".bar.busy");
await me.page.waitForFunction(() => /in [2-9] s/.test(document.getElementById("countdown")?.textContent));
await shoot(me, "disconnected");
await tearDown(browser);
if (found.length > 0) {
  console.error(found.join("\n"));
  process.exitCode = 1;
}

async function untilSeen(text) {
  const plain = text.replaceAll("`", "").slice(0, 20);
  await me.reads(plain, "#log");
}
