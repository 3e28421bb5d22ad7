/** The server's events, as far as the page reads them. Their meaning is in `src/protocol/mod.rs`. */

export interface Message {
  id: string;
  from: string;
  text: string;
  /** In milliseconds since 1970. */
  at: number;
  looks_like?: string;
}

export interface Limits {
  max_message: number;
  rooms: number;
  page: number;
}

export interface ListedRoom {
  room: string;
  members: number;
  at?: number;
}

/** The fields of each type of event. */
export interface Events {
  welcome: { limits: Limits; readonly?: boolean };
  room: {
    room: string;
    members: string[];
    alike?: string[][];
    messages: Message[];
    recovered: boolean;
    anew?: boolean;
    last: string | null;
  };
  parted: { room: string; reason?: string };
  history: { room: string; messages: Message[]; more: boolean };
  members: { room: string; members: string[]; alike?: string[][] };
  rooms: { rooms: ListedRoom[]; more: boolean };
  message: Message & { room: string };
  deleted: { room: string; ids?: string[]; up_to?: string };
  joined: { room: string; user: string; looks_like?: string };
  left: { room: string; user: string; looks_like?: undefined };
  typing: { room: string; user: string };
  gap: { room: string; before: string | null };
  sent: { room: string; ref: string; id: string };
  expiring: { expires_in_ms: number };
  renewed: { readonly?: boolean };
  closing: { reason: string; retry_after_ms: number };
  error: { code: string; message: string; ref?: string; room?: string; retry: boolean; retry_after_ms?: number };
}

export type ServerEvent = { [Type in keyof Events]: { type: Type; room?: string } & Events[Type] }[keyof Events];

/** The type of event that answers each type of request. */
export interface Answers {
  join: "room";
  leave: "parted";
  history: "history";
  members: "members";
  rooms: "rooms";
}

/** What answers a request: its event, or the server's error. */
export type Answer<Request extends keyof Answers> =
  | ({ type: Answers[Request] } & Events[Answers[Request]])
  | ({ type: "error" } & Events["error"]);
