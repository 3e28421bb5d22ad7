//! What an acknowledgement costs: sends per second through one instance, in ratio to a bare
//! pipelined loop of the same script in the same run; how soon a thousand rooms are healed after a cut;
//! what a disk costs; and what more than one Redis brings, to one instance and to a bare loop for each. Run by `cargo bench --bench acks`; it needs `redis-server`.
//!
//! The senders wait for each acknowledgement before they say the next thing, as people do; the
//! loop sends as many at a time as there are senders.

#![allow(clippy::print_stdout)] // the figures are what it is for

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const SECONDS: f64 = 3.0;
const ROUNDS: usize = 3;
/// The senders that share more than one Redis.
const MANY: usize = 128;
const MOST_MASTERS: usize = 3;
const TEXT: &str = "a message of a hundred bytes, more or less, as people in a chat write them all day long, yes indeed";

fn main() {
    let (redis, port) = start_redis();
    let (hubbub, address) = start_hubbub(&[port], None);
    println!("senders   acknowledged/s   bare loop/s   ratio   (medians of {ROUNDS})");
    // cargo passes `--bench`; numbers are numbers of senders.
    let asked: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let asked = if asked.is_empty() {
        vec![1, 16, 128]
    } else {
        asked
    };
    for senders in asked {
        let mut rounds: Vec<(f64, f64)> = (0..ROUNDS)
            .map(|_| (through_hubbub(&address, senders), bare_loop(port, senders)))
            .collect();
        rounds.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        let (ours, bare) = rounds[ROUNDS / 2];
        println!(
            "{senders:7}   {ours:14.0}   {bare:11.0}   {:5.2}",
            ours / bare
        );
    }
    let mut times: Vec<Duration> = (0..ROUNDS).map(|_| heal(&address, port, 1000)).collect();
    times.sort();
    println!(
        "1,000 rooms healed {:.0} ms after the cut (median)",
        times[ROUNDS / 2].as_secs_f64() * 1e3
    );
    drop(hubbub);
    on_disk();
    let mut servers = vec![(redis, port)];
    println!("masters   acknowledged/s   bare loops/s   ({MANY} senders)");
    for _ in 0..MOST_MASTERS {
        let ports: Vec<u16> = servers.iter().map(|(_, port)| *port).collect();
        // The list of servers is another one now, and the last has to be forgotten.
        ports.iter().for_each(|port| forget_servers(*port));
        let (_hubbub, address) = start_hubbub(&ports, None);
        let mut rounds: Vec<(f64, f64)> = (0..ROUNDS)
            .map(|_| (through_hubbub(&address, MANY), bare_loops(&ports)))
            .collect();
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ours, bare) = rounds[ROUNDS / 2];
        println!("{:7}   {ours:14.0}   {bare:12.0}", ports.len());
        servers.push(start_redis());
    }
}

fn forget_servers(port: u16) {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("an address");
    let mut connection = client.get_connection().expect("a connection");
    let deleted: redis::RedisResult<i64> = redis::cmd("DEL")
        .arg("hubbub:servers")
        .query(&mut connection);
    deleted.expect("an answer");
}

/// Without Redis: in memory, on disk, and a bare loop that writes as many messages and waits until the disk has them.
fn on_disk() {
    println!(
        "senders   in memory/s   on disk/s   write and fsync/s   ratio   (medians of {ROUNDS})"
    );
    let folder = std::env::temp_dir().join(format!("hubbub-acks-{}", std::process::id()));
    let (_memory, in_memory) = start_hubbub(&[], None);
    let (_disk, on_disk) = start_hubbub(&[], Some(&folder));
    for senders in [1, 16, MANY] {
        let mut rounds: Vec<[f64; 3]> = (0..ROUNDS)
            .map(|_| {
                [
                    through_hubbub(&in_memory, senders),
                    through_hubbub(&on_disk, senders),
                    write_and_fsync(&folder, senders),
                ]
            })
            .collect();
        rounds.sort_by(|a, b| (a[1] / a[2]).total_cmp(&(b[1] / b[2])));
        let [memory, disk, bare] = rounds[ROUNDS / 2];
        println!(
            "{senders:7}   {memory:11.0}   {disk:9.0}   {bare:17.0}   {:5.2}",
            disk / bare
        );
    }
    let _ = std::fs::remove_dir_all(folder);
}

