//! Tokens of other issuers, which `openssl` signs here: their keys, what they are for, and what they allow.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXUPPER_PERMISSIVE};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::client::{Client, metric, request};
use crate::support::hubbub::{Hubbub, command, misuses, refuses, run};
use crate::support::until;

const SECRET: &str = "an example of a secret of enough bytes";

/// An issuer's keys, in a folder of their own.
struct Issuer {
    folder: PathBuf,
}

/// The kind of a key, as `openssl genpkey` wants it.
const RSA: &[&str] = &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const P256: &[&str] = &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const ED25519: &[&str] = &["ED25519"];

impl Issuer {
    fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("keys-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self { folder }
    }

    /// Runs openssl in the folder; what it prints.
    fn openssl(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("openssl")
            .current_dir(&self.folder)
            .args(arguments)
            .stderr(Stdio::null())
            .output()
            .expect("openssl can be started; apt-get install openssl");
        assert!(output.status.success(), "{arguments:?}");
        output.stdout
    }

    /// Makes a key; the path of its public half, as PEM.
    fn key(&self, name: &str, kind: &[&str]) -> String {
        let private = self.file(name);
        self.openssl(&[&["genpkey", "-out", &private, "-algorithm"], kind].concat());
        let public = format!("{private}.pub");
        self.openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
        public
    }

    fn file(&self, name: &str) -> String {
        let path = self.folder.join(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.folder.join(name), text).expect("a file");
        self.file(name)
    }

    /// A token with this header and these claims, which the named key signs.
    fn token(&self, key: &str, header: &Value, claims: &Value) -> String {
        let part = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
        let signed = format!("{}.{}", part(header), part(claims));
        let text = self.write(&format!("{key}.signed"), &signed);
        let key = self.file(key);
        let signature = match header["alg"].as_str() {
            Some("RS256") => self.openssl(&["dgst", "-sha256", "-sign", &key, &text]),
            Some("ES256") => joined(&self.openssl(&["dgst", "-sha256", "-sign", &key, &text])),
            Some("EdDSA") => {
                self.openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", &key, "-in", &text])
            }
            other => panic!("{other:?}"),
        };
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
    }

