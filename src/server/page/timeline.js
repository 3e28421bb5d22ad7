/**
 * The timeline: the rows of the shown room, and the user's place in them. New rows above or below do not
 * move that place, except that a user at the end stays at the end.
 */

/** @import { Chat } from "./chat.js" */
/** @import { Line } from "./outgoing.js" */
/** @import { Room } from "./room.js" */
/** @import { MessageRow, NoticeRow, Row } from "./rows.js" */

import { messageUrl } from "./address.js";
import { byId, h, isolated, keyOf, reconcile, setText, unlike } from "./dom.js";
import { hue, initial } from "./names.js";
import { prose } from "./prose.js";
import { looks, noticeText, rows } from "./rows.js";
import { clock, full, shortClock } from "./time.js";

/** Within this distance the user counts as at the end, in pixels. */
const AT_END = 48;

/** Within this distance of the beginning the page reads older messages, in pixels. */
const READ_AHEAD = 600;

/** A text longer than this is folded, in characters and in lines. */
const LONG = 1_500;
const MANY_LINES = 24;

/** The time for which the page says that a link is copied. */
const SAID_FOR = 3_000;

export class Timeline {
  #chat;
  #scroller = byId("scroller");
  #log = byId("log");
  #toEnd = byId("to-end");
  #beginning = byId("beginning");
  #field = byId("text", HTMLTextAreaElement);
  /** @type {Room | null} */
  #room = null;
  /** @type {string | undefined} */
  #oldest;
  /** Where the user was in each room. @type {WeakMap<Room, Place | null>} */
  #places = new WeakMap();
  /** @type {Set<string>} */
  #unfolded = new Set();
  /** The one message whose link the Tab key reaches. @type {HTMLElement | null} */
  #stop = null;
  #saidUntil = 0;