/// Messages a second.
fn write_and_fsync(folder: &Path, at_once: usize) -> f64 {
    let path = folder.join("bare");
    let mut file = std::fs::File::create(&path).expect("a file");
    let messages = TEXT.repeat(at_once);
    let begun = Instant::now();
    let mut written = 0;
    while begun.elapsed().as_secs_f64() < SECONDS {
        file.write_all(messages.as_bytes()).expect("a write");
        file.sync_data().expect("it is on disk");
        written += at_once;
    }
    let rate = written as f64 / begun.elapsed().as_secs_f64();
    std::fs::remove_file(path).expect("it is gone");
    rate
}

/// A bare loop for each of these, all at once. Returns their sum.
fn bare_loops(ports: &[u16]) -> f64 {
    thread::scope(|scope| {
        let loops: Vec<_> = ports
            .iter()
            .map(|port| scope.spawn(|| bare_loop(*port, MANY)))
            .collect();
        loops
            .into_iter()
            .map(|one| one.join().expect("a rate"))
            .sum()
    })
}

/// Ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_redis() -> (Process, u16) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its number").port();
    drop(listener);
    let child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--save", ""])
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server; install it with: apt-get install redis-server");
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        thread::sleep(Duration::from_millis(10));
    }
    (Process(child), port)
}

