/** The entry of the page: makes the chat and its views, and passes events between them. */

/** @import { Line } from "./outgoing.js" */
/** @import { Room } from "./room.js" */

import { fromAddress, fromHash } from "./address.js";
import { ask } from "./ask.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { byId, setText, soon } from "./dom.js";
import { Entrance } from "./entrance.js";
import { Finder } from "./finder.js";
import { Kept } from "./keep.js";
import { Members } from "./members.js";
import { Notifier } from "./notify.js";
import { Search } from "./search.js";
import { Sidebar } from "./sidebar.js";
import { Status } from "./status.js";
import { forgetTab, loadName, loadTab, loadTheme, loadUser, saveTab, saveTheme } from "./store.js";
import { Timeline } from "./timeline.js";
import { title } from "./title.js";

const DEFAULT_ROOM = "lobby";
/** @type {Record<string, string>} */
const THEMES = { auto: "System", light: "Light", dark: "Dark" };

/** Each time that the browser keeps something, all tabs hear of it. In milliseconds. */
const KEEP_EVERY = 200;

const app = byId("app");
const refresh = soon(show);
const chat = new Chat(
  () => {
    save();
    refresh();
  },
  (room, message) => notifier.mentioned(room, message),
);
const save = soon(keep);
const timeline = new Timeline(chat);
const composer = new Composer(chat, () => {
  keep();
  timeline.toEnd();
});
const notifier = new Notifier(chat, choose);
const kept = new Kept(chat, { drafted: () => composer.recall(), changed: refresh, forgotten: forget });
const remember = soon(() => kept.save(), KEEP_EVERY);
const search = new Search(chat, choose);
const sides = [new Sidebar(chat, choose), new Finder(chat, choose), new Members(chat)];
const views = [timeline, composer, notifier, ...sides, new Status(chat, signOut), search];
const entrance = new Entrance(enter);
/** The room that was shown last. @type {Room | null} */
let shown = null;
/** The message to show after the entrance. @type {{room?: string | null, at?: string | null}} */
let wanted = {};

/** @param {{name: string, room: string, token: string}} who */
function enter({ name, room, token }) {
  entrance.close();
  app.hidden = false;
  const before = loadTab();
  const mine = before.name === name ? before : { name };
  chat.begin({ ...mine, token, name, rooms: kept.recall(name) ?? mine.rooms, active: room }, true);
  choose(room, wanted.room === room ? wanted.at : null);
  wanted = {};
  composer.focus();
}

/**
 * Shows a room, or a message in it, and joins it first if necessary. Returns the reason if it cannot.
 * @param {string} name
 * @param {string | null} [at]
 */
function choose(name, at) {
  const problem = chat.open(name);
  if (!problem) {
    pane("talk");
    composer.show();
    composer.focus();
    if (at && chat.active) chat.seek(chat.active, at);
  }
  return problem;
}

function show() {
  const { state } = chat.session.connection;
  if (state.kind === "refused") {
    refuse(state.why, state.status);
    return;
  }
  document.title = title(chat);
  if (chat.user === "") return;
  const room = chat.active;
  setText(byId("room-name"), room ? room.name : "No room");
  byId("nowhere").hidden = room !== null;
  byId("talk").classList.toggle("empty", room === null);
  for (const id of ["search-button", "leave", "members-button"]) byId(id).hidden = !room;
  const elsewhere = [...chat.rooms.values()].some((other) => other !== room && !other.muted && other.unread > 0);
  byId("rooms-button").classList.toggle("news", elsewhere);
  for (const view of views) view.show();
  if (room !== shown) bringIntoView();
  shown = room;
  const hash = room ? `#${encodeURIComponent(room.name)}` : "";
  if (location.hash !== hash) history.replaceState(null, "", location.pathname + hash);
}

/** The list of rooms shows the one that is shown. */
function bringIntoView() {
  document.querySelector("#room-list [aria-current]")?.scrollIntoView({ block: "nearest" });
}

/**
 * The server refuses this user: shows the entrance again, with the reason.
 * @param {string} why
 * @param {number} [status]
 */
function refuse(why, status) {
  const { user: name, active, session } = chat;
  keep();
  session.connection.stop();
  chat.user = "";
  hide();
  // A 403 is about the token, or an operator has banned the user.
  const field = status === 401 || (status === 403 && /\btoken\b/.test(why)) ? "token" : status === 400 ? "name" : null;
  entrance.open({ name, room: active?.name ?? DEFAULT_ROOM, token: session.token, problem: why, field });
  document.title = "Hubbub";
}

/** Hides the chat, and all that is open over it. */
function hide() {
  app.hidden = true;
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
}

function keep() {
  if (chat.user === "") return;
  saveTab(chat.saved());
  remember();
}

/** A narrow screen shows one pane at a time: `rooms`, `talk` or `members`. @param {string} name */
function pane(name) {
  app.dataset.pane = name;
  byId("rooms-button").setAttribute("aria-expanded", String(name === "rooms"));
  byId("members-button").setAttribute("aria-expanded", String(name === "members"));
}