  /** @param {Chat} chat */
  constructor(chat) {
    this.#chat = chat;
    this.#scroller.addEventListener("scroll", () => this.#scrolled());
    this.#toEnd.addEventListener("click", () => {
      this.toEnd();
      this.#field.focus();
    });
    this.#log.addEventListener("keydown", (event) => this.#walk(event));
    new ResizeObserver(() => this.#keepEnd()).observe(this.#scroller);
  }

  /** Shows the room as it is now. */
  show() {
    const room = this.#chat.active;
    const other = room !== this.#room;
    if (other) this.#leave(room);
    if (!room) return;
    const place = this.#anchor();
    // Screen readers read out only new messages, not the past.
    const oldest = room.oldest();
    const begins = oldest !== undefined && this.#oldest === undefined;
    if (other || oldest !== this.#oldest) this.#log.setAttribute("aria-busy", "true");
    this.#oldest = oldest;
    const lines = this.#chat.outgoing.of(room.name);
    reconcile(this.#log, rows(room, lines, this.#chat.user), looks, (row) => this.#row(row));
    this.#showBeginning(room);
    if (other || begins) this.#arrive(room);
    else if (room.atEnd) this.toEnd();
    else this.#restore(place);
    if (room.sought?.state === "here") this.#point(room, room.sought.id);
    if (!this.#log.contains(document.activeElement)) this.#stopAt(this.#links().at(-1));
    this.#toEnd.hidden = room.atEnd;
    setText(this.#toEnd, room.unread > 0 ? `${room.unread.toLocaleString()} new, to the newest` : "To the newest");
    this.#readAhead();
    setTimeout(() => this.#log.setAttribute("aria-busy", "false"));
  }

  toEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /** @param {Room | null} next */
  #leave(next) {
    if (this.#room) this.#places.set(this.#room, this.#anchor());
    this.#room = next;
    this.#log.replaceChildren();
  }

  /** @param {Room} room */
  #arrive(room) {
    const place = this.#places.get(room);
    const fresh = this.#log.querySelector(".new");
    if (room.atEnd && fresh) fresh.scrollIntoView({ block: "center" });
    else if (room.atEnd || !place) this.toEnd();
    else this.#restore(place);
    this.#scrolled();
  }

  #keepEnd() {
    if (this.#room?.atEnd) this.toEnd();
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    if (!this.#room) return;
    this.#room.atEnd = scrollHeight - clientHeight - scrollTop < AT_END;
    this.#toEnd.hidden = this.#room.atEnd;
    this.#chat.look();
    this.#readAhead();
  }

  #readAhead() {
    // After a failure the user decides when to try again.
    if (this.#room?.olderState === "" && this.#scroller.scrollTop < READ_AHEAD) {
      this.#chat.readOlder(this.#room);
    }
  }

  /**
   * The first message in view, and its position.
   * @typedef {{key: string | undefined, offset: number}} Place
   * @returns {Place | null}
   */
  #anchor() {
    const top = this.#scroller.getBoundingClientRect().top;
    for (const child of this.#log.children) {
      const box = child.getBoundingClientRect();
      if (box.bottom > top && child.matches(".message")) {
        return { key: keyOf(child), offset: box.top - top };
      }
    }
    return null;
  }

  /** Brings the message that was sought into view, and marks it. @param {Room} room @param {string} id */
  #point(room, id) {
    const row = this.#rowOf(id);
    room.sought = null;
    if (!row) return;
    this.#log.querySelector(".sought")?.classList.remove("sought");
    row.classList.add("sought");
    row.scrollIntoView({ block: "center" });
    this.#scrolled();
    this.#stopAt(this.#links().find((link) => row.contains(link)));
    // The focus stays with a user who has begun to write meanwhile.
    if (this.#field.value === "") this.#stop?.focus({ preventScroll: true });
  }

  /** @param {string | undefined} key */
  #rowOf(key) {
    return [...this.#log.children].find((row) => keyOf(row) === key);
  }

  /** The links of the messages. */
  #links() {
    return [...this.#log.querySelectorAll(".when")].filter((link) => link instanceof HTMLElement);
  }

  /** The arrow keys go from the link of one message to the next. @param {KeyboardEvent} event */
  #walk(event) {
    const by = event.key === "ArrowUp" ? -1 : event.key === "ArrowDown" ? 1 : 0;
    const links = this.#links();
    const index = links.findIndex((link) => link === event.target);
    if (by === 0 || event.altKey || index < 0) return;
    event.preventDefault();
    const next = links[index + by];
    if (!next) return;
    this.#stopAt(next);
    next.focus();
  }

  /** @param {HTMLElement | undefined} link */
  #stopAt(link) {
    if (this.#stop) this.#stop.tabIndex = -1;
    this.#stop = link ?? null;
    if (link) link.tabIndex = 0;
  }

  /**
   * Copies the link to a message, or shows it where the browser forbids that, as it does without TLS.
   * @param {string} id
   */
  async #copy(id) {
    if (!this.#room) return;
    const url = messageUrl(this.#room.name, id);
    try {
      await navigator.clipboard.writeText(url);
    } catch {
      prompt("Copy this link to the message:", url);
      return;
    }
    const said = byId("said");
    said.textContent = "Link copied";
    clearTimeout(this.#saidUntil);
    this.#saidUntil = setTimeout(() => said.replaceChildren(), SAID_FOR);
  }

  /** @param {Place | null} place */
  #restore(place) {
    const child = place && this.#rowOf(place.key);
    if (!child) return;
    const top = this.#scroller.getBoundingClientRect().top;
    const moved = child.getBoundingClientRect().top - top - place.offset;
    if (moved !== 0) this.#scroller.scrollTop += moved;
  }

  /** @param {Room} room */
  #showBeginning(room) {
    const known = room.last !== null;
    const kind = !known
      ? "unknown"
      : room.olderState !== ""
        ? room.olderState
        : room.older
          ? "older"
          : this.#log.querySelector(".message")
            ? "beginning"
            : "empty";
    const items = [{ key: room.name, kind }];
    reconcile(this.#beginning, items, (item) => item.kind, () => this.#beginningOf(room, kind));
  }

  /** @param {Room} room @param {string} kind */
  #beginningOf(room, kind) {
    switch (kind) {
      case "unknown":
      case "older":
        return h("p");
      case "reading":
        return h("p", {}, "Reading older messages…");
      case "beginning":
        return h("p", {}, "This is where the room begins, as far as it is kept.");
      case "empty":
        return h(
          "p",
          { class: "empty" },
          h("strong", {}, "Nothing has been said here yet"),
          "Write the first message below. Others find this room by its name, or at this page's address.",
        );
      default:
        return h(
          "div",
          {},
          h("p", { class: "trouble" }, kind),
          h("button", { type: "button", class: "quiet", onclick: () => this.#chat.readOlder(room) }, "Try again"),
        );
    }
  }

  /** @param {Row} row */
  #row(row) {
    switch (row.kind) {
      case "day":
      case "new":
        return h("div", { class: row.kind, role: "separator" }, h("span", {}, row.text));
      case "notice":
        return this.#notice(row);
      case "gap":
        return h("div", { class: "gap" }, row.text);
      default:
        return this.#message(row);
    }
  }

  /** @param {NoticeRow} row */
  #notice({ key, text, happened }) {
    const all = noticeText(happened, Infinity);
    if (all === text || this.#unfolded.has(key)) return h("div", { class: "notice" }, ...isolated(all));
    const element = h("div", { class: "notice" }, ...isolated(text), " ");
    const unfold = () => {
      this.#unfolded.add(key);
      element.replaceChildren(...isolated(all));
      this.#scroller.focus({ preventScroll: true });
    };
    element.append(h("button", { type: "button", class: "unfold quiet", onclick: unfold }, "Show all"));
    return element;
  }

  /** @param {MessageRow} row */
  #message(row) {
    const { id, from, at, head, own, elsewhere, looks_like, line } = row;
    const classes = ["message", head ? "head" : "", own ? "own" : "", row.mention ? "mention" : "", line ? line.state : ""];
    const element = h("div", { class: classes.filter(Boolean).join(" "), dataset: { hue: hue(from) } });
    const shown = head ? clock(at) : shortClock(at);
    const time = h("time", { datetime: new Date(at).toISOString(), title: full(at) }, shown);
    const copy = { type: "button", class: "when", tabindex: -1, "aria-label": `${shown}: copy a link to this message` };
    const when = id ? h("button", { ...copy, onclick: () => this.#copy(id) }, time) : time;
    if (head) {
      const name = h("bdi", { class: "name" }, from);
      element.append(
        h("span", { class: "picture", "aria-hidden": "true" }, initial(from)),
        h(
          "div",
          { class: "heading" },
          name,
          own ? h("span", { class: "you" }, "you") : null,
          elsewhere ? h("span", { class: "unlike" }, "from another connection") : null,
          unlike(looks_like),
          when,
        ),
      );
    } else {
      const sign = looks_like ? `, not ${looks_like}` : elsewhere ? ", from another connection" : "";
      element.append(h("span", { class: "hidden" }, `${from}${sign}: `), when);
    }
    element.append(...this.#text(row));
    if (line) element.append(this.#fate(line));
    return element;
  }

  /** @param {MessageRow} row */
  #text({ key, text, mention }) {
    const body = h("div", { class: "text", dir: "auto" }, ...prose(text, mention ? this.#chat.user : undefined));
    const long = text.length > LONG || text.split("\n").length > MANY_LINES;
    if (!long || this.#unfolded.has(key)) return [body];
    body.classList.add("folded");
    const unfold = () => {
      this.#unfolded.add(key);
      body.classList.remove("folded");
      button.remove();
      this.#scroller.focus({ preventScroll: true });
    };
    const size = `Show all ${text.length.toLocaleString()} characters`;
    const button = h("button", { type: "button", class: "unfold quiet", onclick: unfold }, size);
    return [body, button];
  }

  /** The state of a line that is not in the room yet. @param {Line} line */
  #fate(line) {
    if (line.state !== "failed") {
      return h("div", { class: "fate" }, line.state === "sent" ? "Sent" : line.state === "sending" ? "Sending…" : "Waiting to be sent");
    }
    return h(
      "div",
      { class: "fate" },
      h("span", {}, line.why),
      h("button", { type: "button", class: "quiet", onclick: () => this.#chat.retry(line) }, "Try again"),
      h("button", { type: "button", class: "quiet", onclick: () => this.#chat.discard(line) }, "Discard"),
    );
  }
}
