//! The secret that signs and verifies tokens with HS256.

use std::fmt;

use ring::hmac;

/// Shorter secrets can be guessed offline from one token (RFC 7518 §3.2 asks for 32 bytes).
const MIN_SECRET: usize = 32;

/// The secret that signs tokens. Its debug output hides it.
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

    /// The MAC of a token's first two parts.
    pub(super) fn sign(&self, signed: &str) -> hmac::Tag {
        hmac::sign(&self.0, signed.as_bytes())
    }

    /// Whether this is the MAC of a token's first two parts. It is compared in constant time.
    pub(super) fn verifies(&self, signed: &str, mac: &[u8]) -> bool {
        hmac::verify(&self.0, signed.as_bytes(), mac).is_ok()
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
}
