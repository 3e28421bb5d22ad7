/**
 * A person with a browser: what they do on the page, and what they see there. Whatever a page must
 * never do (break its policy, throw, ask elsewhere) is noted, and `complaints` tells of it.
 */

/** @import { Browser, BrowserContext, Page } from "playwright-core" */
/** @import { Instance } from "./house.js" */

import { BROWSER, DEADLINE, until } from "./house.js";

// What a browser logs about an answer that is no success; the page expects those.
const EXPECTED = /Failed to load resource|WebSocket connection to .* failed|can.t establish a connection to the server/;

export class Person {
  /** @type {string[]} */
  complaints = [];
  /** What the page sent, in order. @type {any[]} */
  sent = [];

  /** @type {BrowserContext} */
  context;
  /** @type {Page} */
  page;
  /** The one whose page it is. @type {Instance} */
  instance;

  /** @param {Browser} browser @param {Instance} instance */
  static async at(browser, instance, options = {}) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    return Person.in(context, instance);
  }

  /**
   * In a profile that is open already, as in another tab of the same browser.
   * @param {BrowserContext} context
   * @param {Instance} instance
   */
  static async in(context, instance) {
    const person = new Person();
    person.context = context;
    person.page = await context.newPage();
    person.page.setDefaultTimeout(DEADLINE);
    person.instance = instance;
    await person.#watch();
    return person;
  }

  async #watch() {
    const { page, complaints } = this;
    page.on("pageerror", (error) => {
      if (!EXPECTED.test(error.message)) complaints.push(`threw ${error.stack ?? error}`);
    });
    page.on("console", (message) => {
      const bad = ["error", "warning"].includes(message.type()) && !EXPECTED.test(message.text());
      if (bad) complaints.push(`said ${message.text()}`);
    });
    page.on("dialog", (dialog) => {
      complaints.push(`opened a dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    page.on("request", (request) => {
      const { host, protocol } = new URL(request.url());
      if (host !== this.instance.address && protocol !== "data:") complaints.push(`asked ${request.url()}`);
    });
    await page.exposeFunction("hubbubTestViolated", (/** @type {string} */ what) => complaints.push(`violated ${what}`));
    await page.exposeFunction("hubbubTestSent", (/** @type {string} */ frame) => this.sent.push(JSON.parse(frame)));
    await page.addInitScript(() => {
      const { send } = WebSocket.prototype;
      WebSocket.prototype.send = function (frame) {
        window.hubbubTestSent(frame);
        send.call(this, frame);
      };
      document.addEventListener("securitypolicyviolation", (event) =>
        window.hubbubTestViolated(`${event.violatedDirective}: ${event.blockedURI}`),
      );
    });
  }

  async opens(target = "") {
    await this.page.goto(this.instance.url + target);
  }

  /** Opens the page and comes in, from the address to the room. @param {string} name */
  async enters(name, room = "lobby") {
    await this.opens();
    await this.page.fill("#name", name);
    await this.page.fill("#first-room", room);
    await this.page.click("text=Enter");
    await this.isOnline();
    await this.isIn(room);
    await this.isHere();
  }

  async isOnline() {
    await this.page.waitForSelector("#me[data-state=online]", { state: "attached" });
  }

  /** @param {string} room */
  async isIn(room) {
    await this.page.waitForFunction((name) => document.getElementById("room-name").textContent === name, room);
  }

  /** Waits until the server has let them in: then they are among those who are here. */
  async isHere() {
    await this.page.waitForSelector("#member-list:not(.stale) .you", { state: "attached" });
  }

  /** Enters another room, or shows it. @param {string} room */
  async joins(room) {
    await this.page.fill("#join-room", room);
    await this.page.press("#join-room", "Enter");
    await this.isIn(room);
    await this.isHere();
  }

  /** @param {string} text */
  async types(text) {
    if (BROWSER === "chromium") return this.page.fill("#text", text);
    // Firefox is given each character as a key, which sends a text of several lines too early: it is pasted.
    await this.page.locator("#text").evaluate((/** @type {HTMLTextAreaElement} */ field, pasted) => {
      field.focus();
      field.select();
      document.execCommand("insertText", false, pasted);
    }, text);
  }

  /** Has their window before all others: no other has the focus. */
  async looks() {
    await this.page.bringToFront();
  }

  /** @param {string} text */
  async says(text) {
    await this.types(text);
    await this.page.press("#text", "Enter");
  }

  /** Waits until a message with this text is in the room, and nothing of it is still on its way. @param {string} text */
  async sees(text) {
    await until(`${text} is seen`, async () => (await this.messages()).includes(text));
  }

  /** The texts in the room, in order; those still on their way are not among them. */
  messages() {
    return this.page.$$eval("#log .message:not(.queued, .sending, .sent, .failed) .text", (all) =>
      all.map((one) => one.textContent),
    );
  }

  /** Waits until this is somewhere in the timeline, or elsewhere on the page. @param {string | RegExp} text */
  async reads(text, where = "body") {
    await this.page.locator(where).getByText(text).first().waitFor();
  }

  /** @param {string} expected */
  async title(expected) {
    await until(`the title is ${expected}`, async () => (await this.page.title()) === expected);
  }

  async leaves() {
    await this.page.close();
  }
}
