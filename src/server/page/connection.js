/**
 * The connection: one socket at a time. It reconnects whenever the socket breaks, until it is stopped
 * or the server refuses the user. The waits between attempts grow up to a limit and have full jitter,
 * so that the users of an instance that restarts do not all come back at the same time.
 *
 * @typedef {{kind: "idle" | "connecting" | "online", why: string}
 *   | {kind: "waiting", why: string, until: number}
 *   | {kind: "refused", why: string, status?: number}} State
 */

/** @import { ServerEvent } from "./wire" */

import { chatUrl } from "./names.js";

const SUBPROTOCOL = "hubbub.v1";

/** The longest time from the start of a connection to the server's welcome. */
const CONNECT_WITHIN = 10_000;

/** The upper bounds of the first and of the longest wait between two attempts. */
const RETRY_FIRST = 250;
const RETRY_CAP = 8_000;

/** After this time without an event the page sends a request, and the server has this time to answer. */
const SILENCE = 25_000;
const ANSWER_WITHIN = 10_000;
const LOOK_EVERY = 5_000;

/** After this many failed handshakes the status says what is unusual about them. */
const STRANGE = 3;

/** Close codes (RFC 6455, section 7.4.1, and the registry) in plain words. @type {Record<number, string>} */
const CLOSED = {
  1008: "The server ended the connection: too fast for too long.",
  1009: "A message was too large for the server.",
  1012: "The server is restarting.",
  1013: "This connection could not keep up.",
  4001: "Your token has expired.",
};

/** The close code of an operator. This page does not come back by itself. */
const PUT_OUT = 4002;

/** A random time between half and the whole of the wait that the server asked for. @param {number} wait */
const spread = (wait) => wait * (0.5 + Math.random() / 2);

export class Connection {
  /** @type {WebSocket | null} */
  #socket = null;
  #timer = 0;
  #failures = 0;
  /** @type {number | null} */
  #comeBackIn = null;
  #heard = 0;
  #goodbye = "";
  /** @type {number | null} */
  #asked = null;
  #who = { user: "", token: "" };
  #hooks;

  /** @type {State} */
  state = { kind: "idle", why: "" };

