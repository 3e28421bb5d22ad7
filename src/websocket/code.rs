//! Close codes (RFC 6455 §7.4.1 and the IANA registry).

/// Done.
pub const NORMAL: u16 = 1000;
/// The peer broke the protocol.
pub const PROTOCOL: u16 = 1002;
/// A kind of data that is not taken here.
pub const UNSUPPORTED: u16 = 1003;
/// Text that is not UTF-8.
pub const INVALID_TEXT: u16 = 1007;
/// Not allowed, or too fast for too long.
pub const POLICY: u16 = 1008;
/// A message over the limit.
pub const TOO_BIG: u16 = 1009;
/// The server failed.
pub const INTERNAL: u16 = 1011;
/// The server restarts; come back.
pub const RESTART: u16 = 1012;
/// Too slow, or too full; come back later.
pub const TRY_AGAIN_LATER: u16 = 1013;
