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
      const { key, kind, happened } = entry;
      const text = kind === "notice" ? noticeText(happened) : entry.text;
      // Everybody who left is back.
      if (text === "") continue;
      result.push({ key, kind, text, happened });
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

/** "ann and bob joined, carl left, dora came and went": each user once, unless they left and came back. */
export function noticeText(happened, most = NAMES) {
  const all = [...happened];
  const those = (was, is, what) => {
    const users = all.filter(([, one]) => one.was === was && one.is === is).map(nameOf);
    return users.length > 0 ? [`${listed(users, most)} ${what}`] : [];
  };
  return [...those(false, true, "joined"), ...those(true, false, "left"), ...those(false, false, "came and went")].join(", ");
}

/** The name, and another that it looks like. Both are isolated: `listed` adds the marks around them. */
function nameOf([user, { looks_like }]) {
  return looks_like ? `${user}\u2069 (not \u2068${looks_like}\u2069)\u2068` : user;
}

/** A few names, isolated for `isolated`, and the number of others. */
export function listed(users, most = NAMES) {
  const named = users.length > most ? users.slice(0, most - 1) : users;
  const parts = named.map((user) => `\u2068${user}\u2069`);
  if (named.length < users.length) parts.push(`${(users.length - named.length).toLocaleString()} others`);
  return parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;
}
