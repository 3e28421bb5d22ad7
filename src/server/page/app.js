/** The entry of the page: makes the chat and its views, and passes events between them. */

import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { byId, setText, soon } from "./dom.js";
import { Entrance } from "./entrance.js";
import { Finder } from "./finder.js";
import { Kept } from "./keep.js";
import { Members } from "./members.js";
import { objection } from "./names.js";
import { Notifier } from "./notify.js";
import { Sidebar } from "./sidebar.js";
import { Status } from "./status.js";
import { forgetTab, loadName, loadTab, loadTheme, loadUser, saveTab, saveTheme } from "./store.js";
import { Timeline } from "./timeline.js";
import { title } from "./title.js";

const DEFAULT_ROOM = "lobby";
const THEMES = { auto: "Light or dark as the system is", light: "Light", dark: "Dark" };

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
const kept = new Kept(chat, { drafted: () => composer.recall(), changed: refresh, forgotten: signOut });
const remember = soon(() => kept.save(), KEEP_EVERY);
const sides = [new Sidebar(chat, choose), new Finder(chat, choose), new Members(chat)];
const views = [timeline, composer, notifier, ...sides, new Status(chat, signOut)];
const entrance = new Entrance(enter);

/** The room, the name and the token in the page's address. A token is removed from the address. */
function asked() {
  const query = new URLSearchParams(location.search);
  const room = query.get("room") ?? roomInHash();
  const token = query.get("token") ?? tokenInHash() ?? "";
  if (query.has("room") || query.has("token") || tokenInHash()) {
    history.replaceState(null, "", location.pathname);
  }
  return { room: room !== null && objection(room) === null ? room : null, token };
}

// An equals sign in a room's name is encoded in the address.
const tokenInHash = () => new URLSearchParams(location.hash.slice(1)).get("token");

function roomInHash() {
  if (tokenInHash() !== null) return null;
  try {
    const room = decodeURIComponent(location.hash.slice(1));
    return objection(room) === null ? room : null;
  } catch {
    return null;
  }
}

function enter({ name, room, token }) {
  entrance.close();
  app.hidden = false;
  const before = loadTab();
  const mine = before.name === name ? before : { name };
  chat.begin({ ...mine, token, rooms: kept.recall(name) ?? mine.rooms, active: room }, true);
  choose(room);
  composer.focus();
}

/** Shows a room, and joins it first if necessary. Returns the reason if it cannot. */
function choose(name) {
  const problem = chat.open(name);
  if (!problem) {
    pane("talk");
    composer.show();
    composer.focus();
  }
  return problem;
}

function show() {
  const { kind, why, status } = chat.state;
  if (kind === "refused") {
    refuse(why, status);
    return;
  }
  document.title = title(chat);
  if (chat.user === "") return;
  const room = chat.active;
  setText(byId("room-name"), room ? room.name : "No room");
  byId("nowhere").hidden = room !== null;
  byId("talk").classList.toggle("empty", room === null);
  for (const button of [byId("leave"), byId("members-button")]) button.hidden = !room;
  const elsewhere = [...chat.rooms.values()].some((other) => other !== room && !other.muted && other.unread > 0);
  byId("rooms-button").classList.toggle("news", elsewhere);
  for (const view of views) view.show();
  const hash = room ? `#${encodeURIComponent(room.name)}` : "";
  if (location.hash !== hash) history.replaceState(null, "", location.pathname + hash);
}

/** The server refuses this user: shows the entrance again, with the reason. */
function refuse(why, status) {
  const { user: name, token, active } = chat;
  keep();
  chat.connection.stop();
  chat.user = "";
  app.hidden = true;
  const wantsToken = status === 401 || status === 403;
  entrance.open({ name, room: active?.name ?? DEFAULT_ROOM, token, problem: why, wantsToken });
  document.title = "Hubbub";
}

function keep() {
  if (chat.user === "") return;
  saveTab(chat.saved());
  remember();
}

/** A narrow screen shows one pane at a time: `rooms`, `talk` or `members`. */
function pane(name) {
  app.dataset.pane = name;
  byId("rooms-button").setAttribute("aria-expanded", String(name === "rooms"));
  byId("members-button").setAttribute("aria-expanded", String(name === "members"));
}

/** Opens or closes a pane. The focus moves into the pane, and later back to the button. */
function toggle(name) {
  const opens = app.dataset.pane !== name;
  pane(opens ? name : "talk");
  const inside = name === "rooms" ? document.querySelector("#room-list button, #join-room") : byId("close-members");
  (opens ? inside : byId(`${name}-button`)).focus();
}

function watch() {
  chat.watched = document.visibilityState === "visible" && document.hasFocus();
  chat.look();
}

function wear(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").setAttribute("aria-label", `Colours: ${THEMES[theme]}`);
  byId("theme").title = `Colours: ${THEMES[theme]}`;
}

/** Lines that are not sent yet are dropped only after the user agreed. */
function mayDrop(lines) {
  return lines.length === 0 || confirm("Some of your lines are not sent yet. Leave, and drop them?");
}

/** Returns false if the user stays. */
function signOut() {
  if (!mayDrop(chat.outgoing.saved())) return false;
  kept.save();
  chat.end();
  forgetTab();
  app.hidden = true;
  entrance.open({ name: "", room: lastRoom() });
  return true;
}

/** Forgets what the browser keeps for the user. */
function forget() {
  const { user } = chat;
  if (!signOut()) return;
  kept.forget(user);
  entrance.open({ name: "", room: DEFAULT_ROOM });
}

/** Where the user of the last visit was. */
const lastRoom = () => loadUser(loadName())?.active ?? DEFAULT_ROOM;

/** Shows the next or the previous room. */
function step(by) {
  const names = [...chat.rooms.keys()];
  const index = names.indexOf(chat.active?.name);
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
    const token = tokenInHash();
    if (token !== null) {
      // A page that gave the token may give a fresh one the same way.
      history.replaceState(null, "", location.pathname);
      if (chat.user !== "") chat.renew(token);
      else entrance.open({ name: "", room: DEFAULT_ROOM, token });
      refresh();
      return;
    }
    const room = roomInHash();
    if (chat.user !== "" && room !== null) choose(room);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && app.dataset.pane !== "talk") toggle(app.dataset.pane);
    if (event.altKey && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      step(event.key === "ArrowDown" ? 1 : -1);
    }
  });
  byId("rooms-button").addEventListener("click", () => toggle("rooms"));
  byId("members-button").addEventListener("click", () => toggle("members"));
  for (const button of document.querySelectorAll(".close-pane")) {
    button.addEventListener("click", () => toggle(app.dataset.pane));
  }
  byId("leave").addEventListener("click", () => {
    if (mayDrop(chat.outgoing.of(chat.active.name))) chat.leave(chat.active);
  });
  byId("sign-out").addEventListener("click", signOut);
  byId("forget").addEventListener("click", forget);
  // What is typed is a draft, and is kept as such.
  byId("composer").addEventListener("input", save);
  byId("theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
    wear(next);
    saveTheme(next);
  });
}

function begin() {
  wear(loadTheme());
  listen();
  watch();
  const { room, token } = asked();
  const before = loadTab();
  if (before.name && token === "") {
    app.hidden = false;
    chat.begin({ ...before, rooms: kept.recall(before.name) ?? before.rooms });
    if (room !== null) choose(room);
    composer.focus();
  } else {
    entrance.open({ name: "", room: room ?? lastRoom(), token });
  }
}

begin();
