//! Tokens, which say under which name a user may connect, to which rooms, and what for.
//!
//! A token is a JSON Web Token (RFC 7519). It is signed with HS256 and this server's secret ([`Secret`]), or by
//! another issuer whose public keys are in a file ([`KeyFile`]). Each key has one algorithm, so an attacker cannot
//! choose a weaker one. The `ring` crate computes the MACs and verifies the signatures.

pub mod secret;
pub mod key;

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

pub use self::key::KeyFile;
pub use self::secret::Secret;
use crate::message::{NameError, RoomName, UserName};
use crate::threads::lock;

/// The largest token, in bytes: as large as `--max-head` lets the head of a request become. Other issuers put all
/// roles of a user into one. A token that comes in a `renew` has no other limit.
const MAX_TOKEN: usize = 64 << 10;

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
    #[serde(skip_serializing_if = "Option::is_none", default)]
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
    fn contains(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Several(names) => names.iter().any(|one| one == name),
        }
    }
}

/// A time in seconds, perhaps with a fraction (RFC 7519 §2), rounded up.
fn numeric_date<'de, D: Deserializer<'de>, T: From<u64>>(json: D) -> Result<T, D::Error> {
    // The cast turns a number outside of the range into the nearest one inside.
    Ok((f64::deserialize(json)?.ceil() as u64).into())
}

/// The reason why a token is not valid. Only the log shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// The text is not a token.
    Malformed,
    /// No key is known for the token's algorithm and `kid`.
    NoKey,
    /// No key that may have signed the token did.
    Forged,
    /// The header demands an extension, and the server knows none.
    Critical,
    /// The token is not valid yet.
    NotYet,
    /// The token has expired.
    Expired,
    /// The token is another issuer's.
    Issuer,
    /// The token is for other services.
    Audience,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the token is malformed",
            Self::NoKey => "no key is known for the token's algorithm and kid",
            Self::Forged => "the token's signature is wrong",
            Self::Critical => "the token's header has critical parameters, and none is known here",
            Self::NotYet => "the token is not valid yet",
            Self::Expired => "the token has expired",
            Self::Issuer => "the token is not of the issuer in --token-issuer",
            Self::Audience => "the token is not for the audience in --token-audience",
        })
    }
}

impl std::error::Error for TokenError {}

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

/// The options about tokens. With a secret or with keys, every user needs a token.
#[derive(Debug, Clone, Default)]
pub struct TokenOptions {
    /// The secret of tokens that are signed with HS256; without one there are none.
    pub secret: Option<Secret>,
    /// The files with the public keys of issuers.
    pub keys: Vec<KeyFile>,
    /// The `iss` that every token must have.
    pub issuer: Option<String>,
    /// The name that the `aud` of every token must contain.
    pub audience: Option<String>,
}

impl TokenOptions {
    /// Whether every user needs a token.
    pub fn demand_tokens(&self) -> bool {
        self.secret.is_some() || !self.keys.is_empty()
    }
}

/// Verifies tokens. Its keys can be read again while it does.
#[derive(Debug)]
pub struct Verifier {
    secret: Option<Secret>,
    keys: Mutex<Arc<[KeyFile]>>,
    issuer: Option<String>,
    audience: Option<String>,
}

impl Verifier {
    /// The verifier that these options ask for; `None` if users need no token.
    pub fn new(options: &TokenOptions) -> Option<Self> {
        options.demand_tokens().then(|| Self {
            secret: options.secret.clone(),
            keys: Mutex::new(options.keys.clone().into()),
            issuer: options.issuer.clone(),
            audience: options.audience.clone(),
        })
    }

    /// Reads the files of public keys again. If one is bad, all keys stay as they are, and the error is a sentence for
    /// the operator. A connection that is open keeps its grant, also if the key of its token is gone.
    pub fn read_keys_again(&self) -> Result<(), String> {
        let files = Arc::clone(&lock(&self.keys));
        let read: Result<_, _> = files.iter().map(KeyFile::read_again).collect();
        *lock(&self.keys) = read?;
        Ok(())
    }

