//! The secret that signs and verifies tokens with HS256.

use std::fmt;

use data_encoding::HEXLOWER;
use ring::hmac;

/// Shorter secrets can be guessed offline from one token (RFC 7518 §3.2 asks for 32 bytes).
const MIN_SECRET: usize = 32;

/// A secret: of tokens, of operators, or of the posts to webhooks. Its debug output hides it.
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl Secret {
    /// A secret of at least [`MIN_SECRET`] bytes.
    pub fn new(secret: &str) -> Result<Self, String> {
        if secret.len() < MIN_SECRET {
            return Err(format!("a secret has at least {MIN_SECRET} bytes"));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())))
    }

    /// The same for a secret that is sent in a header field (RFC 9110 §5.5): on one line, with no space around it.
    pub fn of_operators(secret: &str) -> Result<Self, String> {
        if secret.contains(char::is_control) || secret.trim() != secret {
            return Err("a header field cannot carry this secret".to_owned());
        }
        Self::new(secret)
    }

    /// The MAC of a body, in hexadecimal digits.
    pub fn signature(&self, body: &str) -> String {
        HEXLOWER.encode(self.sign(body).as_ref())
    }

    /// The MAC of a token's first two parts.
    pub(super) fn sign(&self, signed: &str) -> hmac::Tag {
        hmac::sign(&self.0, signed.as_bytes())
    }

    /// Whether this is the MAC of a token's first two parts. It is compared in constant time.
    pub(super) fn verifies(&self, signed: &str, mac: &[u8]) -> bool {
        hmac::verify(&self.0, signed.as_bytes(), mac).is_ok()
    }
}

/// Compares MACs, so the time does not tell how much of a secret is right.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        const SIGNED: &str = "the same secret signs alike";
        self.verifies(SIGNED, other.sign(SIGNED).as_ref())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_secret_is_refused_and_no_secret_is_shown() {
        assert!(Secret::new("short").is_err());
        let secret = Secret::new(&"s".repeat(MIN_SECRET)).expect("it is long enough");
        assert_eq!(format!("{secret:?}"), "Secret(hidden)");
    }

    #[test]
    fn a_secret_of_operators_fits_into_a_header_field() {
        let long = "s".repeat(MIN_SECRET);
        assert!(Secret::of_operators(&format!("{long} {long}")).is_ok());
        for bad in [format!("{long}\n{long}"), format!(" {long}")] {
            assert!(Secret::of_operators(&bad).is_err(), "{bad:?}");
        }
    }
}
