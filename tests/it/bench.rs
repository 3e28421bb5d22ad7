//! `hubbub-bench` counts exactly, and says what is wrong in one line.

#[path = "../../src/bench/report.rs"]
mod report;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread;

use hubbub::websocket::frame;

use self::report::{Kind, Report};
use crate::support::client::metric;
use crate::support::hubbub::Hubbub;
use crate::support::redis::Redis;

fn bench(url: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hubbub-bench"))
        .args(["--json", "--url", url])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the meter can be started")
}

fn reports(output: &Output) -> Vec<Report> {
    let text = std::str::from_utf8(&output.stdout).expect("text");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a report"))
        .collect()
}

/// The one line on stderr of a command that failed.
fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text.lines().count(), 1, "{text}");
    text.into_owned()
}

fn nothing_is_wrong(report: &Report) {
    assert_eq!(report.fault(), None);
    assert_eq!(report.delivered, report.expected);
    assert_eq!(
        (report.lost, report.doubled, report.out_of_order),
        (0, 0, 0)
    );
}

#[test]
fn at_a_rate_every_message_reaches_every_member() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let [pid, redis_pid] = [hubbub.id(), redis.id()].map(|id| id.to_string());
    let output = bench(
        &hubbub.url(),
        &[
            "--members",
            "20",
            "--rate",
            "50,100",
            "--seconds",
            "1",
            "--pid",
            &pid,
            "--redis-pid",
            &redis_pid,
        ],
    );
    assert!(output.status.success(), "{output:?}");
    let found = reports(&output);
    assert_eq!(found.len(), 2);
    for (report, rate) in found.iter().zip([50, 100]) {
        nothing_is_wrong(report);
        assert_eq!(report.kind, Kind::Rate);
        // A machine that is too busy may hold some up, and then the meter says so.
        assert_eq!(report.sent + report.unsent, rate);
        assert_eq!(report.delivered, 20 * report.sent);
        assert!(report.server_cpu_us_per_delivery > Some(0.0));
        assert!(report.redis_cpu_us_per_delivery > Some(0.0));
        let memory = report.memory.as_ref().expect("the server's memory");
        assert!(memory.peak >= memory.idle && memory.before > 0.0);
    }
}

#[test]
fn as_fast_as_it_goes_every_room_hears_its_own() {
    let hubbub = Hubbub::alone();
    let options = ["--members", "12", "--rooms", "4", "--rate", "0"];
    let output = bench(
        &hubbub.url(),
        &[&options[..], &["--seconds", "1", "--window", "16"]].concat(),
    );
    assert!(output.status.success(), "{output:?}");
    let [report] = &reports(&output)[..] else {
        panic!("{output:?}");
    };
    nothing_is_wrong(report);
    assert_eq!(report.kind, Kind::Most);
    assert!(report.sent > 4 * 16);
    assert_eq!(report.delivered, 3 * report.sent);
    assert_eq!(report.unsent, 0);
}

/// A fan-out to so many takes long, so what is said meanwhile is delivered together.
#[test]
fn a_crowd_hears_everything_in_order_however_fast_it_comes() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let options = ["--members", "600", "--rate", "2000,0", "--seconds", "1"];
    let output = bench(&hubbub.url(), &options);
    assert!(output.status.success(), "{output:?}");
    let reports = reports(&output);
    assert_eq!(reports.len(), 2);
    for report in &reports {
        nothing_is_wrong(report);
        assert_eq!(report.delivered, 600 * report.sent);
    }
    // What was delivered with one push was counted one by one.
    let said: u64 = reports.iter().map(|report| report.sent).sum();
    assert!(metric(&hubbub, "hubbub_messages_heard_total") >= said);
}

#[test]
fn idle_connections_are_held() {
    let hubbub = Hubbub::alone();
    let options = ["--members", "5", "--idle", "--seconds", "0.5"];
    let output = bench(&hubbub.url(), &[&options[..], &["--ramp", "100"]].concat());
    let [report] = &reports(&output)[..] else {
        panic!("{output:?}");
    };
    assert_eq!((report.kind, report.disconnected), (Kind::Idle, 0));
    assert!(report.connects_per_s <= 125.0);
}

#[test]
fn handshakes_alone_can_be_measured() {
    let hubbub = Hubbub::alone();
    let options = ["--members", "5", "--idle", "--outside", "--seconds", "0.1"];
    let entered = || hubbub.log().matches("joined \"bench").count();
    let output = bench(&hubbub.url(), &options);
    assert_eq!((reports(&output).len(), entered()), (1, 0), "{output:?}");
    bench(
        &hubbub.url(),
        &["--members", "5", "--idle", "--seconds", "0.1"],
    );
    assert_eq!(entered(), 5, "{}", hubbub.log());
}