    /// The claims of `token`, if a key signed it and it is valid here and now.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        self.verify_at(token, now())
    }

    fn verify_at(&self, token: &str, now: u64) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |part: &str| {
            BASE64URL_NOPAD
                .decode(part.as_bytes())
                .map_err(|_| TokenError::Malformed)
        };
        let header: Map<String, Value> =
            serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed)?;
        // RFC 7515 §4.1.11.
        if header.contains_key("crit") {
            return Err(TokenError::Critical);
        }
        // Before the claims are parsed.
        self.check_signature(&header, signed, &decode(signature)?)?;
        let claims: Claims =
            serde_json::from_slice(&decode(claims)?).map_err(|_| TokenError::Malformed)?;
        if claims.exp <= now {
            return Err(TokenError::Expired);
        }
        if claims.nbf.is_some_and(|begin| now < begin) {
            return Err(TokenError::NotYet);
        }
        if self.issuer.is_some() && claims.iss != self.issuer {
            return Err(TokenError::Issuer);
        }
        let is_for = |name: &String| claims.aud.as_ref().is_some_and(|aud| aud.contains(name));
        if !self.audience.as_ref().is_none_or(is_for) {
            return Err(TokenError::Audience);
        }
        Ok(claims)
    }

    /// Whether a key signed the token. HS256 is for the secret alone, so nobody can sign with a public key as if it
    /// were a secret.
    fn check_signature(
        &self,
        header: &Map<String, Value>,
        signed: &str,
        signature: &[u8],
    ) -> Result<(), TokenError> {
        let text = |name| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(TokenError::Malformed),
        };
        let (algorithm, kid) = (text("alg")?.unwrap_or_default(), text("kid")?);
        let forged_unless = |is_signed| match is_signed {
            true => Ok(()),
            false => Err(TokenError::Forged),
        };
        if algorithm == "HS256" {
            let secret = self.secret.as_ref().ok_or(TokenError::NoKey)?;
            return forged_unless(secret.verifies(signed, signature));
        }
        let files = Arc::clone(&lock(&self.keys));
        let keys = files.iter().flat_map(KeyFile::keys);
        let mut keys = keys.filter(|key| key.fits(algorithm, kid)).peekable();
        keys.peek().ok_or(TokenError::NoKey)?;
        forged_unless(keys.any(|key| key.verifies(signed, signature)))
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new(&"s".repeat(32)).expect("it is long enough")
    }

    /// A verifier with this secret and no key.
    fn by(secret: Secret) -> Verifier {
        let options = TokenOptions {
            secret: Some(secret),
            ..TokenOptions::default()
        };
        Verifier::new(&options).expect("it has a secret")
    }

    fn claims() -> Claims {
        let rooms = vec!["lobby".parse().expect("a name")];
        Claims::new(
            "alice".parse().expect("a name"),
            Duration::from_secs(60),
            Some(rooms),
        )
    }

    /// A token with this header and these claims, as another library may sign it.
    fn signed(header: &str, claims: &str) -> String {
        let part = |json: &str| BASE64URL_NOPAD.encode(json.as_bytes());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = BASE64URL_NOPAD.encode(secret().sign(&signed).as_ref());
        format!("{signed}.{signature}")
    }

    #[test]
    fn signed_claims_are_verified() {
        let token = claims().sign(&secret());
        let found = by(secret()).verify(&token).expect("it is valid");
        assert_eq!(found, claims());
        assert!(found.allows(&RoomName::lobby()));
        assert!(!found.allows(&"ops".parse().expect("a name")));
    }

    #[test]
    fn a_token_of_another_library_is_taken() {
        // From RFC 7515 §A.1's way of writing, made with Python's hmac and base64 modules.
        let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
                     eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMH0.\
                     SIGNATURE";
        let signed = token.rsplit_once('.').expect("three parts").0;
        let signature = BASE64URL_NOPAD.encode(secret().sign(signed).as_ref());
        let token = format!("{signed}.{signature}");
        let found = by(secret()).verify(&token).expect("it is valid");
        assert_eq!(found.exp, 4_102_444_800);
        assert_eq!(found.rooms, None);
    }

    #[test]
    fn a_changed_token_is_not_valid() {
        let good = claims().sign(&secret());
        let other = Secret::new(&"t".repeat(32)).expect("it is long enough");
        assert_eq!(by(other).verify(&good), Err(TokenError::Forged));
        let exp = claims().exp;
        assert_eq!(by(secret()).verify_at(&good, exp), Err(TokenError::Expired));
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("text");
            assert!(by(secret()).verify(&changed).is_err(), "{changed}");
        }
        for bad in ["", ".", "..", "a.b", "a.b.c.d", &"x".repeat(5000)] {
            assert_eq!(by(secret()).verify(bad), Err(TokenError::Malformed));
        }
    }

    #[test]
    fn no_other_algorithm_is_taken() {
        let claims = r#"{"sub":"alice","exp":4102444800}"#;
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"HS512"}"#,
            r#"{"alg":"hs256"}"#,
        ] {
            let token = signed(header, claims);
            assert_eq!(by(secret()).verify(&token), Err(TokenError::NoKey));
            let unsigned = token.rsplit_once('.').expect("three parts").0;
            assert!(by(secret()).verify(&format!("{unsigned}.")).is_err());
        }
    }

    #[test]
    fn times_may_have_fractions_and_a_beginning() {
        let header = r#"{"alg":"HS256"}"#;
        let at = |claims: &str, now: u64| {
            let token = signed(header, &format!(r#"{{"sub":"alice",{claims}}}"#));
            by(secret()).verify_at(&token, now).map(|_| ())
        };
        assert_eq!(at(r#""exp":10.5"#, 10), Ok(()));
        assert_eq!(at(r#""exp":10.5"#, 11), Err(TokenError::Expired));
        assert_eq!(at(r#""exp":1e99"#, 10), Ok(()));
        assert_eq!(at(r#""exp":-1"#, 0), Err(TokenError::Expired));
        assert_eq!(at(r#""exp":"11""#, 10), Err(TokenError::Malformed));
        assert_eq!(at(r#""exp":20,"nbf":11"#, 10), Err(TokenError::NotYet));
        assert_eq!(at(r#""exp":20,"nbf":10.5"#, 10), Err(TokenError::NotYet));
        assert_eq!(at(r#""exp":20,"nbf":11"#, 11), Ok(()));
        assert_eq!(at(r#""exp":20,"nbf":null"#, 11), Err(TokenError::Malformed));
    }

    #[test]
    fn a_header_that_demands_an_extension_is_refused() {
        for crit in [r#"["exp"]"#, r#"["b64"]"#, "[]", "null"] {
            let header = format!(r#"{{"alg":"HS256","crit":{crit},"b64":true}}"#);
            let token = signed(&header, r#"{"sub":"alice","exp":4102444800}"#);
            let found = by(secret()).verify(&token);
            assert_eq!(found, Err(TokenError::Critical), "{crit}");
        }
    }
}
