/** The document's title: the number of unread messages, and the shown room. */

export function title(chat) {
  if (chat.user === "") return "Hubbub";
  const unread = [...chat.rooms.values()].reduce((sum, room) => sum + room.unread, 0);
  const count = unread > 0 ? `(${unread > 99 ? "99+" : unread}) ` : "";
  return `${count}${chat.active ? `${chat.active.name} · ` : ""}Hubbub`;
}
