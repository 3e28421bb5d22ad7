//! Starting: one line that says where, or one line that says what is wrong.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client::{Client, raw};
use crate::support::hubbub::{Hubbub, command, ends_with_a_sentence, misuses, refuses, run};
use crate::support::redis::{Redis, free_port};
use crate::support::until;

const ANY: [&str; 2] = ["--listen", "127.0.0.1:0"];

#[test]
fn a_redis_that_is_not_there_ends_the_start() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    refuses(
        &[&ANY[..], &["--redis", &url]].concat(),
        &["cannot use Redis", "refused"],
    );
}

#[test]
fn a_redis_that_wants_another_password_ends_the_start_and_the_password_is_not_shown() {
    let redis = Redis::start_with(&["--requirepass", "secret"]);
    for user in ["", ":wrongpass@"] {
        let url = format!("redis://{user}127.0.0.1:{}", redis.port());
        let output = run(&["--listen", "127.0.0.1:0", "--redis", &url]);
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.contains("login") || stderr.contains("NOAUTH"),
            "{stderr}"
        );
        assert!(!stderr.contains("wrongpass"), "{stderr}");
    }
    let url = format!("redis://:secret@127.0.0.1:{}", redis.port());
    let hubbub = Hubbub::with(&["--redis", &url]);
    assert!(!hubbub.log().contains("secret"));
}

#[test]
fn a_redis_that_forbids_subscriptions_ends_the_start() {
    let redis = Redis::start();
    let user = ["ACL", "SETUSER", "chat", "on", ">pw", "~*", "&*", "+@all"];
    let _: String = redis.run(&[&user[..], &["-subscribe"]].concat());
    let url = redis.url().replace("redis://", "redis://chat:pw@");
    refuses(
        &[&ANY[..], &["--redis", &url]].concat(),
        &["cannot use Redis", "is SUBSCRIBE allowed?"],
    );
}

#[test]
fn what_is_no_redis_ends_the_start() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", silent.local_addr().expect("its address"));
    refuses(
        &[&ANY[..], &["--redis", &url]].concat(),
        &["does not answer"],
    );
    let other = Hubbub::alone();
    let url = format!("redis://{}", other.address());
    refuses(
        &[&ANY[..], &["--redis", &url]].concat(),
        &["cannot use Redis"],
    );
    let redis = Redis::start();
    redis.freeze();
    refuses(
        &[&ANY[..], &["--redis", &redis.url()]].concat(),
        &["does not answer"],
    );
}

#[test]
fn a_taken_port_and_bad_options_end_the_start() {
    let other = Hubbub::alone();
    let taken = other.address().to_string();
    refuses(&["--listen", &taken], &["cannot listen", &taken]);
    refuses(&["--listen", "192.0.2.1:80"], &["cannot listen"]);
    // A supervisor tries again: the name may be known later.
    refuses(&["--listen", "none.invalid:80"], &["it has no address"]);
    refuses(
        &["--token-key", "/gone"],
        &["--token-key", "cannot be read"],
    );
    misuses(&["--listen", "nowhere"], &["--listen", "127.0.0.1:8080"]);
    misuses(&["--frobnicate"], &["--frobnicate", "--help"]);
    misuses(&["--max-message", "0"], &["--max-message", "from 1 to "]);
    for option in [
        "--max-head",
        "--head-timeout",
        "--write-timeout",
        "--pong-timeout",
        "--close-timeout",
    ] {
        misuses(&[option, "0"], &[option, "'0'", "a whole number from 1"]);
    }
    misuses(&["--max-message", "1000000"], &["--outbox-bytes"]);
    misuses(&["--prefix", "a b"], &["--prefix"]);
    misuses(&["--redis", "nonsense"], &["redis://127.0.0.1:6379"]);
    let with_password = run(&["--redis", "redis://me:a-password@host:x"]);
    let stderr = String::from_utf8(with_password.stderr).expect("text");
    assert!(stderr.contains("invalid value for '--redis"), "{stderr}");
    assert!(!stderr.contains("a-password"), "{stderr}");
    let two_lines = run(&["--token-secret", "a-\n\npassword"]);
    let stderr = String::from_utf8(two_lines.stderr).expect("text");
    assert!(
        !stderr.contains("a-") && !stderr.contains("password"),
        "{stderr}"
    );
    misuses(&["--redis", "redis://"], &["--redis"]);
    misuses(&["dance"], &["dance"]);
    let unit = include_str!("../../scripts/deploy/hubbub.service");
    assert!(unit.contains("\nRestartPreventExitStatus=2\n"), "{unit}");
}

