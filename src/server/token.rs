//! Tokens, which say under which name a user may connect, and to which rooms.
//!
//! A token is a JSON Web Token (RFC 7519), signed with HS256. There is one algorithm and one secret, so an
//! attacker cannot choose a weaker one. RustCrypto computes the MAC and compares it in constant time.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::message::{RoomName, UserName};

/// Shorter secrets can be guessed offline from one token (RFC 7518 §3.2 asks for 32 bytes).
pub const MIN_SECRET: usize = 32;

/// The largest token. A token that the secret signed is smaller.
const MAX_TOKEN: usize = 4096;

/// A secret: the one that signs tokens, or the operators'. Its debug output hides it.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret of at least [`MIN_SECRET`] bytes.
    pub fn new(secret: &str) -> Result<Self, String> {
        if secret.len() < MIN_SECRET {
            return Err(format!("a secret has at least {MIN_SECRET} bytes"));
        }
        Ok(Self(secret.as_bytes().to_vec()))
    }

    /// The same for a secret that is sent in a header field (RFC 9110 §5.5): on one line, with no space around it.
    pub fn of_operators(secret: &str) -> Result<Self, String> {
        if secret.contains(char::is_control) || secret.trim() != secret {
            return Err("a header field cannot carry this secret".to_owned());
        }
        Self::new(secret)
    }

    fn mac(&self, signed: &str) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(signed.as_bytes());
        mac
    }
}

/// Compares MACs, so the time does not tell how much of a secret is right.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let mac = |secret: &Self| self.mac(&String::from_utf8_lossy(&secret.0));
        let own = mac(self).finalize().into_bytes();
        mac(other).verify_slice(&own).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

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
    pub rooms: Option<Vec<RoomName>>,
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
    /// The token is signed with another algorithm or another secret.
    Forged,
    /// The header demands an extension, and the server knows none.
    Critical,
    /// The token is not valid yet.
    NotYet,
    /// The token has expired.
    Expired,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the token is malformed",
            Self::Forged => "the token's signature is wrong",
            Self::Critical => "the token's header has critical parameters, and none is known here",
            Self::NotYet => "the token is not valid yet",
            Self::Expired => "the token has expired",
        })
    }
}

impl std::error::Error for TokenError {}

impl Claims {
    /// The claims for `user`, valid from now on for `life`.
    pub fn new(user: UserName, life: Duration, rooms: Option<Vec<RoomName>>) -> Self {
        Self {
            sub: user,
            exp: now().saturating_add(life.as_secs()),
            nbf: None,
            rooms,
        }
    }

    /// The signed token.
    pub fn sign(&self, secret: &Secret) -> String {
        let part = |json: String| BASE64URL_NOPAD.encode(json.as_bytes());
        let header = part(r#"{"alg":"HS256","typ":"JWT"}"#.to_owned());
        let claims = serde_json::to_string(self).expect("claims are plain values");
        let signed = format!("{header}.{}", part(claims));
        let signature = secret.mac(&signed).finalize().into_bytes();
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
    }

    /// The claims of `token`, if it is signed with `secret` and valid now.
    pub fn verify(token: &str, secret: &Secret) -> Result<Self, TokenError> {
        Self::verify_at(token, secret, now())
    }

    fn verify_at(token: &str, secret: &Secret, now: u64) -> Result<Self, TokenError> {
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
        if header.get("alg").and_then(Value::as_str) != Some("HS256") {
            return Err(TokenError::Forged);
        }
        // RFC 7515 §4.1.11.
        if header.contains_key("crit") {
            return Err(TokenError::Critical);
        }
        // Compared in constant time, and before the claims are parsed.
        secret
            .mac(signed)
            .verify_slice(&decode(signature)?)
            .map_err(|_| TokenError::Forged)?;
        let claims: Self =
            serde_json::from_slice(&decode(claims)?).map_err(|_| TokenError::Malformed)?;
        if claims.exp <= now {
            return Err(TokenError::Expired);
        }
        if claims.nbf.is_some_and(|begin| now < begin) {
            return Err(TokenError::NotYet);
        }
        Ok(claims)
    }

    /// Whether the token allows this room.
    pub fn allows(&self, room: &RoomName) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| rooms.contains(room))
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

    fn claims() -> Claims {
        let rooms = vec![RoomName::lobby()];
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
        let signature = secret().mac(&signed).finalize().into_bytes();
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
    }

    #[test]
    fn signed_claims_are_verified() {
        let token = claims().sign(&secret());
        let found = Claims::verify(&token, &secret()).expect("it is valid");
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
        let signature = secret().mac(signed).finalize().into_bytes();
        let token = format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature));
        let found = Claims::verify(&token, &secret()).expect("it is valid");
        assert_eq!(found.exp, 4_102_444_800);
        assert_eq!(found.rooms, None);
    }

    #[test]
    fn a_changed_token_is_not_valid() {
        let good = claims().sign(&secret());
        let other = Secret::new(&"t".repeat(32)).expect("it is long enough");
        assert_eq!(Claims::verify(&good, &other), Err(TokenError::Forged));
        let exp = claims().exp;
        assert_eq!(
            Claims::verify_at(&good, &secret(), exp),
            Err(TokenError::Expired)
        );
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("text");
            assert!(Claims::verify(&changed, &secret()).is_err(), "{changed}");
        }
        for bad in ["", ".", "..", "a.b", "a.b.c.d", &"x".repeat(5000)] {
            assert_eq!(Claims::verify(bad, &secret()), Err(TokenError::Malformed));
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
            assert_eq!(Claims::verify(&token, &secret()), Err(TokenError::Forged));
            let unsigned = token.rsplit_once('.').expect("three parts").0;
            assert!(Claims::verify(&format!("{unsigned}."), &secret()).is_err());
        }
    }

    #[test]
    fn times_may_have_fractions_and_a_beginning() {
        let header = r#"{"alg":"HS256"}"#;
        let at = |claims: &str, now: u64| {
            let token = signed(header, &format!(r#"{{"sub":"alice",{claims}}}"#));
            Claims::verify_at(&token, &secret(), now).map(|_| ())
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
            let found = Claims::verify(&token, &secret());
            assert_eq!(found, Err(TokenError::Critical), "{crit}");
        }
    }

    #[test]
    fn a_short_secret_is_refused_and_no_secret_is_shown() {
        assert!(Secret::new("short").is_err());
        assert_eq!(format!("{:?}", secret()), "Secret(hidden)");
    }
}
