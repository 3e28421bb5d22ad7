//! TLS on the way to Redis. Compiled with `--features tls` alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::authority::Authority;
use crate::support::checker::{Speaker, Witness, check};
use crate::support::client::{Client, get};
use crate::support::hubbub::{Hubbub, command, misuses};
use crate::support::proxy::{Link, Proxy};
use crate::support::redis::{Redis, free_port};
use crate::support::until;

impl Authority {
    fn redis(&self) -> (Redis, String) {
        self.redis_that_wants_certificates("no")
    }

    /// A Redis that speaks TLS on one port; on the other the test looks after it.
    fn redis_that_wants_certificates(&self, wants: &str) -> (Redis, String) {
        let port = free_port();
        let redis = self.start(port, "", &["--tls-auth-clients", wants]);
        (redis, format!("rediss://127.0.0.1:{port}"))
    }

    /// A server that speaks TLS on this port, and began with this configuration.
    fn start(&self, port: u16, config: &str, arguments: &[&str]) -> Redis {
        let port = port.to_string();
        let (certificate, key) = (self.file("server.pem"), self.file("server.key"));
        let trusted = self.file("ca.pem");
        let mut all = vec!["--tls-port", &port, "--tls-ca-cert-file", &trusted];
        all.extend(["--tls-cert-file", &certificate, "--tls-key-file", &key]);
        Redis::start_from(config, &[arguments, &all].concat())
    }

    /// An instance that trusts this authority.
    fn hubbub(&self, url: &str) -> Hubbub {
        Hubbub::with_environment(
            &[("SSL_CERT_FILE", &self.file("ca.pem"))],
            &["--redis", url],
        )
    }
}

/// The start fails within its five seconds and says `word` in its one line.
fn refuses(trusted: &Path, url: &str, word: &str) {
    let begun = Instant::now();
    let output = command()
        .env("SSL_CERT_FILE", trusted)
        .args([
            "--listen",
            "127.0.0.1:0",
            "--log-level",
            "off",
            "--redis",
            url,
        ])
        .output()
        .expect("hubbub can be started");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{url}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{url}: {stderr}");
    assert!(stderr.contains(word), "{url}: {stderr}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{url}");
}

#[test]
fn two_instances_chat_over_tls_and_come_back_when_it_is_cut() {
    let authority = Authority::new("chat");
    let (redis, url) = authority.redis();
    let (here, there) = (authority.hubbub(&url), authority.hubbub(&url));
    let mut bob = there.join("bob");
    let alice = Speaker::enter(&here.url(), "alice", "lobby");
    assert_eq!(bob.hears(), "* alice joined");
    alice.says("hello");
    assert_eq!(bob.hears(), "alice: hello");
    let encrypted: String = redis.run(&["CLIENT", "LIST"]);
    let port = url.rsplit(':').next().expect("a port");
    let through = format!("laddr=127.0.0.1:{port}");
    assert_eq!(encrypted.matches(&through).count(), 4, "{encrypted}");
    for kind in ["pubsub", "normal"] {
        let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]);
        alice.says(kind);
        assert_eq!(bob.hears(), format!("alice: {kind}"));
    }
}

#[test]
fn a_redis_that_freezes_behind_tls_is_noticed_in_time() {
    let authority = Authority::new("freeze");
    let (redis, url) = authority.redis();
    let here = authority.hubbub(&url);
    let mut alice = Client::json(here.address(), "alice");
    alice.joins("lobby");
    redis.freeze();
    for _ in 0..2 {
        let asked = Instant::now();
        alice.asks(&json!({"type": "send", "room": "lobby", "text": "hi", "ref": "r1"}));
        assert_eq!(alice.event_of("error")["code"], "unavailable");
        assert!(
            asked.elapsed() < Duration::from_secs(3),
            "{:?}",
            asked.elapsed()
        );
    }
    // And a start, in the handshake.
    refuses(
        Path::new(&authority.file("ca.pem")),
        &url,
        "does not answer",
    );
    redis.thaw();
    until("it is ready again", || {
        (get(here.address(), "/readyz").0 == 200).then_some(())
    });
    alice.asks(&json!({"type": "send", "room": "lobby", "text": "hi", "ref": "r2"}));
    assert_eq!(alice.event_of("sent")["ref"], "r2");
}

