/**
 * Tells the user of mentions while they look elsewhere, by a notification of the browser and by a sound.
 * Both are off until the user turns them on. Of several tabs one tells.
 */

/** @import { Chat } from "./chat.js" */
/** @import { Room, Told } from "./room.js" */

import { byId, setText } from "./dom.js";
import { BEGINNING, compare } from "./ids.js";
import { loadTold, loadUser, saveTold, saveUser } from "./store.js";

/** The time in which a tab that shows the room reads the message, and the others hear of it. */
const GRACE = 1_000;

/** The time within which all tabs see a change of the storage. */
const STORED_WITHIN = 10_000;

/** The most characters of a message in a notification. */
const LONG = 200;

/** The sound: its pitch in Hz, its length in seconds, and its loudness of 1. */
const PITCH = 660;
const LENGTH = 0.15;
const LOUDNESS = 0.08;

export class Notifier {
  #chat;
  #choose;
  /** @type {AudioContext | null} */
  #audio = null;

  /** `choose(name)` shows a room. @param {Chat} chat @param {(name: string) => void} choose */
  constructor(chat, choose) {
    this.#chat = chat;
    this.#choose = choose;
    byId("notify").addEventListener("click", () => this.#toggleNotify());
    byId("sound").addEventListener("click", () => this.#toggleSound());
    byId("mute").addEventListener("click", () => chat.active && chat.mute(chat.active));
  }

  show() {
    const { user, active } = this.#chat;
    const { sound } = loadUser(user) ?? {};
    setText(byId("notify"), `Notify me of mentions: ${this.#state()}`);
    setText(byId("sound"), `Sound: ${sound ? "on" : "off"}`);
    const mute = byId("mute");
    mute.hidden = !active;
    mute.setAttribute("aria-pressed", String(active?.muted ?? false));
    mute.title = active?.muted ? "This room is muted" : "Mute this room";
  }

  /**
   * A message mentions the user, who does not look at its room in this tab.
   * @param {Room} room
   * @param {Told} message
   */
  mentioned(room, message) {
    if (!room.muted) setTimeout(() => this.#tell(room, message), GRACE);
  }

  /** @param {Room} room @param {Told} message */
  async #tell(room, message) {
    const { user, rooms } = this.#chat;
    if (rooms.get(room.name) !== room || compare(message.id, room.read ?? BEGINNING) <= 0) return;
    const { notify, sound } = loadUser(user) ?? {};
    if (!(notify || sound) || !(await isFirst(user, room.name, message.id))) return;
    if (notify) this.#notify(room, message);
    if (sound) this.#beep();
  }

  /** @param {Room} room @param {Told} message */
  #notify(room, { from, text }) {
    const body = text.length > LONG ? `${text.slice(0, LONG)}…` : text;
    // One for each room; and the operating system's sound is not the one that the user turned on.
    const options = { body, tag: `${this.#chat.user}/${room.name}`, renotify: true, silent: true };
    try {
      const notification = new Notification(`${from} in ${room.name}`, options);
      notification.onclick = () => {
        window.focus();
        this.#choose(room.name);
        notification.close();
      };
    } catch {
      // Some browsers on phones have the name, and no notifications.
    }
  }

  #state() {
    if (!isSecureContext) return "only over https";
    if (!("Notification" in window)) return "not in this browser";
    if (Notification.permission === "granted") return loadUser(this.#chat.user)?.notify ? "on" : "off";
    return Notification.permission === "denied" ? "blocked by the browser" : "off";
  }

  async #toggleNotify() {
    if (!("Notification" in window)) return;
    const { user } = this.#chat;
    const notify = this.#state() !== "on" && (await Notification.requestPermission()) === "granted";
    saveUser(user, { notify });
    this.show();
  }

  #toggleSound() {
    const sound = !loadUser(this.#chat.user)?.sound;
    saveUser(this.#chat.user, { sound });
    // Lets the user hear it, and the browser know that they asked for it.
    if (sound) this.#beep();
    this.show();
  }

  /** Silent until the user has touched the page: browsers want it so. */
  #beep() {
    this.#audio ??= new AudioContext();
    this.#audio.resume();
    const { currentTime, destination } = this.#audio;
    const oscillator = this.#audio.createOscillator();
    const volume = this.#audio.createGain();
    oscillator.frequency.value = PITCH;
    volume.gain.setValueAtTime(LOUDNESS, currentTime);
    volume.gain.exponentialRampToValueAtTime(LOUDNESS / 100, currentTime + LENGTH);
    oscillator.connect(volume).connect(destination);
    oscillator.start();
    oscillator.stop(currentTime + LENGTH);
  }
}

/**
 * Whether no tab has told of this message yet, or of a later one in its room. Notes that this one does.
 * @param {string} user
 * @param {string} room
 * @param {string} id
 */
function isFirst(user, room, id) {
  if (compare(id, loadTold(user, room) ?? BEGINNING) <= 0) return false;
  saveTold(user, room, id);
  // Without https there are no locks, and no notifications either.
  if (!navigator.locks) return true;
  // Other tabs see the storage's change with a delay. Until then they see the lock, which is held for that long.
  return new Promise((resolve) => {
    const name = `hubbub.told ${JSON.stringify([user, room, id])}`;
    navigator.locks.request(name, { ifAvailable: true }, (lock) => {
      resolve(lock !== null);
      return lock && new Promise((release) => setTimeout(release, STORED_WITHIN));
    });
  });
}
