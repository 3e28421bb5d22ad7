/**
 * What the tests stand on: a Redis, instances of Hubbub on ports of their own, and people, each with
 * a browser profile of their own.
 */

/** @import { ChildProcess, SpawnOptions } from "node:child_process" */
/** @import { Browser } from "playwright-core" */

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, readFileSync, openSync, closeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium, firefox } from "playwright-core";

/** How long a fact may take to come true on a busy machine. */
export const DEADLINE = 20_000;

const BINARY = process.env.HUBBUB ?? "target/debug/hubbub";
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FIREFOX = process.env.FIREFOX ?? "/usr/bin/firefox-esr";

const folder = mkdtempSync(join(tmpdir(), "hubbub-browser-"));
/** @type {Set<ChildProcess>} */
const children = new Set();
let count = 0;

/** @param {string} command @param {string[]} args @param {SpawnOptions} options */
function start(command, args, options) {
  const child = spawn(command, args, options);
  children.add(child);
  child.once("exit", () => children.delete(child));
  return child;
}

/** @param {ChildProcess} child */
function ended(child) {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => child.once("exit", resolve));
}

// Whatever ends the tests, nothing they started stays.
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));

/**
 * Waits until `fact` is there.
 * @param {string} what
 * @param {() => unknown} fact
 */
export async function until(what, fact) {
  const deadline = Date.now() + DEADLINE;
  for (;;) {
    const found = await fact();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** A `redis-server` on a socket of its own. */
export class Redis {
  /** @type {ChildProcess} */
  #child;
  #socket = join(folder, `redis-${(count += 1)}.sock`);

  static async start() {
    const redis = new Redis();
    await redis.start();
    return redis;
  }

  async start() {
    const args = ["--port", "0", "--unixsocket", this.#socket, "--save", ""];
    this.#child = start("redis-server", args, { stdio: ["ignore", "pipe", "inherit"] });
    const lines = createInterface({ input: this.#child.stdout });
    await new Promise((resolve, reject) => {
      lines.on("line", (line) => /ready to accept connections/i.test(line) && resolve(line));
      this.#child.once("error", reject);
      this.#child.once("exit", () => reject(new Error("redis-server did not start")));
    });
  }

  get url() {
    return `redis+unix://${this.#socket}`;
  }

  /** It stays connected and answers nothing. */
  freeze() {
    this.#child.kill("SIGSTOP");
  }

  thaw() {
    this.#child.kill("SIGCONT");
  }

  async kill() {
    this.#child.kill("SIGKILL");
    await ended(this.#child);
  }
}

/** A `hubbub serve` that can be killed and started again on the same port. */
export class Instance {
  /** @type {ChildProcess} */
  #child;
  #args;
  #log = join(folder, `hubbub-${(count += 1)}.log`);
  address = "127.0.0.1:0";

  /** @param {string[]} args */
  constructor(args) {
    this.#args = args;
  }

  /** @param {string[]} args */
  static async start(...args) {
    const instance = new Instance(args);
    await instance.start();
    return instance;
  }

  async start() {
    const log = openSync(this.#log, "a");
    const args = ["--listen", this.address, ...this.#args];
    this.#child = start(BINARY, args, { stdio: ["ignore", "pipe", log] });
    closeSync(log);
    const lines = createInterface({ input: this.#child.stdout });
    this.address = await new Promise((resolve, reject) => {
      lines.on("line", (line) => {
        const found = /listening on http:\/\/(\S+)/.exec(line);
        if (found) resolve(found[1]);
      });
      this.#child.once("error", reject);
      this.#child.once("exit", () => reject(new Error(`hubbub did not start:\n${this.log}`)));
    });
  }

  get url() {
    return `http://${this.address}/`;
  }

  get log() {
    return readFileSync(this.#log, "utf8");
  }

  /** Ends it as `kill -9` does. */
  async kill() {
    this.#child.kill("SIGKILL");
    await ended(this.#child);
  }

  /** Tells it to say goodbye to everybody and end. */
  async drain() {
    this.#child.kill("SIGTERM");
    await ended(this.#child);
  }
}

/** Ends what was started; without it the tests would not end. @param {Browser} browser */
export async function tearDown(browser) {
  await browser?.close();
  const all = [...children];
  for (const child of all) child.kill("SIGKILL");
  await Promise.all(all.map(ended));
}

/**
 * A token, as an operator makes one.
 * @param {string} user
 * @param {string} secret
 * @param {string[]} options
 */
export function mint(user, secret, ...options) {
  return execFileSync(BINARY, ["token", user, "--secret", secret, ...options], { encoding: "utf8" }).trim();
}

/** Which browser the tests are in: `chromium` or `firefox`. */
export const BROWSER = process.env.BROWSER ?? "chromium";

/** The browser, once for all tests. */
export function openBrowser() {
  if (BROWSER === "firefox") {
    // The channel means a Firefox as its makers ship it, driven by WebDriver BiDi.
    const firefoxUserPrefs = { "ui.prefersReducedMotion": 1 };
    return firefox.launch({ channel: "moz-firefox", executablePath: FIREFOX, firefoxUserPrefs });
  }
  return chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}
