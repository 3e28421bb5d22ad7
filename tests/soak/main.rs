//! The soak: two instances over the Redis servers of a mode, a crowd that talks, and a schedule of faults
//! that a seed fixes; then a look at what everyone saw, at who is present, and at what is left over. Run by
//! `scripts/soak.sh [seconds] [seed] [mode] [faults]`; it needs `redis-server`.
//!
//! First of all the checker is checked: `self_test.rs` plants a fault for each of its properties.
//! `cargo bench --bench soak -- --self-test` does that alone.

#![allow(clippy::print_stdout)] // the report is what it is for

mod check;
mod crowd;
mod faults;
mod kinds;
mod processes;
mod self_test;
mod servers;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{fs, thread};

use hubbub::client::{Client, ClientEvent, ServerUrl};
use hubbub::message::{MessageId, UserName};
use hubbub::protocol::{Command, Event};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use check::{Acknowledged, Losses, Present};
use crowd::{Crowd, ROOMS, Record, Seen};
use faults::{Fault, House};
use kinds::Kind;
use processes::{Load, is_ready};
use servers::Mode;
use support::{lock, within};

/// How long everyone may take to enter, and to hear the last words after the last fault.
const SETTLES_WITHIN: Duration = Duration::from_secs(25);

/// How long presence may take to be right: the expiry (6 s), and then the announcing of what is
/// found to be missing.
const PRESENCE_WITHIN: Duration = Duration::from_secs(20);

/// How long an instance may take to be as it was before anyone came; a room is heard for 5 s after
/// its last member left.
const CLEARS_WITHIN: Duration = Duration::from_secs(15);

/// More than all of the above and a drain: then the soak is stuck, and is ended.
const STUCK_AFTER: Duration = Duration::from_secs(85);

/// What the command line asks for.
struct Options {
    seconds: u64,
    seed: u64,
    mode: Mode,
    /// The faults that happen.
    kinds: Vec<Kind>,
    self_test_alone: bool,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        // cargo passes `--bench`.
        let (flags, given): (Vec<_>, Vec<_>) = arguments.partition(|a| a.starts_with("--"));
        let number = |index: usize| {
            let text = given.get(index)?;
            Some(
                text.parse::<u64>()
                    .map_err(|_| format!("{text:?} is no number")),
            )
        };
        let mode = given
            .get(2)
            .map_or(Ok(Mode::One), |name| Mode::parse(name))?;
        let kinds = given.get(3).map_or(Ok(Kind::all(mode)), |names| {
            let names = names.split(',');
            names.map(|name| Kind::parse(name, mode)).collect()
        })?;
        Ok(Self {
            seconds: number(0).unwrap_or(Ok(60))?.max(5),
            seed: number(1).unwrap_or_else(|| Ok(rand::random()))?,
            mode,
            kinds,
            self_test_alone: flags.iter().any(|flag| flag == "--self-test"),
        })
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            println!("soak: {why}");
            return ExitCode::FAILURE;
        }
    };
    let Options {
        seconds,
        seed,
        mode,
        ..
    } = options;
    let blind = self_test::run();
    blind.iter().for_each(|what| println!("wrong: {what}"));
    if options.self_test_alone || !blind.is_empty() {
        return conclude(blind.len(), "the checker");
    }
    println!("soak: {seconds} seconds, seed {seed}, mode {mode:?}");
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(seconds) + mode.overtime() + STUCK_AFTER);
        processes::kill_all();
        println!("soak: it did not end in time");
        std::process::exit(1);
    });
    // Each client takes a descriptor, and each one behind a proxy six more.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most.min(65_536), most);
    }
    let folder = processes::folder();
    fs::create_dir_all(&folder).expect("a folder for logs");
    let wrong = soak(&options);
    if wrong == 0 {
        let _ = fs::remove_dir_all(&folder);
    }
    let about = format!(
        "seed {seed}, mode {mode:?}; the logs are in {}",
        folder.display()
    );
    conclude(wrong, &about)
}

