//! Public keys, which verify the tokens of other issuers, and the files that hold them: PEM (RFC 7468 §13) or a
//! JSON Web Key Set (RFC 7517 §5).
//!
//! A key has one algorithm. A token's header names an algorithm as well, but it only decides which keys are tried.

use std::fmt;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

/// The sizes of an RSA modulus, in bits (RFC 7518 §3.3).
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

const NOT_USABLE: &str =
    "a key in it is none of RSA with 2048 to 8192 bits, EC on P-256, and Ed25519";
const PRIVATE: &str = "it holds a private key, which belongs to the issuer alone; \
                       openssl pkey -in FILE -pubout makes the public one";

/// A file with public keys, and what was in it when it was read.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
    keys: Vec<PublicKey>,
}

impl KeyFile {
    /// Reads the file. The error is a sentence for the operator.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, String> {
        let path = path.as_ref();
        let in_file = |why: String| format!("{}: {why}", path.display());
        let text = fs::read_to_string(path)
            .map_err(|error| in_file(format!("it cannot be read: {error}")))?;
        let keys = match text.trim_start().starts_with('{') {
            true => of_jwks(&text),
            false => of_pem(&text),
        };
        let keys = keys.map_err(in_file)?;
        if keys.is_empty() {
            return Err(in_file(
                "no key in it can verify tokens; it should be PEM with a PUBLIC KEY, or a JWKS"
                    .to_owned(),
            ));
        }
        let path = path.to_owned();
        Ok(Self { path, keys })
    }

    /// Reads the same file again.
    pub(super) fn read_again(&self) -> Result<Self, String> {
        Self::read(&self.path)
    }

    /// The keys, at least one.
    pub(super) fn keys(&self) -> &[PublicKey] {
        &self.keys
    }
}

impl fmt::Display for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// A key that verifies signatures of one algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublicKey {
    /// The name that the issuer gave it. A key of a PEM file has none.
    kid: Option<String>,
    material: Material,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    /// Big-endian numbers without leading zeros.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    /// An uncompressed point (SEC 1 §2.3.3).
    P256(Vec<u8>),
    /// 32 bytes (RFC 8032 §5.1.5).
    Ed25519(Vec<u8>),
}

impl PublicKey {
    /// Whether a token with this header may be signed by this key. A key without a `kid` may have signed any, and a
    /// token without one may come from any.
    pub(super) fn fits(&self, algorithm: &str, kid: Option<&str>) -> bool {
        let is_named = match (&self.kid, kid) {
            (Some(own), Some(kid)) => own == kid,
            (None, _) | (_, None) => true,
        };
        is_named && self.material.is_for(algorithm)
    }

    /// Whether this key signed a token's first two parts.
    pub(super) fn verifies(&self, signed: &str, signature: &[u8]) -> bool {
        let signed = signed.as_bytes();
        let outcome = match &self.material {
            Material::Rsa { modulus, exponent } => RsaPublicKeyComponents {
                n: modulus,
                e: exponent,
            }
            .verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature),
            Material::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature)
            }
            Material::Ed25519(key) => {
                UnparsedPublicKey::new(&ED25519, key).verify(signed, signature)
            }
        };
        outcome.is_ok()
    }
}

impl Material {
    fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let [modulus, exponent] = [modulus, exponent].map(|number| {
            let zeros = number.iter().take_while(|byte| **byte == 0).count();
            number[zeros..].to_vec()
        });
        let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
        (RSA_BITS.contains(&bits) && !exponent.is_empty())
            .then_some(Self::Rsa { modulus, exponent })
    }

    fn p256(point: &[u8]) -> Option<Self> {
        (point.len() == 65 && point[0] == 4).then(|| Self::P256(point.to_vec()))
    }

    fn ed25519(key: &[u8]) -> Option<Self> {
        (key.len() == 32).then(|| Self::Ed25519(key.to_vec()))
    }

    /// Whether a signature of this algorithm is this key's (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2.2).
    fn is_for(&self, algorithm: &str) -> bool {
        match self {
            Self::Rsa { .. } => algorithm == "RS256",
            Self::P256(_) => algorithm == "ES256",
            Self::Ed25519(_) => matches!(algorithm, "EdDSA" | "Ed25519"),
        }
    }
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

