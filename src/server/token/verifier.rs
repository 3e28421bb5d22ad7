//! The verifier of tokens: who signed a token, whether it is valid now, and whether it is for this server.

use std::fmt;
use std::sync::{Arc, Mutex};

use data_encoding::BASE64URL_NOPAD;
use log::info;
use serde_json::{Map, Value};

use super::claims::{Claims, now};
use super::key::KeyFile;
use super::secret::Secret;
use crate::threads::lock;

/// The largest token, in bytes: as large as `--max-head` lets the head of a request become, since other issuers put all
/// roles of a user into it. The head bounds the tokens of requests, and this those of renewals.
const MAX_TOKEN: usize = 64 << 10;

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
        options.demand_tokens().then(|| {
            log_keys(&options.keys);
            Self {
                secret: options.secret.clone(),
                keys: Mutex::new(options.keys.clone().into()),
                issuer: options.issuer.clone(),
                audience: options.audience.clone(),
            }
        })
    }

    /// Whether there are files that [can be read again](Self::read_keys_again).
    pub fn has_files(&self) -> bool {
        !lock(&self.keys).is_empty()
    }

    /// Reads the files of public keys again. If one is bad, all keys stay as they are, and the error is a sentence for
    /// the operator. A connection that is open keeps its grant, also if the key of its token is gone.
    pub fn read_keys_again(&self) -> Result<(), String> {
        let files = Arc::clone(&lock(&self.keys));
        let read: Result<Arc<[_]>, _> = files.iter().map(KeyFile::read_again).collect();
        let read = read?;
        log_keys(&read);
        *lock(&self.keys) = read;
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

/// A set may have keys that are skipped, so the operator is told how many are in use.
fn log_keys(files: &[KeyFile]) {
    for file in files {
        info!("{file} has {} keys that verify tokens", file.keys().len());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;
    use crate::message::RoomName;

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

    /// A token that this key of Ed25519 signed.
    fn signed_by(key: &Ed25519KeyPair, header: &str, claims: &str) -> String {
        let part = |json: &str| BASE64URL_NOPAD.encode(json.as_bytes());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = BASE64URL_NOPAD.encode(key.sign(signed.as_bytes()).as_ref());
        format!("{signed}.{signature}")
    }

    fn key(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("32 bytes")
    }

    /// A set with the public half of a key.
    fn jwks(key: &Ed25519KeyPair, kid: &str) -> String {
        let x = BASE64URL_NOPAD.encode(key.public_key().as_ref());
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{x}"}}]}}"#)
    }

    const HEADER: &str = r#"{"alg":"EdDSA"}"#;
    const ALICE: &str = r#"{"sub":"alice","exp":4102444800}"#;

    #[test]
    fn keys_are_read_again_and_stay_as_they_are_when_a_file_is_bad() {
        let file = std::env::temp_dir().join(format!("hubbub-keys-{}", std::process::id()));
        let write = |text: &str| std::fs::write(&file, text).expect("a file");
        let (old, new) = (key(1), key(2));
        write(&jwks(&old, "old"));
        let options = TokenOptions {
            keys: vec![KeyFile::read(&file).expect("it has a key")],
            ..TokenOptions::default()
        };
        let verifier = Verifier::new(&options).expect("it has a key");
        let by = |key| verifier.verify(&signed_by(key, HEADER, ALICE)).map(|_| ());
        let with_kid = |kid: &str| {
            let header = format!(r#"{{"alg":"EdDSA","kid":{kid}}}"#);
            verifier
                .verify(&signed_by(&new, &header, ALICE))
                .map(|_| ())
        };
        assert_eq!(by(&old), Ok(()));
        assert_eq!(by(&new), Err(TokenError::Forged));
        for bad in ["", r#"{"keys":[]}"#, "garbage"] {
            write(bad);
            let why = verifier.read_keys_again().expect_err(bad);
            assert!(why.contains(&file.display().to_string()), "{why}");
            assert_eq!(by(&old), Ok(()));
        }
        write(&jwks(&new, "new"));
        assert_eq!(verifier.read_keys_again(), Ok(()));
        assert_eq!(by(&old), Err(TokenError::Forged));
        assert_eq!(by(&new), Ok(()));
        assert_eq!(with_kid(r#""new""#), Ok(()));
        assert_eq!(with_kid(r#""old""#), Err(TokenError::NoKey));
        assert_eq!(with_kid("1"), Err(TokenError::Malformed));
        std::fs::remove_file(&file).expect("it is there");
        assert!(verifier.read_keys_again().is_err());
        assert_eq!(by(&new), Ok(()));
    }

    #[test]
    fn the_issuer_and_the_audience_are_demanded_if_they_are_given() {
        let verifier = |issuer: Option<&str>, audience: Option<&str>| {
            let options = TokenOptions {
                secret: Some(secret()),
                issuer: issuer.map(str::to_owned),
                audience: audience.map(str::to_owned),
                ..TokenOptions::default()
            };
            Verifier::new(&options).expect("it has a secret")
        };
        let found = |verifier: &Verifier, claims: &str| {
            let claims = format!(r#"{{"sub":"alice","exp":4102444800{claims}}}"#);
            let token = signed(r#"{"alg":"HS256"}"#, &claims);
            verifier.verify(&token).map(|_| ())
        };
        let any = verifier(None, None);
        assert_eq!(found(&any, ""), Ok(()));
        assert_eq!(found(&any, r#","iss":"a","aud":["b"]"#), Ok(()));
        let by_a = verifier(Some("a"), None);
        assert_eq!(found(&by_a, r#","iss":"a""#), Ok(()));
        for other in ["", r#","iss":"A""#, r#","iss":null"#, r#","iss":"""#] {
            assert_eq!(found(&by_a, other), Err(TokenError::Issuer), "{other}");
        }
        assert_eq!(found(&by_a, r#","iss":["a"]"#), Err(TokenError::Malformed));
        let for_b = verifier(None, Some("b"));
        assert_eq!(found(&for_b, r#","aud":"b""#), Ok(()));
        assert_eq!(found(&for_b, r#","aud":["a","b"]"#), Ok(()));
        for other in [
            "",
            r#","aud":"bb""#,
            r#","aud":[]"#,
            r#","aud":["a"]"#,
            r#","aud":null"#,
        ] {
            assert_eq!(found(&for_b, other), Err(TokenError::Audience), "{other}");
        }
    }

    #[test]
    fn a_token_may_be_as_large_as_a_head_and_no_larger() {
        let of = |padding: usize| {
            let claims = format!(
                r#"{{"sub":"a","exp":4102444800,"groups":"{}"}}"#,
                "g".repeat(padding)
            );
            let token = signed(r#"{"alg":"HS256"}"#, &claims);
            by(secret()).verify(&token).map(|_| ())
        };
        assert_eq!(of(48_000), Ok(()));
        assert_eq!(of(50_000), Err(TokenError::Malformed));
    }

    #[test]
    fn what_is_not_a_boolean_makes_no_token_that_may_speak() {
        for value in [r#""true""#, "1", "null"] {
            let claims = format!(r#"{{"sub":"a","exp":4102444800,"readonly":{value}}}"#);
            let token = signed(r#"{"alg":"HS256"}"#, &claims);
            assert_eq!(
                by(secret()).verify(&token),
                Err(TokenError::Malformed),
                "{value}"
            );
        }
    }
}
