//! Close codes (RFC 6455 §7.4.1 and the IANA registry).

/// The conversation is over.
pub const NORMAL: u16 = 1000;
/// The peer broke the protocol.
pub const PROTOCOL: u16 = 1002;
/// A kind of data that this connection does not take.
pub const UNSUPPORTED: u16 = 1003;
/// Text that is not UTF-8.
pub const INVALID_TEXT: u16 = 1007;
/// The peer may not do this, or sent too fast for too long.
pub const POLICY: u16 = 1008;
/// A message over the limit.
pub const TOO_BIG: u16 = 1009;
/// The server restarts; the client should come back.
pub const RESTART: u16 = 1012;
/// The client is too slow or the server too full; the client should come back later.
pub const TRY_AGAIN_LATER: u16 = 1013;
/// Hubbub's own (RFC 6455 §7.4.2): the token has expired. The client should come back with a fresh one.
pub const EXPIRED: u16 = 4001;
/// Hubbub's own: an operator closed the connection. The client should not come back by itself.
pub const PUT_OUT: u16 = 4002;