fn conclude(wrong: usize, about: &str) -> ExitCode {
    if wrong == 0 {
        println!("soak: passed");
        return ExitCode::SUCCESS;
    }
    println!("soak: {wrong} things are wrong with {about}");
    ExitCode::FAILURE
}

/// How many things are wrong.
fn soak(options: &Options) -> usize {
    let house = House::build(options.mode);
    // Only then all of its own threads are there.
    wait_until_ready(&house);
    let before: Vec<Load> = house.instances.iter().map(|i| lock(i).load()).collect();
    let crowd = Mutex::new(Crowd::gather(house.entrances()));
    wait_for(&house, &crowd, "enter", |r| r.entered.is_some());
    println!("soak: {} clients are there", lock(&crowd).size());

    let plan = faults::plan(options.seconds, options.seed, options.mode, &options.kinds);
    let begin = Instant::now();
    thread::scope(|scope| {
        for fault in &plan {
            thread::sleep(fault.at.saturating_sub(begin.elapsed()));
            println!("{:7.1} s  {}", fault.at.as_secs_f64(), fault.describe());
            scope.spawn(|| house.suffer(fault, &crowd));
        }
        let whole = Duration::from_secs(options.seconds);
        thread::sleep(whole.saturating_sub(begin.elapsed()));
    });
    println!(
        "{:7.1} s  the faults are over",
        begin.elapsed().as_secs_f64()
    );

    wait_until_ready(&house);
    lock(&crowd).end_talks();
    wait_for(&house, &crowd, "say its last words", |r| r.silent);
    let said = {
        let crowd = lock(&crowd);
        let (said, wrong) = check::acknowledged(&crowd.records());
        house.complain(wrong);
        said
    };
    wait_for(&house, &crowd, "see its room's last words", |record| {
        has_seen_the_last(record, &said)
    });
    check_presence(&house, &lock(&crowd));
    {
        let crowd = lock(&crowd);
        check_and_report(&house, &plan, &crowd.records(), crowd.gone(), &said);
    }
    for (kind, count) in faults::count(&plan) {
        println!("{count:9} x {kind:?}");
    }

    lock(&crowd).everyone_leaves();
    check_rest(&house, &before);
    for instance in &house.instances {
        let mut instance = lock(instance);
        house.complain(instance.runs().err());
        house.complain(instance.drain().err());
        house.complain(instance.panics());
    }
    lock(&house.wrong).len()
}

/// The newest message of a member's room.
fn last(record: &Record, said: &Acknowledged) -> Option<MessageId> {
    said.get(&record.room)?.keys().next_back().copied()
}

fn has_seen_the_last(record: &Record, said: &Acknowledged) -> bool {
    record.last_seen() >= last(record, said)
}

fn wait_until_ready(house: &House) {
    house.complain(check::late(SETTLES_WITHIN, "become ready", || {
        let instances = house.addresses.iter().enumerate();
        let others = instances.filter(|&(_, &address)| !is_ready(address));
        others
            .map(|(number, _)| format!("instance {number}"))
            .collect()
    }));
}

fn wait_for(house: &House, crowd: &Mutex<Crowd>, what: &str, fact: impl Fn(&Record) -> bool) {
    house.complain(check::late(SETTLES_WITHIN, what, || {
        lock(crowd).who_not(&fact)
    }));
}

