/**
 * A name that is in use: by another tab of this browser, which the tabs tell each other, or by somebody
 * else. Without tokens anybody can take any name.
 */

import { membersUrl } from "./names.js";

/** The time for an answer of the server, and of the other tabs. Without one, nothing is said. */
const SERVER_WITHIN = 2_000;
const TABS_WITHIN = 200;

const tabs = new BroadcastChannel("hubbub.tabs");

/**
 * Answers the other tabs of this browser; `isHere(name, room)` tells of this one.
 * @param {(name: string, room: string) => boolean} isHere
 */
export function answerTabs(isHere) {
  tabs.addEventListener("message", ({ data }) => {
    if (data.asked && isHere(data.name, data.room)) tabs.postMessage({ ...data, asked: false });
  });
}

/**
 * Whether somebody else is in the room under this name. To be asked before entering.
 * @param {string} name
 * @param {string} room
 * @returns {Promise<boolean>}
 */
export async function isInUse(name, room) {
  try {
    const signal = AbortSignal.timeout(SERVER_WITHIN);
    const answer = await fetch(membersUrl(room), { cache: "no-store", signal });
    const { members } = await answer.json();
    return members.includes(name) && !(await isInOtherTab(name, room));
  } catch {
    return false;
  }
}

/** @param {string} name @param {string} room @returns {Promise<boolean>} */
function isInOtherTab(name, room) {
  return new Promise((resolve) => {
    /** @param {MessageEvent} event */
    const hear = ({ data }) => !data.asked && data.name === name && data.room === room && end(true);
    /** @param {boolean} found */
    const end = (found) => {
      tabs.removeEventListener("message", hear);
      resolve(found);
    };
    tabs.addEventListener("message", hear);
    tabs.postMessage({ asked: true, name, room });
    setTimeout(() => end(false), TABS_WITHIN);
  });
}