  /**
   * Hooks: `event(object)` for each event, `state()` after a change of state, `lost(code)` when an
   * established connection has ended, and `quiet()` when the chat should send a request to test it.
   * @param {{event(event: ServerEvent): void, state(): void, lost(code: number | null): void, quiet(): void}} hooks
   */
  constructor(hooks) {
    this.#hooks = hooks;
    setInterval(() => this.#look(), LOOK_EVERY);
    // Timers sleep in a hidden tab and in a closed laptop. These events tell when that is over.
    addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") {
        this.#look();
        this.retryNow();
      }
    });
  }

  /**
   * Connects as this user, and reconnects after every break.
   * @param {string} user
   * @param {string} token
   */
  start(user, token) {
    this.stop();
    this.#who = { user, token };
    this.#failures = 0;
    this.#connect("");
  }

  stop() {
    this.#drop();
    this.#become({ kind: "idle", why: "" });
  }

  /** Ends the wait and connects now. */
  retryNow() {
    if (this.state.kind === "waiting") this.#connect(this.state.why);
  }

  /** The next connection is made with this token. @param {string} token */
  goOnWith(token) {
    this.#who = { ...this.#who, token };
  }

  /** Sends a command. Returns false if there is no connection. @param {object} command */
  ask(command) {
    // A socket that is closing would drop the command silently.
    if (this.state.kind !== "online" || this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(command));
    return true;
  }

  /** @param {State} state */
  #become(state) {
    this.state = state;
    this.#hooks.state();
  }

  #drop() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    if (socket) socket.close();
    if (this.state.kind === "online") {
      this.state = { kind: "connecting", why: "" };
      this.#hooks.lost(null);
    }
  }

  /** @param {string} why */
  #connect(why) {
    this.#drop();
    this.#become({ kind: "connecting", why });
    const { user, token } = this.#who;
    const url = chatUrl(user);
    url.protocol = url.protocol.replace("http", "ws");
    let socket;
    try {
      const protocols = token ? [SUBPROTOCOL, `token.${token}`] : [SUBPROTOCOL];
      socket = new WebSocket(url, protocols);
    } catch {
      this.#become({ kind: "refused", why: "The token has characters that no token has.", status: 401 });
      return;
    }
    this.#socket = socket;
    this.#comeBackIn = null;
    socket.onmessage = ({ data }) => this.#socket === socket && this.#hear(data);
    socket.onclose = ({ code }) => this.#socket === socket && this.#closed(code);
    this.#timer = setTimeout(() => {
      this.#drop();
      this.#retry("The server does not answer.");
    }, CONNECT_WITHIN);
  }

  /** @param {string} data */
  #hear(data) {
    this.#heard = Date.now();
    this.#asked = null;
    /** @type {ServerEvent} */
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      return;
    }
    if (event.type === "welcome") {
      clearTimeout(this.#timer);
      this.#failures = 0;
      this.#become({ kind: "online", why: "" });
    }
    if (event.type === "closing") {
      this.#comeBackIn = event.retry_after_ms;
      this.#goodbye = event.reason;
    }
    this.#hooks.event(event);
  }

  /** @param {number} code */
  #closed(code) {
    const wasOnline = this.state.kind === "online";
    clearTimeout(this.#timer);
    this.#socket = null;
    if (wasOnline) {
      this.state = { kind: "connecting", why: "" };
      this.#hooks.lost(code);
      if (code === PUT_OUT) {
        this.#become({ kind: "refused", why: `The server says: ${this.#goodbye}.` });
        return;
      }
      this.#retry(CLOSED[code] ?? "The connection is lost.");
    } else {
      this.#explain();
    }
  }

  /** Scripts cannot see the response to a failed handshake, so this sends the request without the upgrade. */
  async #explain() {
    const { user, token } = this.#who;
    const state = this.state;
    const unchanged = () => this.state === state;
    let answer;
    let sentence;
    try {
      answer = await fetch(chatUrl(user), {
        headers: token ? { Authorization: `Bearer ${token}` } : {},
        cache: "no-store",
        signal: AbortSignal.timeout(CONNECT_WITHIN),
      });
      sentence = (await answer.text()).trim();
    } catch {
      if (unchanged()) this.#retry("The server cannot be reached.");
      return;
    }
    if (!unchanged()) return;
    if ([400, 401, 403].includes(answer.status)) {
      this.#become({ kind: "refused", why: `The server says: ${sentence}.`, status: answer.status });
    } else if (answer.status === 426) {
      // The server accepts this user: it has just come back, or a proxy does not pass WebSockets.
      const strange = this.#failures >= STRANGE;
      this.#retry(
        strange
          ? "The server answers, but no WebSocket comes through: a proxy may not pass it on, or the server may not allow this page's origin."
          : "The connection could not be made.",
      );
    } else {
      const after = Number(answer.headers.get("Retry-After"));
      if (after > 0) this.#comeBackIn = after * 1000;
      this.#retry(`The server says: ${sentence.slice(0, 200)}.`);
    }
  }

  /** @param {string} why */
  #retry(why) {
    const ceiling = Math.min(RETRY_FIRST * 2 ** Math.min(this.#failures, 16), RETRY_CAP);
    this.#failures += 1;
    const wait = this.#comeBackIn === null ? Math.random() * ceiling : spread(this.#comeBackIn);
    this.#comeBackIn = null;
    this.#timer = setTimeout(() => this.#connect(why), wait);
    this.#become({ kind: "waiting", why, until: Date.now() + wait });
  }

  /** Checks whether the server still answers, since scripts see neither pings nor pongs. */
  #look() {
    if (this.state.kind !== "online") return;
    const now = Date.now();
    if (this.#asked !== null) {
      if (now - this.#asked > ANSWER_WITHIN) {
        this.#drop();
        this.#retry("The server is silent.");
      }
    } else if (now - this.#heard > SILENCE) {
      this.#asked = now;
      this.#hooks.quiet();
    }
  }
}
