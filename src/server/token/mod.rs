//! Tokens, which say under which name a user may connect, to which rooms, and what for.
//!
//! A token is a JSON Web Token (RFC 7519). It is signed with HS256 and this server's [`secret`], or by another issuer
//! whose public [`key`] is in a file. Each key has one algorithm, so an attacker cannot choose a weaker one. The `ring`
//! crate computes the MACs and verifies the signatures. [`claims`] are what a token says, and the [`verifier`] judges
//! it.

mod secret;
mod key;
mod claims;
mod verifier;

pub use self::claims::{Audience, Claims, RoomPattern, claimed_user};
pub use self::key::KeyFile;
pub use self::secret::Secret;
pub use self::verifier::{TokenError, TokenOptions, Verifier};
