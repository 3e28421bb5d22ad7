/**
 * The rows of a room's timeline, from the room's entries and from the lines still on their way. There
 * are no elements here.
 *
 * @typedef {{kind: "message" | "line", key: string, line?: Line, id?: string} & Omit<Told, "id">} Said
 * @typedef {Said & {own: boolean, head: boolean}} MessageRow
 * @typedef {{kind: "notice", key: string, text: string, happened: Map<string, Move>}} NoticeRow
 * @typedef {MessageRow | NoticeRow | {kind: "day" | "new" | "gap", key: string, text: string}} Row
 */

/** @import { Line } from "./outgoing.js" */
/** @import { Move, Room, Told } from "./room.js" */

import { dayKey, dayName } from "./time.js";

/** Two messages of one author within this time share one heading. */
const TOGETHER = 5 * 60_000;

/** The most names in one notice. */
const NAMES = 4;

/**
 * The rows of a room, from its oldest entry to the lines that are not sent yet.
 * @param {Room} room
 * @param {Line[]} lines
 * @param {string} me
 */
export function rows(room, lines, me) {
  /** @type {Row[]} */
  const result = [];
  let day = "";
  /** The message right above, of the same day. @type {(Said & {own: boolean}) | null} */
  let before = null;
  /** @param {Said} message */
  const say = (message) => {
    if (day !== dayKey(message.at)) {
      day = dayKey(message.at);
      result.push({ key: `day-${message.key}`, kind: "day", text: dayName(message.at) });
      before = null;
    }
    if (message.id !== undefined && message.id === room.newFrom) {
      result.push({ key: "new", kind: "new", text: "New" });
      before = null;
    }
    const failed = [before, message].some((one) => one?.line?.state === "failed");
    const own = message.from === me && !message.elsewhere;
    const together = before?.from === message.from && before.own === own && message.at - before.at < TOGETHER;
    const head = !together || failed || before?.looks_like !== message.looks_like;
    before = { ...message, own };
    result.push({ ...before, head });
  };
  for (const entry of room.entries) {
    if (entry.kind === "message") {
      say(entry);
    } else {
      const row = entry.kind === "notice" ? { ...entry, text: noticeText(entry.happened) } : entry;
      // Everybody who left is back.
      if (row.text === "") continue;
      result.push(row);
      before = null;
    }
  }
  for (const line of lines) {
    const heard = line.state !== "failed" && line.echo && room.has(line.echo);
    if (!heard) say({ kind: "line", key: `line-${line.ref}`, from: me, text: line.text, at: line.at, line });
  }
  return result;
}

/** The content of a row as text: rows with the same text look the same. @param {Row} row */
export function looks(row) {
  if (row.kind === "message") return `${row.from}|${row.head}|${row.text}`;
  if (row.kind === "line") return `${row.head}|${row.line?.state}|${row.line?.why}`;
  return row.text;
}

/**
 * "ann and bob joined, carl left, dora came and went": each user once, unless they left and came back.
 * @param {Map<string, Move>} happened
 */
export function noticeText(happened, most = NAMES) {
  const all = [...happened];
  /** @param {boolean} was @param {boolean} is @param {string} what */
  const those = (was, is, what) => {
    const users = all.filter(([, one]) => one.was === was && one.is === is).map(nameOf);
    return users.length > 0 ? [`${listed(users, most)} ${what}`] : [];
  };
  return [...those(false, true, "joined"), ...those(true, false, "left"), ...those(false, false, "came and went")].join(", ");
}

/**
 * The name, and another that it looks like. Both are isolated: `listed` adds the marks around them.
 * @param {[string, Move]} user
 */
function nameOf([user, { looks_like }]) {
  return looks_like ? `${user}\u2069 (not \u2068${looks_like}\u2069)\u2068` : user;
}

/** A few names, isolated for `isolated`, and the number of others. @param {string[]} users */
export function listed(users, most = NAMES) {
  const named = users.length > most ? users.slice(0, most - 1) : users;
  const parts = named.map((user) => `\u2068${user}\u2069`);
  if (named.length < users.length) parts.push(`${(users.length - named.length).toLocaleString()} others`);
  return parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;
}