/// The keys of a set that verify tokens. A set may hold others, and new kinds (RFC 7517 §5): they are skipped.
fn of_jwks(text: &str) -> Result<Vec<PublicKey>, String> {
    let set: KeySet =
        serde_json::from_str(text).map_err(|error| format!("it is no JWKS: {error}"))?;
    if set.keys.iter().any(|key| key.get("d").is_some()) {
        return Err(PRIVATE.to_owned());
    }
    Ok(set.keys.iter().filter_map(of_jwk).collect())
}

fn of_jwk(jwk: &Value) -> Option<PublicKey> {
    let text = |name| jwk.get(name)?.as_str();
    let bytes = |name| BASE64URL_NOPAD.decode(text(name)?.as_bytes()).ok();
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => Material::rsa(&bytes("n")?, &bytes("e")?),
        ("EC", Some("P-256")) => {
            let (x, y) = (bytes("x")?, bytes("y")?);
            let is_full = x.len() == 32 && y.len() == 32;
            is_full.then(|| Material::P256([&[4], &x[..], &y].concat()))
        }
        ("OKP", Some("Ed25519")) => Material::ed25519(&bytes("x")?),
        _ => None,
    }?;
    let verifies = |name: &str| match (name, jwk.get(name)) {
        (_, None) => true,
        ("use", Some(purpose)) => purpose == "sig",
        ("key_ops", Some(Value::Array(all))) => all.iter().any(|one| one == "verify"),
        ("alg", Some(Value::String(algorithm))) => material.is_for(algorithm),
        (_, Some(_)) => false,
    };
    ["use", "key_ops", "alg"]
        .into_iter()
        .all(verifies)
        .then(|| PublicKey {
            kid: text("kid").map(str::to_owned),
            material,
        })
}

/// The keys of each block of a PEM file. A block of another kind is an error: somebody took the wrong file.
fn of_pem(text: &str) -> Result<Vec<PublicKey>, String> {
    let blocks = text.split("-----BEGIN ").skip(1);
    blocks.map(of_block).collect()
}