/** Opens or closes a pane. The focus moves into the pane, and later back to the button. @param {string} name */
function toggle(name) {
  const opens = app.dataset.pane !== name;
  pane(opens ? name : "talk");
  const rooms = [...byId("room-list").querySelectorAll("button")];
  const current = rooms.find((room) => room.hasAttribute("aria-current")) ?? rooms[0] ?? byId("join-room");
  const inside = name === "rooms" ? current : byId("close-members");
  (opens ? inside : byId(`${name}-button`)).focus();
}

function watch() {
  chat.watched = document.visibilityState === "visible" && document.hasFocus();
  chat.look();
}

/** @param {string} theme */
function wear(theme) {
  // A browser keeps what an older page stored.
  const known = Object.hasOwn(THEMES, theme) ? theme : "auto";
  document.documentElement.dataset.theme = known;
  setText(byId("theme-name"), THEMES[known]);
  byId("theme").setAttribute("aria-label", `${THEMES[known]} colours. Change them`);
}

/** The loss of a user who leaves now, in words. @param {Line[]} lines */
function dropped(lines) {
  if (lines.length === 0) return "";
  return lines.length === 1 ? "One of your lines is not sent yet, and is dropped." : `${lines.length} of your lines are not sent yet, and are dropped.`;
}

async function leave() {
  const room = chat.active;
  if (!room) return;
  const more = dropped(chat.outgoing.of(room.name));
  const agrees = await ask({ question: `Leave ${room.name}?`, more, yes: "Leave", no: "Stay" });
  // Meanwhile the user may have been put out.
  if (agrees && chat.rooms.get(room.name) === room) chat.leave(room);
}

/** Ends the chat, once the user agrees to lose what is not sent. @param {() => void} settle */
async function end(settle) {
  const more = dropped(chat.outgoing.saved());
  if (more !== "" && !(await ask({ question: "Change your name?", more, yes: "Leave", no: "Stay" }))) return;
  settle();
  chat.end();
  forgetTab();
  hide();
  entrance.open({ name: "", room: lastRoom() });
}

function signOut() {
  end(() => kept.save());
}

/** Forgets what the browser keeps for the user. The user's other tabs do the same. */
function forget() {
  end(() => kept.forget(chat.user));
}

/** Where the user of the last visit was. */
const lastRoom = () => loadUser(loadName())?.active ?? DEFAULT_ROOM;

/** Shows the next or the previous room. @param {1 | -1} by */
function step(by) {
  const names = [...chat.rooms.keys()];
  const index = names.indexOf(chat.active?.name ?? "");
  if (names.length > 1) choose(names[(index + by + names.length) % names.length]);
}

function listen() {
  for (const event of ["focus", "blur"]) addEventListener(event, watch);
  document.addEventListener("visibilitychange", watch);
  addEventListener("pagehide", () => {
    keep();
    kept.save();
  });
  addEventListener("hashchange", () => {
    const { room, at, token } = fromHash();
    if (token !== null) {
      // A page that gave the token may give a fresh one the same way.
      history.replaceState(null, "", location.pathname);
      if (chat.user !== "") chat.session.renew(token);
      else entrance.open({ name: "", room: DEFAULT_ROOM, token });
      refresh();
      return;
    }
    if (room === null) return;
    if (chat.user !== "") choose(room, at);
    else {
      wanted = { room, at };
      entrance.open({ name: "", room });
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && app.dataset.pane !== "talk") toggle(app.dataset.pane ?? "talk");
    if ((event.ctrlKey || event.metaKey) && event.key === "k" && !app.hidden) {
      event.preventDefault();
      search.open();
    }
    if (event.altKey && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      step(event.key === "ArrowDown" ? 1 : -1);
    }
  });
  byId("rooms-button").addEventListener("click", () => toggle("rooms"));
  byId("members-button").addEventListener("click", () => toggle("members"));
  for (const button of document.querySelectorAll(".close-pane")) {
    button.addEventListener("click", () => toggle(app.dataset.pane ?? "talk"));
  }
  byId("search-button").addEventListener("click", () => search.open());
  byId("leave").addEventListener("click", leave);
  byId("sign-out").addEventListener("click", signOut);
  byId("forget").addEventListener("click", forget);
  // The text in the field is a draft, and is kept as one.
  byId("composer").addEventListener("input", save);
  byId("theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "") + 1) % names.length];
    wear(next);
    saveTheme(next);
  });
}

function begin() {
  wear(loadTheme());
  listen();
  watch();
  const { room, at, token } = fromAddress();
  const before = loadTab();
  if (before.name && token === "") {
    app.hidden = false;
    chat.begin({ ...before, name: before.name, rooms: kept.recall(before.name) ?? before.rooms });
    if (room !== null) choose(room, at);
    composer.focus();
  } else {
    wanted = { room, at };
    entrance.open({ name: "", room: room ?? lastRoom(), token });
  }
}

begin();
