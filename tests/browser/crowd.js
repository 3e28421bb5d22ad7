/** People without a page: they come in, say what they are told to, and leave. */

/** @import { Browser, Page } from "playwright-core" */
/** @import { Instance } from "./house.js" */

export class Crowd {
  /** @type {Page} */
  #page;

  /** @param {Browser} browser @param {Instance} instance */
  static async at(browser, instance) {
    const crowd = new Crowd();
    crowd.#page = await browser.newPage();
    // Of the same origin, and without the policy of the chat page.
    await crowd.#page.goto(`${instance.url}livez`);
    await crowd.#page.evaluate(prepare);
    return crowd;
  }

  /** Brings somebody into a room. @param {string} user */
  async enters(user, room = "lobby") {
    await this.#page.evaluate(([u, r]) => window.crowd.enters(u, r), [user, room]);
  }

  /** Takes somebody out of a room. @param {string} user */
  async leaves(user, room = "lobby") {
    await this.#page.evaluate(([u, r]) => window.crowd.leaves(u, r), [user, room]);
  }

  /** Says a line, and waits until it is stored. @param {string} user @param {string} text */
  async says(user, text, room = "lobby") {
    await this.#page.evaluate(([u, r, t]) => window.crowd.says(u, r, t), [user, room, text]);
  }

  /** @param {string} user */
  async types(user, room = "lobby") {
    await this.#page.evaluate(([u, r]) => window.crowd.types(u, r), [user, room]);
  }
}

/** Runs in the page. */
function prepare() {
  /** @type {Map<string, WebSocket>} */
  const sockets = new Map();
  /** What to call once this is answered. @type {Map<string, (answer?: unknown) => void>} */
  const sent = new Map();
  /** @param {string} user @param {object} command */
  const ask = (user, command) => sockets.get(user).send(JSON.stringify(command));
  /** @param {string} user */
  const connect = (user) =>
    new Promise((resolve, reject) => {
      const url = `ws://${location.host}/chat/${encodeURIComponent(user)}`;
      const socket = new WebSocket(url, "hubbub.v1");
      sockets.set(user, socket);
      socket.onerror = () => reject(new Error(`${user} cannot come in`));
      socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        if (event.type === "welcome") resolve(event);
        if (event.type === "room") sent.get(`${user} in ${event.room}`)();
        if (event.type === "parted") sent.get(`${user} out of ${event.room}`)();
        if (event.type === "sent") sent.get(event.ref)();
      };
    });
  /** @type {Record<string, (user: string, room: string, text: string) => unknown>} */
  window.crowd = {
    async enters(user, room) {
      if (!sockets.has(user)) await connect(user);
      await new Promise((resolve) => {
        sent.set(`${user} in ${room}`, resolve);
        ask(user, { type: "join", room });
      });
    },
    leaves: (user, room) =>
      new Promise((resolve) => {
        sent.set(`${user} out of ${room}`, resolve);
        ask(user, { type: "leave", room });
      }),
    says: (user, room, text) =>
      new Promise((resolve) => {
        const ref = `${user}-${sent.size}`;
        sent.set(ref, resolve);
        ask(user, { type: "send", room, text, ref });
      }),
    types: (user, room) => ask(user, { type: "typing", room }),
  };
}