#[test]
fn a_server_that_limits_its_senders_cannot_be_measured() {
    let hubbub = Hubbub::with(&["--send-rate", "1"]);
    let output = bench(
        &hubbub.url(),
        &["--members", "2", "--rate", "1000", "--seconds", "5"],
    );
    let why = complaint(&output);
    assert!(why.contains("too fast"), "{why}");
    assert!(why.contains("--send-rate 0"), "{why}");
    assert_eq!(output.stdout, b"");
}

#[test]
fn what_is_no_chat_is_told_in_one_line() {
    let hubbub = Hubbub::alone();
    let url = hubbub.url();
    for (url, what) in [
        ("http://127.0.0.1:9".to_owned(), "cannot reach"),
        (format!("{url}/livez"), "answers: 200"),
        (format!("{url}/chat/a%2Fb"), "answers: 400"),
        (format!("{url}/chat/{{user}}?room=a%0Ab"), "answers: 400"),
    ] {
        let why = complaint(&bench(&url, &["--seconds", "1"]));
        assert!(why.contains(what), "{url}: {why}");
    }
    for wrong in [
        &["--members", "1", "--rooms", "2"][..],
        &["--size", "5"],
        &["--pid", "2147483647"],
        &["--idle", "--rate", "5"],
    ] {
        complaint(&bench(&url, wrong));
    }
}

/// What a bad chat does to one message in the middle.
#[derive(Clone, Copy)]
enum Fault {
    Lose,
    Double,
    Swap,
}

/// A chat for one sender and one member that passes on what it hears, but for one message.
fn bad_chat(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        // The first connection only looks whether somebody is there.
        drop(listener.accept());
        let [mut sender, member] = [(), ()].map(|()| upgraded(&listener));
        let mut held = None;
        for count in 0.. {
            let Some(text) = said(&mut sender) else {
                return;
            };
            let frame = frame::text(&[format!("somebody says {text}")]).expect("a frame");
            let write = |frame: &[u8]| drop(member.get_ref().write_all(frame));
            match (fault, count) {
                (Fault::Lose, 20) => continue,
                (Fault::Double, 20) => write(&frame),
                (Fault::Swap, 20) => {
                    held = Some(frame);
                    continue;
                }
                _ => {}
            }
            write(&frame);
            if let Some(late) = held.take() {
                write(&late);
            }
        }
    });
    format!("ws://{address}/some/where?as={{user}}")
}

fn upgraded(listener: &TcpListener) -> BufReader<TcpStream> {
    let (socket, _) = listener.accept().expect("a connection");
    let mut socket = BufReader::new(socket);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        socket.read_line(&mut line).expect("a request");
    }
    let answer = "HTTP/1.1 101 Switching Protocols\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let written = socket.get_ref().write_all(answer.as_bytes());
    written.expect("it can be answered");
    socket
}

/// The text of the next masked frame, of up to 125 bytes; `None` at the end.
fn said(socket: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = [0; 6];
    socket.read_exact(&mut head).ok()?;
    let mut payload = vec![0; usize::from(head[1] & 0x7f)];
    socket.read_exact(&mut payload).ok()?;
    let text = payload.iter().zip(head[2..].iter().cycle());
    let text = text.map(|(byte, mask)| byte ^ mask).collect();
    (head[0] == 0x81).then(|| String::from_utf8(text).expect("text"))
}

#[test]
fn what_a_bad_chat_does_is_found_and_fails() {
    for (fault, counts, sentence) in [
        (Fault::Lose, (1, 0, 0), "lost"),
        (Fault::Double, (0, 1, 0), "doubled"),
        (Fault::Swap, (0, 0, 1), "out of order"),
    ] {
        let output = bench(
            &bad_chat(fault),
            &["--members", "1", "--rate", "40", "--seconds", "1"],
        );
        let [report] = &reports(&output)[..] else {
            panic!("{output:?}");
        };
        assert_eq!(
            (report.lost, report.doubled, report.out_of_order),
            counts,
            "{sentence}"
        );
        assert_eq!(report.delivered + report.lost, report.sent);
        // A slow machine sends less in the second.
        let sentence = format!("1 of {} {sentence}", report.sent);
        let why = complaint(&output);
        assert!(why.contains(&sentence), "{why}");
    }
}