fn start_hubbub(redis: &[u16], data: Option<&Path>) -> (Process, String) {
    let urls = redis
        .iter()
        .flat_map(|port| ["--redis".to_owned(), format!("redis://127.0.0.1:{port}")]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_hubbub"))
        .args(urls)
        .args(data.iter().flat_map(|folder| [Path::new("--data"), folder]))
        .args(["--listen", "127.0.0.1:0", "--log-level", "warn"])
        .args(["--rooms-per-connection", "1000", "--send-rate", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("hubbub");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("it was piped");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("a start line");
    let address = line.split_once("http://").expect("an address").1;
    let address = address.split(' ').next().expect("its end").to_owned();
    (Process(child), address)
}

/// A connection in the JSON encoding.
struct Link {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Link {
    fn open(address: &str, user: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a time-out");
        let head = format!(
            "GET /chat/{user} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: hubbub.v1\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("a request");
        let mut link = Self {
            stream,
            buffer: Vec::new(),
        };
        link.wait_for(b"\"welcome\"", 1);
        link
    }

    fn send(&mut self, payload: &str) {
        (&self.stream)
            .write_all(&frame(payload))
            .expect("it can be sent");
    }

    /// Reads until so many occurrences have passed. Enough for what is sent here: the words that
    /// are looked for stand in no message.
    fn wait_for(&mut self, word: &[u8], mut count: usize) {
        let mut chunk = [0; 16 * 1024];
        loop {
            while let Some(at) = self.buffer.windows(word.len()).position(|w| w == word) {
                self.buffer.drain(..at + word.len());
                count -= 1;
                if count == 0 {
                    return;
                }
            }
            let keep = self.buffer.len().saturating_sub(word.len());
            self.buffer.drain(..keep);
            let read = self.stream.read(&mut chunk).expect("an answer");
            assert!(read > 0, "the connection ended");
            self.buffer.extend_from_slice(&chunk[..read]);
        }
    }
}

/// A masked text frame; the mask is zero, which costs nobody anything.
fn frame(payload: &str) -> Vec<u8> {
    let length = payload.len();
    let mut frame = vec![0x81];
    if length < 126 {
        frame.push(0x80 | length as u8);
    } else {
        frame.push(0x80 | 126);
        frame.extend_from_slice(&(length as u16).to_be_bytes());
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload.as_bytes());
    frame
}

/// Acknowledged sends per second of `senders` connections, each in a room of its own.
fn through_hubbub(address: &str, senders: usize) -> f64 {
    let threads = senders.min(8);
    let begin = Instant::now() + Duration::from_millis(500);
    let end = begin + Duration::from_secs_f64(SECONDS);
    let counts: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    let mut links: Vec<_> = (worker..senders)
                        .step_by(threads)
                        .map(|n| {
                            let room = format!("room-{n}");
                            let mut link = Link::open(address, &format!("sender-{n}"));
                            link.send(&format!(r#"{{"type":"join","room":"{room}"}}"#));
                            link.wait_for(b"\"recovered\"", 1);
                            let send =
                                format!(r#"{{"type":"send","room":"{room}","text":"{TEXT}"}}"#);
                            (link, send)
                        })
                        .collect();
                    thread::sleep(begin.saturating_duration_since(Instant::now()));
                    let mut count = 0;
                    while Instant::now() < end {
                        for (link, send) in &mut links {
                            link.send(send);
                        }
                        for (link, _) in &mut links {
                            link.wait_for(b"\"duplicate\"", 1);
                        }
                        count += links.len();
                    }
                    count
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|w| w.join().expect("a count"))
            .sum()
    });
    counts as f64 / SECONDS
}

/// The same script in a bare loop: so many in one pipeline, one pipeline after the other.
fn bare_loop(port: u16, batch: usize) -> f64 {
    let script = redis::Script::new(concat!(
        include_str!("../../src/backplane/redis/ids.lua"),
        include_str!("../../src/backplane/redis/publish.lua")
    ));
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("an address");
    let mut connection = client.get_connection().expect("a connection");
    script
        .prepare_invoke()
        .load(&mut connection)
        .expect("a script");
    let mut pipeline = redis::pipe();
    for n in 0..batch {
        let room = format!("bare:{{room-{n}}}");
        pipeline
            .cmd("EVALSHA")
            .arg(script.get_hash())
            .arg(2)
            .arg(format!("{room}:log"))
            .arg(format!("{room}:newest"))
            .arg("PUBLISH")
            .arg(&room)
            .arg("sender")
            .arg(TEXT)
            .arg("0123456789abcdef.1")
            .arg(1000)
            .arg(86_400_000)
            .arg(691_200_000)
            .arg(300_000)
            .arg(0);
    }
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed().as_secs_f64() < SECONDS {
        pipeline.exec(&mut connection).expect("answers");
        count += batch;
    }
    count as f64 / begin.elapsed().as_secs_f64()
}

/// Cuts the subscription, says one thing in each room through the publisher, which is not cut, and
/// waits until the member heard them all.
fn heal(address: &str, port: u16, rooms: usize) -> Duration {
    let mut member = Link::open(address, "member");
    for n in 0..rooms {
        member.send(&format!(r#"{{"type":"join","room":"heal-{n}"}}"#));
        member.wait_for(b"\"recovered\"", 1);
    }
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("an address");
    let mut connection = client.get_connection().expect("a connection");
    let sends: Vec<u8> = (0..rooms)
        .flat_map(|n| {
            frame(&format!(
                r#"{{"type":"send","room":"heal-{n}","text":"x"}}"#
            ))
        })
        .collect();
    let cut: redis::RedisResult<i64> = redis::cmd("CLIENT")
        .arg(&["KILL", "TYPE", "pubsub"])
        .query(&mut connection);
    cut.expect("a cut");
    let begin = Instant::now();
    (&member.stream)
        .write_all(&sends)
        .expect("they can be sent");
    member.wait_for(br#""type":"message""#, rooms);
    begin.elapsed()
}