#[test]
fn a_wrong_value_of_any_option_is_one_sentence_that_tells_what_is_allowed() {
    let number = "it has to be a whole number";
    for value in ["", "-1", "1e9", "many", "/tmp"] {
        let quoted = format!("'{value}'");
        for (option, allowed) in [
            ("--listen", "127.0.0.1:8080"),
            ("--drain", "it has to be a whole number from 5 to 600"),
            ("--send-rate", number),
            (
                "--log-level",
                "it has to be off, error, warn, info, debug or trace",
            ),
            ("--trusted-proxy", "10.0.0.0/8"),
            ("--allow-origin", "https://chat.example"),
            ("--room-list", "it has to be on or off"),
        ] {
            misuses(&[option, value], &[option, &quoted, allowed]);
        }
        misuses(&["tail", "--count", value], &["--count", &quoted, number]);
        let say = ["say", "alice", "hi", "--timeout", value];
        misuses(&say, &["--timeout", &quoted, number, "hubbub say --help"]);
        let ban = ["admin", "ban", "alice", "--for", value];
        misuses(&ban, &["--for", &quoted, "90s, 30m, 12h or 7d"]);
        misuses(
            &["join", "alice", "--color", value],
            &["--color", "auto, always, never"],
        );
    }
    for url in ["ftp://x", "127.0.0.1:99999", "a b"] {
        misuses(
            &["tail", "--url", url],
            &["--url", url, "http://127.0.0.1:8080"],
        );
    }
    misuses(
        &["tail", "--since", "yesterday"],
        &["--since", "1700000000000-0"],
    );
    misuses(&["join", "a/b"], &["NAME", "'a/b'", "slash"]);
    let no_text = command().arg(OsStr::from_bytes(b"\xff")).output();
    assert_eq!(
        no_text.expect("hubbub can be started").status.code(),
        Some(2)
    );
    misuses(&["say"], &["NAME"]);
    misuses(&["export"], &["--data or --redis"]);
    misuses(&["admin"], &["a command is missing", "hubbub admin --help"]);
    let admin = ["admin", "rooms", "--secret", "too short"];
    ends_with_a_sentence(2, &admin, &["at least 32 bytes"]);
    for (mistyped, meant) in [
        (&["tial"][..], "did you mean tail?"),
        (&["--drian", "5"], "did you mean --drain?"),
        (
            &["say", "alice", "hi", "--timeot", "3"],
            "did you mean --timeout?",
        ),
        (&["admin", "rom"], "did you mean rooms?"),
    ] {
        misuses(mistyped, &[meant]);
    }
}

#[test]
fn a_variable_that_no_option_has_is_warned_of_and_its_value_is_not_told() {
    let with = |arguments: &[&str]| {
        let output = command()
            .env("HUBBUB_REDSI", "redis://:a-password@127.0.0.1:1")
            .env("HUBBUB_SERVICE_HOST", "10.0.0.1")
            .args(arguments)
            .output()
            .expect("hubbub can be started");
        let told = String::from_utf8(output.stderr).expect("text");
        assert!(!told.contains("a-password"), "{told}");
        told
    };
    let warning = "hubbub does not know the variable HUBBUB_REDSI; did you mean HUBBUB_REDIS?";
    assert_eq!(with(&["serve", "--check"]), format!("{warning}\n"));
    for (arguments, told) in [
        // A server has no option for a room.
        (["serve", "--check"], "HUBBUB_ROMO\n"),
        (
            ["tail", "--count=0"],
            "HUBBUB_ROMO; did you mean HUBBUB_ROOM?\n",
        ),
    ] {
        let output = command().env("HUBBUB_ROMO", "").args(arguments).output();
        let stderr = String::from_utf8(output.expect("hubbub can be started").stderr);
        let stderr = stderr.expect("text");
        assert!(stderr.ends_with(told), "{stderr}");
    }
    assert_eq!(with(&["tail", "--count", "0"]), format!("{warning}\n"));
    let wrong = with(&["tail", "--count", "many"]);
    assert!(
        wrong.starts_with(warning) && wrong.lines().count() == 2,
        "{wrong}"
    );
    let server = Hubbub::with_environment(&[("HUBBUB_REDSI", "a-password")], &[]);
    let log = server.log();
    assert_eq!(
        log.matches(&format!("[WARN] (main) {warning}")).count(),
        1,
        "{log}"
    );
    assert!(!log.contains("a-password"), "{log}");
}

