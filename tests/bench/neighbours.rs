//! What bad neighbours cost: the time from saying to hearing for the good members of a room, while
//! one member never reads, one trickles, one never answers a ping, one floods and 200 hold half a
//! handshake, in ratio to the same without them in the same run. Run by
//! `cargo bench --bench neighbours`; it needs `redis-server`.

#![allow(clippy::print_stdout)] // the figures are what it is for

use std::io;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use self::support::client::Client;
use self::support::hubbub::Hubbub;
use self::support::neighbours::among_bad_neighbours;
use self::support::redis::Redis;

#[allow(dead_code)] // the integration tests' own, of which this needs a part
#[path = "../it/support/mod.rs"]
mod support;

const LISTENERS: usize = 20;
const LINES: usize = 500;
const PACE: Duration = Duration::from_millis(10);
const ROUNDS: usize = 3;

fn main() {
    let redis = Redis::start();
    let limits = ["--ping-interval", "1"];
    let hubbub = Hubbub::on_with(&redis, &[&limits[..], &["--send-rate", "10"]].concat());
    // The speaker is elsewhere, where nobody limits it.
    let elsewhere = Hubbub::on(&redis);
    println!(
        "{LISTENERS} listeners, {LINES} lines, one each {} ms; from the intended time of saying it to hearing it",
        PACE.as_millis()
    );
    println!("neighbours      p50        p99        max");
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let alone = measure(&hubbub, &elsewhere);
        let among = among_bad_neighbours(&hubbub, || measure(&hubbub, &elsewhere));
        for (name, times) in [("none", &alone), ("bad ones", &among)] {
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| at(times, share));
            println!("{name:10} {p50:8.2?} {p99:10.2?} {max:10.2?}");
        }
        rounds.push(at(&among, 0.99).as_secs_f64() / at(&alone, 0.99).as_secs_f64());
    }
    rounds.sort_by(f64::total_cmp);
    println!(
        "p99 in ratio to itself without them: {:.2} (median of {ROUNDS})",
        rounds[ROUNDS / 2]
    );
}

/// The time that this share of the sorted times does not pass.
fn at(times: &[Duration], share: f64) -> Duration {
    let last = times.len() - 1;
    times[(last as f64 * share) as usize]
}

/// Says the lines, has every listener hear every one, and gives all their times, sorted.
fn measure(hubbub: &Hubbub, elsewhere: &Hubbub) -> Vec<Duration> {
    let mut listeners: Vec<_> = (0..LISTENERS)
        .map(|n| hubbub.join(&format!("l{n}")))
        .collect();
    let mut speaker = Client::json(elsewhere.address(), "speaker");
    speaker.joins("lobby");
    let begun = Instant::now() + PACE;
    let due = |line: usize| begun + PACE * line as u32;
    let mut times: Vec<Duration> = thread::scope(|scope| {
        let hearing: Vec<_> = listeners
            .iter_mut()
            .map(|listener| {
                scope.spawn(move || {
                    (0..LINES)
                        .map(|line| {
                            listener.hears_until(&format!("line {line}"));
                            Instant::now().saturating_duration_since(due(line))
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        // It does not listen, but reads: or it would be given up itself.
        let mut unheard = speaker.socket().try_clone().expect("a second handle");
        scope.spawn(move || io::copy(&mut unheard, &mut io::sink()));
        for line in 0..LINES {
            thread::sleep(due(line).saturating_duration_since(Instant::now()));
            let text = format!("line {line}");
            speaker.asks(&json!({"type": "send", "room": "lobby", "text": text}));
        }
        let heard = hearing.into_iter();
        let times = heard
            .flat_map(|one| one.join().expect("it hears all"))
            .collect();
        let _ = speaker.socket().shutdown(Shutdown::Both);
        times
    });
    times.sort();
    times
}