fn of_block(block: &str) -> Result<PublicKey, String> {
    let (label, rest) = block.split_once("-----").unwrap_or((block, ""));
    if label.ends_with("PRIVATE KEY") {
        return Err(PRIVATE.to_owned());
    }
    if label != "PUBLIC KEY" {
        return Err(format!("it holds a {label:?} where a PUBLIC KEY belongs"));
    }
    let (base64, _) = rest
        .split_once("-----END PUBLIC KEY-----")
        .ok_or("a PUBLIC KEY in it has no end")?;
    let base64: String = base64.split_ascii_whitespace().collect();
    let material = BASE64.decode(base64.as_bytes()).ok();
    let material = material.and_then(|der| of_spki(&der)).ok_or(NOT_USABLE)?;
    Ok(PublicKey {
        kid: None,
        material,
    })
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
/// rsaEncryption, and no parameters (RFC 3279 §2.3.1).
const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
/// id-ecPublicKey on prime256v1 (RFC 5480 §2.1.1).
const EC_P256: &[u8] =
    b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
/// id-Ed25519 (RFC 8410 §3).
const ID_ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";

/// The key of a SubjectPublicKeyInfo (RFC 5280 §4.1), if it is of a kind that is known here.
fn of_spki(der: &[u8]) -> Option<Material> {
    let (spki, _) = element(SEQUENCE, der)?;
    let (kind, rest) = element(SEQUENCE, spki)?;
    let (bits, _) = element(BIT_STRING, rest)?;
    // The first byte counts the bits that are unused at the end.
    let key = bits.strip_prefix(&[0])?;
    match kind {
        RSA => {
            let (numbers, _) = element(SEQUENCE, key)?;
            let (modulus, rest) = element(INTEGER, numbers)?;
            let (exponent, _) = element(INTEGER, rest)?;
            Material::rsa(modulus, exponent)
        }
        EC_P256 => Material::p256(key),
        ID_ED25519 => Material::ed25519(key),
        _ => None,
    }
}

/// The value of the first DER element, which must have this tag, and what follows the element (X.690 §8.1). In the keys
/// that are known here an element has less than 128 bytes, or 256 and more, as an RSA modulus has, and never 64 KiB.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, short], rest) = der.split_first_chunk()?;
    let (length, rest) = match short {
        0..=0x7f => (short.into(), rest),
        0x82 => rest
            .split_first_chunk()
            .map(|(&length, rest)| (u16::from_be_bytes(length).into(), rest))?,
        _ => return None,
    };
    (found == tag)
        .then(|| rest.split_at_checked(length))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The public keys of RFC 7515 §A.2.1 and §A.3.1, and of RFC 8037 §A.2.
    const RFC_KEYS: [&str; 3] = [
        r#"{"kty":"RSA","e":"AQAB","kid":"one","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}"#,
        r#"{"kty":"EC","crv":"P-256","kid":"two","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
    ];

    /// The tokens of RFC 7515 §A.2.1 and §A.3.1, and of RFC 8037 §A.4.
    const RFC_TOKENS: [(&str, &str); 3] = [
        (
            "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ];

    fn set(keys: &[&str]) -> Result<Vec<PublicKey>, String> {
        of_jwks(&format!(r#"{{"keys":[{}]}}"#, keys.join(",")))
    }

    #[test]
    fn each_key_verifies_its_own_token_of_the_standards_and_no_other() {
        let keys = set(&RFC_KEYS).expect("a set");
        for (at, (signed, signature)) in RFC_TOKENS.iter().enumerate() {
            let signature = BASE64URL_NOPAD.decode(signature.as_bytes());
            let mut signature = signature.expect("base64");
            let verifying: Vec<_> = (0..3)
                .filter(|one| keys[*one].verifies(signed, &signature))
                .collect();
            assert_eq!(verifying, [at]);
            assert!(!keys[at].verifies(&signed[1..], &signature));
            for bit in 0..8 * signature.len() {
                signature[bit / 8] ^= 1 << (bit % 8);
                assert!(!keys[at].verifies(signed, &signature), "bit {bit}");
                signature[bit / 8] ^= 1 << (bit % 8);
            }
            assert!(!keys[at].verifies(signed, &vec![0; signature.len()]));
            assert!(!keys[at].verifies(signed, &[]));
        }
    }

    #[test]
    fn a_key_fits_its_algorithm_and_its_name() {
        let keys = set(&RFC_KEYS).expect("a set");
        let fitting = |algorithm: &str, kid: Option<&str>| {
            let keys = keys.iter().filter(|key| key.fits(algorithm, kid));
            keys.count()
        };
        assert_eq!(fitting("RS256", Some("one")), 1);
        assert_eq!(fitting("RS256", Some("two")), 0);
        assert_eq!(fitting("RS256", None), 1);
        assert_eq!(fitting("ES256", Some("two")), 1);
        assert_eq!(fitting("EdDSA", Some("two")), 1, "it has no name");
        assert_eq!(fitting("Ed25519", None), 1);
        for other in ["", "none", "HS256", "RS512", "PS256", "ES384", "Ed448"] {
            assert_eq!(fitting(other, None), 0, "{other}");
        }
    }

    #[test]
    fn a_set_may_hold_keys_of_other_kinds_and_for_other_purposes_which_are_skipped() {
        let with = |at: usize, field: &str| RFC_KEYS[at].replacen('{', &format!("{{{field},"), 1);
        let count = |key: &str| set(&[key]).map(|keys| keys.len());
        for good in [
            with(1, r#""use":"sig""#),
            with(1, r#""alg":"ES256""#),
            with(2, r#""key_ops":["verify"]"#),
            with(2, r#""alg":"Ed25519","new":[]"#),
        ] {
            assert_eq!(count(&good), Ok(1), "{good}");
        }
        let short = |name: &str, value: &str, at: usize| {
            let begin = RFC_KEYS[at].split(&format!(r#""{name}":""#)).next();
            format!(r#"{}"{name}":"{value}"}}"#, begin.expect("the beginning"))
        };
        // 256 bytes, whose first bit is not set: 2047 bits.
        let weak = BASE64URL_NOPAD.encode(&[0x7f; 256]);
        let huge = BASE64URL_NOPAD.encode(&[0xff; 1025]);
        for other in [
            with(0, r#""use":"enc""#),
            with(0, r#""use":null"#),
            with(0, r#""alg":"RSA-OAEP""#),
            with(0, r#""alg":"RS512""#),
            with(1, r#""key_ops":["sign"]"#),
            with(1, r#""key_ops":"verify""#),
            RFC_KEYS[1].replace("P-256", "secp256k1"),
            RFC_KEYS[1].replace("EC", "EC2"),
            RFC_KEYS[2].replace("Ed25519", "X25519"),
            short("n", &weak, 0),
            short("n", &huge, 0),
            short("n", "", 0),
            short("y", "AQ", 1),
            short("x", "AQ", 2),
            r#"{"kty":"oct","k":"c2VjcmV0"}"#.to_owned(),
            "{}".to_owned(),
            "1".to_owned(),
        ] {
            assert_eq!(count(&other), Ok(0), "{other}");
        }
        let strong = BASE64URL_NOPAD.encode(&[&[0, 0x80], &[1; 255][..]].concat());
        assert_eq!(
            count(&short("n", &strong, 0).replace(r#""n""#, r#""e":"AQAB","n""#)),
            Ok(1)
        );
        let private = with(2, r#""d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A""#);
        assert_eq!(count(&private), Err(PRIVATE.to_owned()));
        for bad in ["{}", r#"{"keys":{}}"#, "{", RFC_KEYS[1]] {
            assert!(of_jwks(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_that_is_none_verifies_nothing() {
        let verifies = |material, signature: &[u8]| {
            let key = PublicKey {
                kid: None,
                material,
            };
            key.verifies("a", signature)
        };
        // With the exponent 1, each text would be its own signature (RFC 8017 §9.2).
        let digest = ring::digest::digest(&ring::digest::SHA256, b"a");
        let kind = b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
        let padding = [0xff; 256 - 3 - 19 - 32];
        let text = [b"\x00\x01", &padding[..], b"\x00", kind, digest.as_ref()].concat();
        for exponent in [&[1][..], &[2], &[3], &[1, 0, 1], &[0xff; 256]] {
            for last in [0xfe, 0xff] {
                let mut modulus = [0xff; 256];
                modulus[255] = last;
                let key = Material::rsa(&modulus, exponent).expect("its size is good");
                assert!(!verifies(key, &text), "{exponent:?}");
            }
        }
        for byte in [0, 1, 0xff] {
            let point = [&[4][..], &[byte; 64]].concat();
            for signature in [[0; 64], [1; 64], [0xff; 64]] {
                assert!(!verifies(Material::P256(point.clone()), &signature));
                let key = Material::Ed25519(vec![byte; 32]);
                assert!(!verifies(key, &signature), "{byte}");
            }
        }
    }

    /// RFC 8410 §10.1.
    const PEM: &str = "text before\n\
                       -----BEGIN PUBLIC KEY-----\r\n\
                       MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\r\n\
                       -----END PUBLIC KEY-----\r\n";

    #[test]
    fn a_pem_file_has_public_keys_and_nothing_else() {
        assert_eq!(of_pem(&PEM.repeat(2)).map(|keys| keys.len()), Ok(2));
        assert_eq!(of_pem(""), Ok(Vec::new()));
        let says = |text: &str| of_pem(text).expect_err(text);
        assert_eq!(
            says(&(PEM.to_owned() + "-----BEGIN PRIVATE KEY-----")),
            PRIVATE
        );
        assert_eq!(says("-----BEGIN EC PRIVATE KEY-----"), PRIVATE);
        assert!(says("-----BEGIN CERTIFICATE-----").contains("CERTIFICATE"));
        assert!(says(&PEM.replace("END", "")).contains("no end"));
        assert_eq!(says(&PEM.replace("MCow", "MCoy")), NOT_USABLE);
        assert_eq!(says(&PEM.replace("ZuE=", "")), NOT_USABLE);
    }

    #[test]
    fn a_point_on_p256_has_two_full_coordinates() {
        let of = |point: &[u8]| {
            let bits = [&[BIT_STRING, point.len() as u8 + 1, 0], point].concat();
            let kind = [&[SEQUENCE, EC_P256.len() as u8], EC_P256].concat();
            let spki = [kind, bits].concat();
            of_spki(&[&[SEQUENCE, spki.len() as u8], &spki[..]].concat())
        };
        assert_eq!(of(&[4; 65]), Some(Material::P256(vec![4; 65])));
        // One is compressed (SEC 1 §2.3.3), and some are none.
        for other in [&[2; 33][..], &[2; 65], &[4; 64], &[4; 66], &[]] {
            assert_eq!(of(other), None, "{other:?}");
        }
    }

    #[test]
    fn no_bytes_of_a_key_make_the_parser_panic() {
        let base64: Vec<_> = PEM.lines().collect();
        let der = BASE64.decode(base64[2].as_bytes()).expect("base64");
        assert!(of_spki(&der).is_some());
        for end in 0..der.len() {
            assert_eq!(of_spki(&der[..end]), None, "{end}");
        }
        for (at, byte) in (0..der.len()).flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
            let mut changed = der.clone();
            changed[at] = byte;
            let _ = of_spki(&changed);
        }
    }
}