#[cfg(not(feature = "tls"))]
#[test]
fn tls_for_redis_is_refused_by_a_build_without_it_that_says_how_to_get_one_with_it() {
    for url in ["rediss://127.0.0.1:6379", "VALKEYS://127.0.0.1:6379"] {
        misuses(&["--redis", url], &["without TLS", "--features tls"]);
    }
}

#[test]
fn ready_tells_a_supervisor_whether_an_instance_can_take_users() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let ready = || run(&["ready", "--url", &hubbub.url(), "--timeout", "1"]);
    assert_eq!(ready().status.code(), Some(0));
    redis.freeze();
    let stderr = until("it is not ready", || {
        let output = ready();
        (!output.status.success()).then(|| String::from_utf8(output.stderr).expect("text"))
    });
    redis.thaw();
    assert!(stderr.contains("not ready (503)"), "{stderr}");
    let gone = format!("http://127.0.0.1:{}", free_port());
    // One that is about to start refuses, too, so it is asked until the time is over.
    let begun = Instant::now();
    let output = run(&["ready", "--url", &gone, "--timeout", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(why.contains("refused"), "{why}");
    assert!(begun.elapsed() > Duration::from_millis(500), "{why}");
    // One that accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("its address"));
    let begun = Instant::now();
    let output = run(&["ready", "--url", &url, "--timeout", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn beyond_the_limit_of_connections_there_is_a_503_until_somebody_leaves() {
    let hubbub = Hubbub::with(&["--max-connections", "3"]);
    assert!(
        hubbub
            .log()
            .contains("capacity: 3 connections, bounded by --max-connections")
    );
    let first = hubbub.join("a");
    let _others = [hubbub.join("b"), hubbub.join("c")];
    for _ in 0..5 {
        let refused = Client::connect(hubbub.address(), "/chat/d", None);
        let Err((503, why)) = refused else {
            panic!("a fourth was let in")
        };
        assert!(why.contains("full"), "{why}");
    }
    let head = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = String::from_utf8(raw(hubbub.address(), head.as_bytes())).expect("text");
    assert!(answer.contains("Retry-After: "), "{answer}");
    first.leaves();
    until("there is room again", || {
        Client::connect(hubbub.address(), "/chat/d", None).ok()
    });
}

#[test]
fn a_server_that_others_can_reach_without_tokens_warns_of_it() {
    let warns = |arguments: &[&str]| {
        let log = Hubbub::with(arguments).log();
        assert!(log.contains("capacity: "), "{log}");
        log.contains("[WARN] (main) anyone who reaches this address can use any name")
    };
    let secret = ["--token-secret", "a secret of the tests, 32 bytes long"];
    for beyond in ["0.0.0.0:0", "[::]:0"] {
        assert!(warns(&["--listen", beyond]));
        assert!(!warns(&[&["--listen", beyond], &secret[..]].concat()));
    }
    assert!(!warns(&["--listen", "127.0.0.1:0"]));
}

#[test]
fn options_are_taken_from_the_environment() {
    let output = command()
        .env("HUBBUB_LISTEN", "nowhere")
        .output()
        .expect("hubbub can be started");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert!(stderr.contains("nowhere"), "{stderr}");
    assert!(stderr.contains("from HUBBUB_LISTEN"), "{stderr}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn an_empty_variable_is_none() {
    let check = |variable: &str| {
        let output = command()
            .env(variable, "")
            .args(["serve", "--check"])
            .output()
            .expect("hubbub can be started");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let stdout = String::from_utf8(output.stdout).expect("text");
        assert!(!stdout.contains(&format!("from {variable}")), "{stdout}");
        stdout
    };
    let all = check("HUBBUB_REDIS");
    let variables = all.lines().filter(|line| line.starts_with("--"));
    let mut count = 0;
    for line in variables {
        let flag = line.split_whitespace().next().expect("a flag");
        check(&format!(
            "HUBBUB_{}",
            flag[2..].replace('-', "_").to_uppercase()
        ));
        count += 1;
    }
    assert!(count > 30, "{all}");
    let tail = command()
        .env("HUBBUB_URL", "")
        .args(["tail", "--count", "0"])
        .output()
        .expect("hubbub can be started");
    assert!(tail.status.success(), "{tail:?}");
}

#[test]
fn check_shows_what_is_in_effect_and_where_it_comes_from_without_secrets() {
    let taken = Hubbub::alone().address().to_string();
    let output = command()
        .env("HUBBUB_REDIS", "redis://me:a-password@redis.example/3")
        .env("HUBBUB_TOKEN_SECRET", "s".repeat(40))
        .args(["serve", "--check", "--drain", "20", "--listen", &taken])
        .output()
        .expect("hubbub can be started");
    let stdout = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    let line = |flag: &str| {
        let mut lines = stdout.lines();
        let line = lines.find(|line| line.starts_with(flag));
        let words = line.unwrap_or_else(|| panic!("no {flag}: {stdout}"));
        words.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("--drain"), "--drain 20 from the command line");
    assert_eq!(line("--send-rate"), "--send-rate 10 the default");
    assert_eq!(
        line("--redis"),
        "--redis redis.example:6379/3 from HUBBUB_REDIS"
    );
    assert_eq!(
        line("--token-secret"),
        "--token-secret (hidden) from HUBBUB_TOKEN_SECRET"
    );
    assert!(
        stdout.contains("The options are valid. Room for "),
        "{stdout}"
    );
    assert!(
        !stdout.contains("a-password") && !stdout.contains("ssss"),
        "{stdout}"
    );
    misuses(
        &["--check", "--max-message", "1000000"],
        &["--outbox-bytes"],
    );
    misuses(&["--check", "--drain", "1"], &["--drain", "from 5 to "]);
}

#[test]
fn help_and_version_are_on_stdout() {
    for (arguments, word) in [
        (&["--help"][..], "Usage: hubbub"),
        (&["--help"], "teardown takes, from 5 to 600"),
        (&["help"], "Usage: hubbub"),
        (&["help", "say"], "Usage: hubbub say"),
        (&["--version"], "hubbub "),
        (&["-V"], "hubbub "),
        (&["-v"], "hubbub "),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0));
        let stdout = String::from_utf8(output.stdout).expect("text");
        assert!(stdout.contains(word), "{stdout}");
    }
}

#[test]
fn the_log_tells_who_came_and_went_and_why_with_a_date_and_a_thread() {
    let hubbub = Hubbub::alone();
    let mut alice = hubbub.join("al%1bice".replace("%1b", "").as_str());
    alice.says("a secret text");
    alice.leaves();
    let log = until("the goodbye is logged", || {
        let log = hubbub.log();
        log.contains("disconnected").then_some(log)
    });
    for words in [
        "\"alice\" connected from 127.0.0.1:",
        "\"alice\" joined \"lobby\"",
        "\"alice\" left \"lobby\"",
        "the client said goodbye",
        "(reader-1)",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let time = log.split(' ').next().expect("a time");
    is_a_time(time);
    assert!(!log.contains("secret text"), "{log}");
    // The names of threads help only those who debug.
    let log = Hubbub::with(&["--log-level", "info"]).log();
    assert!(log.contains("[INFO] capacity: "), "{log}");
}

/// Such as 2026-01-31T23:59:59.999Z.
fn is_a_time(text: &str) {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{text}");
}

#[test]
fn a_log_of_json_has_an_object_on_each_line() {
    let hubbub = Hubbub::with(&["--log-format", "json"]);
    let mut alice = hubbub.join("al%22ice");
    alice.says("a secret text");
    alice.leaves();
    let log = until("the goodbye is logged", || {
        let log = hubbub.log();
        log.contains("disconnected").then_some(log)
    });
    let lines = log.lines().map(serde_json::from_str::<Value>);
    let lines: Vec<_> = lines.collect::<Result<_, _>>().expect("JSON");
    lines
        .iter()
        .for_each(|line| is_a_time(line["time"].as_str().expect("a time")));
    let joined = lines
        .iter()
        .find(|line| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.contains("joined"))
        })
        .expect("a join");
    assert_eq!(joined["message"], r#""al\"ice" joined "lobby""#);
    assert_eq!(joined["level"], "INFO");
    assert_eq!(joined["thread"], "reader-1");
    assert_eq!(joined["target"], "hubbub::server::session");
    assert!(!log.contains("secret text"), "{log}");
    misuses(&["--log-format", "xml"], &["--log-format", "text, json"]);
}

/// Whoever collects both streams reads JSON alone.
#[test]
fn with_a_log_of_json_the_start_line_and_the_end_of_a_start_are_objects_as_well() {
    let hubbub = Hubbub::with(&["--log-format", "json"]);
    let line: Value = serde_json::from_str(hubbub.start_line()).expect("JSON");
    is_a_time(line["time"].as_str().expect("a time"));
    assert_eq!(
        (&line["level"], &line["url"]),
        (&"INFO".into(), &hubbub.url().into())
    );
    let message = line["message"].as_str().expect("a message");
    assert!(message.starts_with("listening on http://"), "{message}");
    let taken = hubbub.address().to_string();
    for (code, arguments, why) in [
        (1, ["--listen", &*taken], "cannot listen"),
        (2, ["--prefix", "no spaces"], "prefix"),
    ] {
        let json = ["--log-format", "json", "--log-level", "off"];
        let output = run(&[&json[..], &arguments].concat());
        assert_eq!(output.status.code(), Some(code));
        let told = String::from_utf8(output.stderr).expect("text");
        assert_eq!(told.lines().count(), 1, "{told}");
        let line: Value = serde_json::from_str(&told).expect("JSON");
        is_a_time(line["time"].as_str().expect("a time"));
        assert_eq!(line["level"], "ERROR");
        let message = line["message"].as_str().expect("a message");
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn the_start_line_says_where_it_listens_and_what_to_do_next() {
    let start_line = |arguments: &[&str]| {
        let hubbub = Hubbub::with(arguments);
        let address = hubbub.address();
        assert!(!hubbub.log().contains("listening"), "once is enough");
        (hubbub.start_line().to_owned(), address)
    };
    let (line, address) = start_line(&[]);
    let curl = format!("curl -d hello 'http://{address}/api/rooms/lobby/messages?user=me'");
    let expected = format!(
        "listening on http://{address} with its messages in memory, until it ends; open \
         http://{address}, or: {curl}\n"
    );
    assert_eq!(line, expected);
    // Nobody can open the address of all interfaces.
    for (all, here) in [("0.0.0.0:0", "127.0.0.1"), ("[::]:0", "[::1]")] {
        let (line, address) = start_line(&["--listen", all]);
        let url = format!("http://{here}:{}", address.port());
        assert!(
            line.starts_with(&format!("listening on http://{address} ")),
            "{line}"
        );
        assert!(line.contains(&format!("; open {url}, or: ")), "{line}");
        assert!(line.contains(&format!("'{url}/api/")), "{line}");
    }
    let (line, _) = start_line(&["--token-secret", "a secret of the tests, 32 bytes long"]);
    assert!(
        line.contains("/#token=TOKEN, or: curl -H 'Authorization: "),
        "{line}"
    );
    assert!(!line.contains("a secret of the tests"), "{line}");
}
