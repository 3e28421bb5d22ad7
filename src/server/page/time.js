/** Times and days, in the user's language and time zone. */

const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const DAY_OF_YEAR = new Intl.DateTimeFormat(undefined, { dateStyle: "full" });
const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const AGO = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "narrow" });
/** @type {[Intl.RelativeTimeFormatUnit, number][]} Each unit, and its minutes. */
const UNITS = [["day", 1_440], ["hour", 60]];

/** @param {number} at */
export const clock = (at) => CLOCK.format(at);

/** The short form of a time, for rows whose heading shows the full one. @param {number} at */
export function shortClock(at) {
  const parts = CLOCK.formatToParts(at).filter(({ type }) => type !== "dayPeriod");
  return parts.map(({ value }) => value).join("").trim();
}

/** @param {number} at */
export const full = (at) => FULL.format(at);

/** The time since then, in the largest unit that fits: "3 min. ago". @param {number} at */
export function ago(at, now = Date.now()) {
  const minutes = Math.max(0, (now - at) / 60_000);
  const [unit, size] = UNITS.find(([, length]) => minutes >= length) ?? ["minute", 1];
  return AGO.format(-Math.floor(minutes / size), unit);
}

/** A key for a day, the same for all times of it. @param {number} at */
export const dayKey = (at) => new Date(at).toDateString();

/** "Today", "Yesterday", or the date. @param {number} at */
export function dayName(at, now = Date.now()) {
  const day = new Date(at);
  for (const back of [0, 1]) {
    const other = new Date(now);
    other.setDate(other.getDate() - back);
    if (day.toDateString() === other.toDateString()) {
      const word = RELATIVE.format(-back, "day");
      return word.charAt(0).toLocaleUpperCase() + word.slice(1);
    }
  }
  const sameYear = day.getFullYear() === new Date(now).getFullYear();
  return (sameYear ? DAY : DAY_OF_YEAR).format(day);
}