    /// A key of a JWKS with this name.
    fn jwk(&self, key: &str, kid: &str) -> Value {
        let public = self.file(&format!("{key}.pub"));
        let der = self.openssl(&["pkey", "-pubin", "-in", &public, "-outform", "DER"]);
        let end = |from: usize, to: usize| BASE64URL_NOPAD.encode(&der[der.len() - from..][..to]);
        match der.len() {
            44 => json!({"kid": kid, "kty": "OKP", "crv": "Ed25519", "x": end(32, 32)}),
            91 => {
                json!({"kid": kid, "kty": "EC", "crv": "P-256", "x": end(64, 32), "y": end(32, 32)})
            }
            _ => {
                let n = self.openssl(&["rsa", "-pubin", "-in", &public, "-modulus", "-noout"]);
                let n = n.trim_ascii().strip_prefix(b"Modulus=").expect("a number");
                let n = HEXUPPER_PERMISSIVE.decode(n).expect("hexadecimal");
                json!({"kid": kid, "kty": "RSA", "e": "AQAB", "n": BASE64URL_NOPAD.encode(&n)})
            }
        }
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The two numbers of an ECDSA signature in DER, with 32 bytes each (RFC 7518 §3.4).
fn joined(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut both = Vec::new();
    for _ in 0..2 {
        let (number, behind) = rest[2..].split_at(rest[1].into());
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let number = &number[zeros..];
        both.extend(std::iter::repeat_n(0, 32 - number.len()));
        both.extend(number);
        rest = behind;
    }
    both
}

/// Claims of alice that are valid for long, and these.
fn claims(more: &Value) -> Value {
    let mut claims = json!({"sub": "alice", "exp": 4_102_444_800_u64, "iat": 1});
    let all = claims.as_object_mut().expect("an object");
    all.extend(more.as_object().expect("an object").clone());
    claims
}

/// The status with which a user is refused; `None` for one who is let in.
fn refused(hubbub: &Hubbub, token: &str) -> Option<u16> {
    let target = format!("/chat/alice?token={token}");
    let client = Client::connect(hubbub.address(), &target, Some("hubbub.v1"));
    client.err().map(|(status, _)| status)
}

fn minted(arguments: &[&str]) -> String {
    let output = run(&[&["token", "--secret", SECRET], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    let token = String::from_utf8(output.stdout).expect("text");
    token.trim().to_owned()
}

/// A token of alice that these bytes sign as a secret, in the algorithm of secrets.
fn signed_with(secret: &[u8]) -> String {
    let part = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
    let signed = format!(
        "{}.{}",
        part(&json!({"alg": "HS256"})),
        part(&claims(&json!({})))
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    let mac = ring::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(mac.as_ref()))
}

#[test]
fn users_of_three_kinds_of_keys_come_in_and_nobody_else() {
    let issuer = Issuer::new("kinds");
    let kinds = [("RS256", RSA), ("ES256", P256), ("EdDSA", ED25519)];
    let files = kinds.map(|(algorithm, kind)| issuer.key(algorithm, kind));
    let stranger = Issuer::new("stranger");
    let all = files
        .iter()
        .map(|file| std::fs::read_to_string(file).expect("a key"));
    let bundle = issuer.write("bundle.pem", &all.collect::<String>());
    // All in one file, each in its own as the command line has them, and as the environment has them.
    let servers = [
        Hubbub::with(&["--token-key", &bundle]),
        Hubbub::with(&[
            "--token-key",
            &files[0],
            "--token-key",
            &files[1],
            "--token-key",
            &files[2],
        ]),
        Hubbub::with_environment(&[("HUBBUB_TOKEN_KEY", &files.join(","))], &[]),
    ];
    for (algorithm, kind) in kinds {
        let header = json!({"alg": algorithm, "typ": "JWT", "kid": "any"});
        let good = issuer.token(algorithm, &header, &claims(&json!({})));
        for hubbub in &servers {
            assert_eq!(refused(hubbub, &good), None, "{algorithm}");
        }
        let hubbub = &servers[0];
        let (signed, signature) = good.rsplit_once('.').expect("three parts");
        let (head, _) = signed.split_once('.').expect("three parts");
        let bob = BASE64URL_NOPAD.encode(br#"{"sub":"alice","exp":4102444801}"#);
        let unsigned = BASE64URL_NOPAD.encode(br#"{"alg":"none"}"#);
        let payload = signed.split_once('.').expect("three parts").1;
        stranger.key(algorithm, kind);
        let other = stranger.token(algorithm, &header, &claims(&json!({})));
        let expired = issuer.token(algorithm, &header, &claims(&json!({"exp": 1_700_000_000})));
        let early = issuer.token(
            algorithm,
            &header,
            &claims(&json!({"nbf": 4_102_444_000_u64})),
        );
        let critical = json!({"alg": algorithm, "crit": ["b64"], "b64": true});
        let critical = issuer.token(algorithm, &critical, &claims(&json!({})));
        for bad in [
            format!("{head}.{bob}.{signature}"),
            format!("{unsigned}.{payload}.{signature}"),
            format!("{unsigned}.{payload}."),
            format!("{signed}."),
            other,
            expired,
            early,
            critical,
        ] {
            assert_eq!(refused(hubbub, &bad), Some(401), "{algorithm}: {bad}");
        }
        let bob = format!("/chat/bob?token={good}");
        let bob = Client::connect(hubbub.address(), &bob, None).err();
        assert_eq!(bob.map(|(status, _)| status), Some(403));
        assert!(!hubbub.log().contains(signature), "no token in the log");
    }
}

#[test]
fn a_public_key_is_no_secret_and_a_key_has_one_algorithm() {
    let issuer = Issuer::new("confusion");
    let files = [issuer.key("rsa", RSA), issuer.key("ec", P256)];
    let keys = files.join(",");
    let with_secret = Hubbub::with(&["--token-secret", SECRET, "--token-key", &keys]);
    let without = Hubbub::with(&["--token-key", &keys]);
    let own = signed_with(SECRET.as_bytes());
    assert_eq!(refused(&with_secret, &own), None);
    assert_eq!(refused(&without, &own), Some(401));
    for file in files {
        // The file, without its last line break, its base64, its bytes, and the bytes of the key in it.
        let pem = std::fs::read_to_string(file).expect("a key");
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = BASE64.decode(base64.as_bytes()).expect("base64");
        let texts = [&*pem, pem.trim_end(), &*base64].map(str::as_bytes);
        for secret in [&texts[..], &[&der, &der[24..], &der[26..], b""]].concat() {
            let forged = signed_with(secret);
            assert_eq!(refused(&with_secret, &forged), Some(401));
            assert_eq!(refused(&without, &forged), Some(401));
        }
    }
    // A signature that is good, under the name of another algorithm.
    let good = issuer.token("rsa", &json!({"alg": "RS256"}), &claims(&json!({})));
    assert_eq!(refused(&without, &good), None);
    let (_, rest) = good.split_once('.').expect("three parts");
    for algorithm in ["HS256", "ES256", "EdDSA", "PS256", "RS512", "rs256", "none"] {
        let header = json!({"alg": algorithm}).to_string();
        let token = format!("{}.{rest}", BASE64URL_NOPAD.encode(header.as_bytes()));
        assert_eq!(refused(&without, &token), Some(401), "{algorithm}");
        assert_eq!(refused(&with_secret, &token), Some(401), "{algorithm}");
    }
}

#[test]
fn the_keys_of_a_set_are_told_apart_by_their_names() {
    let issuer = Issuer::new("set");
    for (name, kind) in [
        ("one", P256),
        ("two", P256),
        ("three", RSA),
        ("four", ED25519),
    ] {
        issuer.key(name, kind);
    }
    let mut encryption = issuer.jwk("three", "enc");
    encryption["use"] = json!("enc");
    let keys = [
        issuer.jwk("one", "one"),
        issuer.jwk("two", "two"),
        issuer.jwk("three", "three"),
        issuer.jwk("four", "four"),
        encryption,
        json!({"kty": "new", "kid": "one"}),
    ];
    let set = issuer.write("keys.json", &json!({"keys": keys}).to_string());
    let hubbub = Hubbub::with(&["--token-key", &set]);
    let counted = format!("{set} has 4 keys that verify tokens");
    assert!(hubbub.log().contains(&counted));
    let signed = |key: &str, algorithm: &str, kid: Option<&str>| {
        let mut header = json!({"alg": algorithm});
        if let Some(kid) = kid {
            header["kid"] = json!(kid);
        }
        refused(&hubbub, &issuer.token(key, &header, &claims(&json!({}))))
    };
    assert_eq!(signed("one", "ES256", Some("one")), None);
    assert_eq!(signed("two", "ES256", Some("two")), None);
    assert_eq!(signed("two", "ES256", None), None, "all are tried");
    assert_eq!(signed("three", "RS256", Some("three")), None);
    assert_eq!(signed("four", "EdDSA", Some("four")), None);
    assert_eq!(signed("two", "ES256", Some("one")), Some(401));
    assert_eq!(signed("one", "ES256", Some("three")), Some(401));
    assert_eq!(signed("three", "RS256", Some("enc")), Some(401));
    assert_eq!(signed("one", "ES256", Some("nobody")), Some(401));
    let log = hubbub.log();
    assert!(log.contains("no key is known for the token's algorithm and kid"));
}

#[test]
fn a_hangup_reads_the_keys_again_and_ends_a_server_that_has_a_secret_alone() {
    let issuer = Issuer::new("hangup");
    let [old, new] = ["old", "new"].map(|name| issuer.key(name, ED25519));
    let hubbub = Hubbub::with(&["--token-key", &old]);
    let token = issuer.token("new", &json!({"alg": "EdDSA"}), &claims(&json!({})));
    assert_eq!(refused(&hubbub, &token), Some(401));
    std::fs::copy(new, old).expect("a copy");
    hubbub.signal(Signal::SIGHUP);
    until("the new key is known", || {
        refused(&hubbub, &token).is_none().then_some(())
    });
    let mut with_secret = Hubbub::with(&["--token-secret", SECRET]);
    with_secret.signal(Signal::SIGHUP);
    assert!(with_secret.ends().success());
}

#[test]
fn a_token_of_another_issuer_or_for_another_audience_is_refused() {
    let issuer = Issuer::new("issuer");
    let file = issuer.key("ec", P256);
    let demanded = [
        "--token-issuer",
        "https://id.example/",
        "--token-audience",
        "chat",
    ];
    let keys = ["--token-secret", SECRET, "--token-key", &file];
    let hubbub = Hubbub::with(&[&keys[..], &demanded].concat());
    let given = |more: &Value| {
        let token = issuer.token("ec", &json!({"alg": "ES256"}), &claims(more));
        refused(&hubbub, &token)
    };
    let iss = "https://id.example/";
    assert_eq!(given(&json!({"iss": iss, "aud": "chat"})), None);
    assert_eq!(
        given(&json!({"iss": iss, "aud": ["account", "chat"]})),
        None
    );
    for other in [
        json!({}),
        json!({"iss": iss}),
        json!({"aud": "chat"}),
        json!({"iss": "https://id.example", "aud": "chat"}),
        json!({"iss": iss, "aud": ["account"]}),
        json!({"iss": iss, "aud": "chat room"}),
    ] {
        assert_eq!(given(&other), Some(401), "{other}");
    }
    let log = hubbub.log();
    assert!(log.contains("--token-issuer") && log.contains("--token-audience"));
    let own = ["alice", "--issuer", iss, "--audience", "chat"];
    assert_eq!(refused(&hubbub, &minted(&own)), None);
    assert_eq!(refused(&hubbub, &minted(&own[..3])), Some(401));
    assert_eq!(refused(&hubbub, &minted(&own[..1])), Some(401));
}

#[test]
fn a_file_without_a_usable_key_ends_the_start_with_a_sentence() {
    let issuer = Issuer::new("bad");
    issuer.key("private", P256);
    let weak = issuer.key("weak", &["RSA", "-pkeyopt", "rsa_keygen_bits:1024"]);
    let other = issuer.key("other", &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"]);
    let mut private = issuer.jwk("private", "one");
    private["d"] = json!("AAAA");
    let bad = [
        (issuer.file("private"), "it holds a private key"),
        (issuer.file("missing"), "it cannot be read"),
        (issuer.file(""), "it cannot be read"),
        (issuer.write("empty", ""), "no key in it"),
        (issuer.write("garbage", "\u{7}garbage"), "no key in it"),
        (
            issuer.write("set", r#"{"keys":[{"kty":"oct","k":"AA"}]}"#),
            "no key in it",
        ),
        (issuer.write("json", "{}"), "it is no JWKS"),
        (
            issuer.write("secret", &json!({"keys": [private]}).to_string()),
            "it holds a private key",
        ),
        (weak, "RSA with 2048 to 8192 bits"),
        (other, "RSA with 2048 to 8192 bits"),
    ];
    for (file, why) in &bad {
        refuses(&["--token-key", file], &["--token-key", file, why]);
        refuses(&["--check", "--token-key", file], &[why]);
    }
    for lonely in ["--token-issuer", "--token-audience"] {
        misuses(&[lonely, "x"], &["--token-secret or --token-key"]);
    }
    let good = issuer.file("private.pub");
    let checked = run(&["serve", "--check", "--token-key", &good]);
    let printed = String::from_utf8(checked.stdout).expect("text");
    assert!(
        checked.status.success() && printed.contains(&good),
        "{printed}"
    );
}

#[test]
fn a_token_of_many_roles_fits_into_the_query() {
    let issuer = Issuer::new("large");
    let file = issuer.key("rsa", RSA);
    let hubbub = Hubbub::with(&["--token-key", &file]);
    let more = json!({"realm_access": {"roles": vec!["a-role-of-some-length"; 200]}});
    let token = issuer.token("rsa", &json!({"alg": "RS256"}), &claims(&more));
    assert!(token.len() > 6000, "{}", token.len());
    assert_eq!(refused(&hubbub, &token), None);
}

/// Each may cost a signature's verification.
#[test]
fn six_tokens_of_a_request_are_looked_at_and_no_more() {
    let hubbub = Hubbub::with(&["--token-secret", SECRET]);
    let status = |bad: usize| {
        let list = format!("{}token.{}", "token.bad, ".repeat(bad), minted(&["alice"]));
        let head = format!(
            "GET /api/rooms/lobby/members HTTP/1.1\r\nHost: localhost\r\n\
             Sec-WebSocket-Protocol: {list}\r\n\r\n"
        );
        request(hubbub.address(), &head).0
    };
    assert_eq!((status(5), status(6)), (200, 401));
}

/// A client of alice with a token of ours.
fn client(hubbub: &Hubbub, arguments: &[&str]) -> (Client, Value) {
    let token = minted(&[&["alice"], arguments].concat());
    let target = format!("/chat/alice?token={token}");
    let client = Client::connect(hubbub.address(), &target, Some("hubbub.v1"));
    let mut client = client.unwrap_or_else(|refused| panic!("{refused:?}"));
    let welcome = client.event();
    (client, welcome)
}

#[test]
fn a_pattern_allows_the_rooms_that_begin_alike_and_no_others() {
    let hubbub = Hubbub::with(&["--token-secret", SECRET]);
    let (mut alice, _) = client(&hubbub, &["--room", "team-*", "--room", "ops"]);
    for room in ["team-red", "team-", "ops"] {
        alice.joins(room);
    }
    for room in ["team", "lobby", "my team-red", "ops2"] {
        alice.asks(&json!({"type": "join", "room": room}));
        assert_eq!(alice.event_of("error")["code"], "forbidden", "{room}");
    }
    // A fresh token has to allow the rooms that the connection is in.
    let narrow = minted(&["alice", "--room", "team-r*"]);
    alice.asks(&json!({"type": "renew", "token": narrow}));
    assert_eq!(alice.event_of("error")["code"], "forbidden");
    let all = minted(&["alice", "--room", "*"]);
    alice.asks(&json!({"type": "renew", "token": all}));
    alice.event_of("renewed");
    alice.joins("lobby");
    let get = |room: &str| {
        let token = minted(&["alice", "--room", "team-*"]);
        let head = format!(
            "GET /api/rooms/{room}/members?token={token} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        );
        request(hubbub.address(), &head).0
    };
    assert_eq!((get("team-red"), get("ops")), (200, 403));
    let wrong = run(&["token", "alice", "--secret", SECRET, "--room", "a/*"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_token_for_reading_only_hears_and_says_nothing() {
    let hubbub = Hubbub::with(&["--token-secret", SECRET]);
    let (mut alice, welcome) = client(&hubbub, &["--read-only"]);
    assert_eq!(welcome["readonly"], true);
    let bob = minted(&["bob"]);
    let mut bob = Client::text(hubbub.address(), &format!("/chat/bob?token={bob}"));
    bob.hears_until("* online: bob");
    alice.joins("lobby");
    bob.hears_until("* alice joined");
    let before = metric(&hubbub, "hubbub_unauthorized_total");
    alice.asks(&json!({"type": "send", "room": "lobby", "text": "hello", "ref": "a"}));
    let error = alice.event_of("error");
    assert_eq!(
        (&error["code"], &error["ref"]),
        (&json!("forbidden"), &json!("a"))
    );
    assert_eq!(error["message"], "not sent: the token is for reading only");
    alice.asks(&json!({"type": "typing", "room": "lobby"}));
    assert_eq!(alice.event_of("error")["code"], "forbidden");
    assert_eq!(metric(&hubbub, "hubbub_unauthorized_total"), before + 2);
    bob.says("good morning");
    assert_eq!(alice.event_of("message")["text"], "good morning");
    for asked in ["history", "members"] {
        alice.asks(&json!({"type": asked, "room": "lobby"}));
        alice.event_of(asked);
    }
    let token = minted(&["carol", "--read-only"]);
    let mut carol = Client::text(hubbub.address(), &format!("/chat/carol?token={token}"));
    carol.says("hello");
    carol.hears_until("! not sent: the token is for reading only");
    let answer = |method: &str, body: &str| {
        let head = format!(
            "{method} /api/rooms/lobby/messages?token={token} HTTP/1.1\r\nHost: localhost\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        request(hubbub.address(), &head)
    };
    let (status, error) = answer("POST", "hello");
    assert_eq!(status, 403, "{error}");
    let error: Value = serde_json::from_str(&error).expect("JSON");
    assert_eq!(error["code"], "forbidden");
    assert_eq!(error["message"], "not sent: the token is for reading only");
    let (status, history) = answer("GET", "");
    assert_eq!(status, 200);
    // Nothing but what bob said was stored, and so nothing else was heard.
    let history: Value = serde_json::from_str(&history).expect("JSON");
    assert_eq!(
        history["messages"].as_array().map(Vec::len),
        Some(1),
        "{history}"
    );
}

#[test]
fn a_renewal_may_give_or_take_the_right_to_speak() {
    let hubbub = Hubbub::with(&["--token-secret", SECRET]);
    let (mut alice, welcome) = client(&hubbub, &[]);
    assert_eq!(welcome["readonly"], Value::Null);
    alice.joins("lobby");
    let mut renew = |arguments: &[&str]| {
        let token = minted(&[&["alice"], arguments].concat());
        alice.asks(&json!({"type": "renew", "token": token}));
        let renewed = alice.event_of("renewed");
        alice.asks(&json!({"type": "send", "room": "lobby", "text": "hello", "ref": "a"}));
        loop {
            let event = alice.event();
            if event["ref"] == "a" {
                return (renewed["readonly"].clone(), event["type"].clone());
            }
        }
    };
    assert_eq!(renew(&["--read-only"]), (json!(true), json!("error")));
    assert_eq!(renew(&[]), (Value::Null, json!("sent")));
}

#[test]
fn the_terminal_client_of_a_reader_listens_and_is_told_that_it_may_not_speak() {
    let hubbub = Hubbub::with(&["--token-secret", SECRET]);
    let url = hubbub.url();
    let token = minted(&["alice", "--read-only"]);
    let said = run(&["say", "alice", "hi", "--url", &url, "--token", &token]);
    assert_eq!(said.status.code(), Some(1));
    let why = String::from_utf8(said.stderr).expect("text");
    assert!(why.contains("the token is for reading only"), "{why}");
    let bob = minted(&["bob"]);
    assert!(
        run(&["say", "bob", "hi", "--url", &url, "--token", &bob])
            .status
            .success()
    );
    let heard = command()
        .args(["tail", "--url", &url, "--as", "alice", "--token", &token])
        .args(["--history", "1", "--count", "1", "--timeout", "20"])
        .output()
        .expect("hubbub can be started");
    assert_eq!(String::from_utf8(heard.stdout).expect("text"), "bob: hi\n");
}
