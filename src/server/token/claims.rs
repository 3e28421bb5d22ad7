//! The claims of a token: what it says about its user.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Deserializer, Serialize};

use super::secret::Secret;
use crate::message::{NameError, RoomName, UserName};

/// The claims of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The name of the user.
    pub sub: UserName,
    /// The end of the token, in seconds since the Unix epoch.
    #[serde(deserialize_with = "numeric_date")]
    pub exp: u64,
    /// The beginning of the token. Without it the token is valid at any time before `exp`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "numeric_date"
    )]
    pub nbf: Option<u64>,
    /// The rooms that the user may join; `None` for all.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "listed"
    )]
    pub rooms: Option<Vec<RoomPattern>>,
    /// Whether the user may join and read, and say nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub readonly: bool,
    /// The issuer of the token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub iss: Option<String>,
    /// The services that the token is for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub aud: Option<Audience>,
}

/// The rooms of one entry of a token: one room by its name, or, if the entry ends in `*`, all rooms whose names begin
/// with what is before. So `*` means all rooms, and a room whose own name ends in `*` cannot be allowed alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoomPattern(RoomName);

impl RoomPattern {
    /// Whether this room is meant.
    pub fn matches(&self, room: &RoomName) -> bool {
        match self.0.as_str().strip_suffix('*') {
            Some(prefix) => room.as_str().starts_with(prefix),
            None => self.0 == *room,
        }
    }
}

impl FromStr for RoomPattern {
    type Err = NameError;

    fn from_str(pattern: &str) -> Result<Self, NameError> {
        pattern.parse().map(Self)
    }
}

/// The services that a token is for: a name, or a list of names (RFC 7519 §4.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// A single one.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl Audience {
    /// Whether this name is one of them.
    pub(super) fn contains(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Several(names) => names.iter().any(|one| one == name),
        }
    }
}

/// A list. `null` is none: an issuer that has no rooms for a user must not open all of them.
fn listed<'de, D: Deserializer<'de>>(json: D) -> Result<Option<Vec<RoomPattern>>, D::Error> {
    Vec::deserialize(json).map(Some)
}

/// A time in seconds, perhaps with a fraction (RFC 7519 §2), rounded up.
fn numeric_date<'de, D: Deserializer<'de>, T: From<u64>>(json: D) -> Result<T, D::Error> {
    // The cast turns a number outside of the range into the nearest one inside.
    Ok((f64::deserialize(json)?.ceil() as u64).into())
}

impl Claims {
    /// The claims for `user`, valid from now on for `life`, and without any condition.
    pub fn new(user: UserName, life: Duration, rooms: Option<Vec<RoomPattern>>) -> Self {
        Self {
            sub: user,
            exp: now().saturating_add(life.as_secs()),
            nbf: None,
            rooms,
            readonly: false,
            iss: None,
            aud: None,
        }
    }

    /// The signed token.
    pub fn sign(&self, secret: &Secret) -> String {
        let part = |json: String| BASE64URL_NOPAD.encode(json.as_bytes());
        let header = part(r#"{"alg":"HS256","typ":"JWT"}"#.to_owned());
        let claims = serde_json::to_string(self).expect("claims are plain values");
        let signed = format!("{header}.{}", part(claims));
        let signature = BASE64URL_NOPAD.encode(secret.sign(&signed).as_ref());
        format!("{signed}.{signature}")
    }

    /// Whether the token allows this room.
    pub fn allows(&self, room: &RoomName) -> bool {
        self.rooms
            .as_ref()
            .is_none_or(|rooms| rooms.iter().any(|one| one.matches(room)))
    }
}

/// The user that a token names. Nothing is verified: this is for a client, whose server verifies the token.
pub fn claimed_user(token: &str) -> Option<UserName> {
    #[derive(Deserialize)]
    struct Claimed {
        sub: UserName,
    }
    let claims = BASE64URL_NOPAD.decode(token.split('.').nth(1)?.as_bytes());
    let claimed = serde_json::from_slice::<Claimed>(&claims.ok()?);
    claimed.ok().map(|claimed| claimed.sub)
}

/// The time, in seconds since the Unix epoch.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_ends_in_a_star_allows_all_rooms_that_begin_alike() {
        let allows = |entry: &str, room: &str| {
            let pattern: RoomPattern = entry.parse().expect(entry);
            pattern.matches(&room.parse().expect(room))
        };
        assert!(allows("team-*", "team-red"));
        assert!(allows("team-*", "team-"));
        assert!(!allows("team-*", "team"));
        assert!(!allows("team-*", "Team-red"));
        assert!(!allows("team-*", "a team-red"));
        assert!(allows("*", "lobby"));
        assert!(!allows("a*b", "axb"));
        assert!(allows("a*b", "a*b"));
        assert!(allows("a**", "a*"));
        assert!(!allows("a**", "ab"));
        assert!(allows("a*", "a*"));
        assert!("* x".parse::<RoomPattern>().is_err());
        assert!("a/*".parse::<RoomPattern>().is_err());
        assert!(serde_json::from_str::<RoomPattern>(r#""a/*""#).is_err());
    }
}
