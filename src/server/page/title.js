/** @import { Chat } from "./chat.js" */

/**
 * The document's title: the number of unread mentions, or else a mark for unread messages, and the shown
 * room. A muted room counts for nothing here.
 */

/** @param {Chat} chat */
export function title(chat) {
  if (chat.user === "") return "Hubbub";
  const loud = [...chat.rooms.values()].filter(({ muted }) => !muted);
  const mentions = loud.reduce((sum, room) => sum + room.mentions, 0);
  const unread = loud.some((room) => room.unread > 0) ? "• " : "";
  const count = mentions > 0 ? `(${mentions > 99 ? "99+" : mentions}) ` : unread;
  return `${count}${chat.active ? `${chat.active.name} · ` : ""}Hubbub`;
}