/// Asks each instance who is in which room, and looks what the members were told.
fn check_presence(house: &House, crowd: &Crowd) {
    let mut expected = Present::new();
    for record in crowd.records() {
        let room = expected.entry(record.room).or_default();
        room.insert(record.name);
    }
    let mut auditors = Vec::new();
    for (number, address) in house.addresses.iter().enumerate() {
        let name: UserName = format!("auditor-{number}").parse().expect("a name");
        let server = ServerUrl::parse(&address.to_string()).expect("an address");
        let auditor = Client::start(server, name.clone()).expect("a thread for a client");
        for room in (0..ROOMS).map(crowd::room) {
            auditor.join(room.clone(), None, None);
            expected.entry(room).or_default().insert(name.clone());
        }
        auditors.push(auditor);
    }
    let mut told = vec![Present::new(); auditors.len()];
    let mut wrong = Vec::new();
    let _ = within(PRESENCE_WITHIN, || {
        for (auditor, told) in auditors.iter().zip(&mut told) {
            for room in expected.keys() {
                auditor.command(Command::Members { room: room.clone() });
            }
            let until = Instant::now() + Duration::from_millis(300);
            while let Ok(event) = auditor.events().recv_deadline(until) {
                if let ClientEvent::Server(Event::Members { room, members, .. }) = event {
                    told.insert(room, members.iter().cloned().collect::<BTreeSet<_>>());
                }
            }
        }
        wrong = check::presence(&expected, &told, &crowd.shown());
        wrong.is_empty().then_some(())
    });
    house.complain(wrong);
}

fn check_and_report(
    house: &House,
    plan: &[Fault],
    there: &[Record],
    gone: &[Record],
    said: &Acknowledged,
) {
    let nothing = BTreeMap::new();
    let everyone: Vec<_> = there.iter().chain(gone).collect();
    let mut seen = 0;
    let mut lost = 0;
    for (index, record) in everyone.iter().enumerate() {
        let said_there = said.get(&record.room).unwrap_or(&nothing);
        let losses = Losses::during(&lock(&house.losses));
        let until = if index < there.len() {
            last(record, said)
        } else {
            record.last_seen()
        };
        let who = &record.name;
        let sound = check::faults(record, said_there, until, &Losses::default()).is_empty();
        if index == 0 && sound {
            house.complain(self_test::blind_spots(record, said_there));
        }
        let faults = check::faults(record, said_there, until, &losses);
        lost += check::unseen(record, said_there, until).len();
        house.complain(faults.iter().map(|fault| format!("{who}: {fault}")));
        let messages = record.seen.iter();
        seen += messages.filter(|s| matches!(s, Seen::Message(..))).count();
    }
    house.complain(check::refusals(&[there, gone].concat()));
    let missed = check::missed(there);
    println!(
        "{:9} times one who is there was said to have left",
        missed.len()
    );
    if !plan.iter().any(Fault::may_part) {
        house.complain(missed);
    }
    let sum = |count: fn(&Record) -> usize| everyone.iter().map(|r| count(r)).sum::<usize>();
    let longest = everyone.iter().map(|r| r.longest).max();
    let longest = longest.unwrap_or_default();
    println!("{:9} messages acknowledged", sum(|r| r.acknowledged.len()));
    println!("{seen:9} deliveries seen by {} clients", everyone.len());
    println!("{lost:9} deliveries lost, for which Redis had forgotten the message");
    println!("{:9} times a gap was told", sum(check::count_gaps));
    println!("{:9} reconnects", sum(|r| r.connections.saturating_sub(1)));
    println!(
        "{:9} sends that had been stored before and were resent",
        sum(|r| r.duplicates)
    );
    println!(
        "{:9.1} s the longest wait for an acknowledgement",
        longest.as_secs_f64()
    );
}

/// Looks whether each instance is as it was before anyone came.
fn check_rest(house: &House, before: &[Load]) {
    for (number, (instance, before)) in house.instances.iter().zip(before).enumerate() {
        let mut after = Load::default();
        let mut wrong = Vec::new();
        let _ = within(CLEARS_WITHIN, || {
            after = lock(instance).load();
            wrong = check::left_over(before, &after);
            wrong.is_empty().then_some(())
        });
        println!(
            "instance {number}: {} threads (before: {}), {} descriptors ({}), {} KiB resident ({})",
            after.threads,
            before.threads,
            after.descriptors,
            before.descriptors,
            after.resident_kib,
            before.resident_kib,
        );
        house.complain(
            wrong
                .iter()
                .map(|what| format!("instance {number}: {what}")),
        );
    }
}