#[test]
fn a_link_that_stalls_or_swallows_under_tls_is_healed_without_loss() {
    let authority = Authority::new("link");
    let (_redis, url) = authority.redis();
    let port = url.rsplit(':').next().and_then(|port| port.parse().ok());
    let proxy = Proxy::before(port.expect("a port"));
    let here = authority.hubbub(&proxy.url().replace("redis:", "rediss:"));
    let there = authority.hubbub(&url);
    let witness = Witness::enter(&here.url(), "one", "lobby");
    let speaker = Speaker::enter(&there.url(), "speaker", "lobby");
    let mut said = BTreeMap::new();
    let mut say = |text: String| {
        said.insert(speaker.says(&text), text);
    };
    // What is swallowed is missing from the stream, so nothing behind it can be deciphered.
    for link in [Link::Stalled, Link::Swallowed] {
        proxy.set(link);
        say(format!("{link:?}"));
        until("it notices", || {
            (get(here.address(), "/readyz").0 == 503).then_some(())
        });
        say(format!("{link:?} still"));
        proxy.set(Link::Open);
        until("it recovers", || {
            (get(here.address(), "/readyz").0 == 200).then_some(())
        });
        say(format!("{link:?} no more"));
    }
    say("the end".to_owned());
    witness.has_seen("the end");
    check(&[&witness], &said);
    assert_eq!(witness.reconnects(), 0);
}

#[test]
fn what_cannot_be_trusted_ends_the_start() {
    let authority = Authority::new("ours");
    let (redis, url) = authority.redis();
    let ours = PathBuf::from(authority.file("ca.pem"));
    let other = Authority::new("other");
    refuses(Path::new(&other.file("ca.pem")), &url, "SSL_CERT_FILE");
    refuses(&ours.with_extension("gone"), &url, "ca.gone");
    let name = url.replace("127.0.0.1", "localhost");
    refuses(&ours, &name, "certificate");
    let without_tls = format!("rediss://127.0.0.1:{}", redis.port());
    refuses(&ours, &without_tls, "cannot use Redis");
    refuses(&ours, &url.replace("rediss", "redis"), "cannot use Redis");
    misuses(&["--redis", &format!("{url}/#insecure")], &["#insecure"]);
    let (_redis, url) = authority.redis_that_wants_certificates("yes");
    refuses(&ours, &url, "tls-auth-clients");
}

/// What is said on one instance is heard on another.
fn chats_on(authority: &Authority, url: &str) {
    let (here, there) = (authority.hubbub(url), authority.hubbub(url));
    let mut bob = there.join("bob");
    let alice = Speaker::enter(&here.url(), "alice", "lobby");
    assert_eq!(bob.hears(), "* alice joined");
    alice.says("hello");
    assert_eq!(bob.hears(), "alice: hello");
    assert!(!here.log().contains("secret"), "{}", here.log());
}

#[test]
fn a_cluster_is_used_over_tls_and_with_a_login() {
    let authority = Authority::new("cluster");
    let port = free_port();
    let mut arguments = vec!["--cluster-enabled", "yes", "--tls-cluster", "yes"];
    arguments.extend(["--tls-auth-clients", "no"]);
    let bus = free_port().to_string();
    arguments.extend(["--cluster-port", &bus]);
    let login = "user chat on >secret ~* &* +@all\n";
    let node = authority.start(port, login, &arguments);
    let _: String = node.run(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    until("the cluster is up", || {
        let info: String = node.run(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:ok").then_some(())
    });
    chats_on(
        &authority,
        &format!("rediss+cluster://chat:secret@127.0.0.1:{port}"),
    );
    let trusted = PathBuf::from(authority.file("ca.pem"));
    let wrong = format!("rediss+cluster://chat:wrong@127.0.0.1:{port}");
    refuses(&trusted, &wrong, "refuses the login");
}

#[test]
fn the_master_of_a_sentinel_is_used_over_tls_and_both_with_a_login() {
    let authority = Authority::new("sentinel");
    let (port, sentinel_port) = (free_port(), free_port());
    let master = ["--requirepass", "secret", "--tls-auth-clients", "no"];
    let _master = authority.start(port, "", &master);
    let config = format!(
        "sentinel monitor mymaster 127.0.0.1 {port} 1\nsentinel auth-pass mymaster secret\n"
    );
    let mut arguments = vec!["--sentinel", "--tls-replication", "yes"];
    arguments.extend([
        "--tls-auth-clients",
        "no",
        "--requirepass",
        "another secret",
    ]);
    let _sentinel = authority.start(sentinel_port, &config, &arguments);
    let url = |password: &str, sentinels: &str| {
        format!(
            "rediss+sentinel://:{password}@127.0.0.1:{sentinel_port}/mymaster?sentinel_password={sentinels}"
        )
    };
    chats_on(&authority, &url("secret", "another%20secret"));
    let trusted = PathBuf::from(authority.file("ca.pem"));
    refuses(
        &trusted,
        &url("wrong", "another%20secret"),
        "refuses the login",
    );
    refuses(
        &trusted,
        &url("secret", "wrong"),
        "no Sentinel names the master",
    );
}
