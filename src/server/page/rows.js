/**
 * The rows of a room's timeline, from the room's entries and from the lines still on their way. There
 * are no elements here: a row is `{key, kind, ...}`.
 */

import { dayKey, dayName } from "./time.js";

/** Two messages of one author within this time share one heading. */
const TOGETHER = 5 * 60_000;

/** The most names in one notice. */
const NAMES = 4;

/** The rows of a room, from its oldest entry to the lines that are not sent yet. */
export function rows(room, lines, me) {
  const result = [];
  let before = null;
  const say = (message) => {
    if (before === null || dayKey(before.at) !== dayKey(message.at)) {
      result.push({ key: `day-${message.key}`, kind: "day", text: dayName(message.at) });
      before = null;
    }
    if (message.id !== undefined && message.id === room.newFrom) {
      result.push({ key: "new", kind: "new" });
      before = null;
    }
    const failed = [before, message].some((one) => one?.line?.state === "failed");
    const own = message.from === me && !message.elsewhere;
    const together = before?.from === message.from && before.own === own && message.at - before.at < TOGETHER;
    const head = !together || failed || before.looks_like !== message.looks_like;
    before = { ...message, own };
    result.push({ ...before, head });
  };
  for (const entry of room.entries) {
    if (entry.kind === "message") {
      say(entry);
    } else {
      const text = entry.kind === "notice" ? noticeText(entry.happened) : entry.text;
      result.push({ key: entry.key, kind: entry.kind, text });
      before = before && { ...before, from: null };
    }
  }
  for (const line of lines) {
    const heard = line.state !== "failed" && line.echo && room.has(line.echo);
    if (!heard) say({ kind: "line", key: `line-${line.ref}`, from: me, text: line.text, at: line.at, line });
  }
  return result;
}

/** The content of a row as text: rows with the same text look the same. */
export function looks(row) {
  const { kind, text, from, head, line } = row;
  if (kind === "message") return `${from}|${head}|${text}`;
  if (kind === "line") return `${head}|${line.state}|${line.why}`;
  return text ?? "";
}

/** "ann and bob joined · carl left" */
function noticeText(happened) {
  const groups = [];
  for (const { user, what, looks_like } of happened) {
    const group = groups.at(-1);
    // Both names are isolated: `listed` adds the marks around them.
    const name = looks_like ? `${user}\u2069 (not \u2068${looks_like}\u2069)\u2068` : user;
    if (group?.what === what) group.users.push(name);
    else groups.push({ what, users: [name] });
  }
  const shown = groups.slice(-NAMES);
  return shown.map(({ users, what }) => `${listed(users)} ${what}`).join(" · ");
}

/** A few names, isolated for `isolated`, and the number of others. */
export function listed(users) {
  const named = users.length > NAMES ? users.slice(0, NAMES - 1) : users;
  const parts = named.map((user) => `\u2068${user}\u2069`);
  if (named.length < users.length) parts.push(`${users.length - named.length} others`);
  return parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;
}
