//! The soak: two instances over one Redis, a crowd that talks, and a schedule of faults that a seed
//! fixes; then a look at what everyone saw, at who is present, and at what is left over. Run by
//! `scripts/soak.sh [seconds] [seed]`; it needs `redis-server`.

#![allow(clippy::print_stdout)] // the report is what it is for

mod check;
mod crowd;
mod faults;
mod processes;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{fs, thread};

use hubbub::client::{Client, Happening, ServerUrl};
use hubbub::message::{RoomName, UserName};
use hubbub::protocol::{Command, Event};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use check::Acknowledged;
use crowd::{Crowd, ROOMS, Record, Seen};
use faults::House;
use processes::Load;
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

/// What may be there at the end and was not at the beginning.
const SPARE_THREADS: usize = 2;
const SPARE_DESCRIPTORS: usize = 4;
const SPARE_RESIDENT_KIB: usize = 50 * 1024;

/// So many findings are shown.
const SHOWN: usize = 40;

fn main() -> ExitCode {
    // cargo passes `--bench`; numbers are the seconds and the seed.
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u64>().ok());
    let seconds = numbers.next().unwrap_or(60).max(5);
    let seed = numbers.next().unwrap_or_else(rand::random);
    println!("soak: {seconds} seconds, seed {seed}");
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(seconds) + STUCK_AFTER);
        processes::kill_all();
        println!("soak: it did not end in time");
        std::process::exit(1);
    });
    // Each client takes a descriptor, and each one behind a proxy six more.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most.min(65_536), most);
    }
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for logs");
    let wrong = soak(seconds, seed, &folder);
    if wrong.is_empty() {
        let _ = fs::remove_dir_all(&folder);
        println!("soak: passed");
        return ExitCode::SUCCESS;
    }
    for what in wrong.iter().take(SHOWN) {
        println!("wrong: {what}");
    }
    println!(
        "soak: {} things are wrong with seed {seed}; the logs are in {}",
        wrong.len(),
        folder.display()
    );
    ExitCode::FAILURE
}

/// What is wrong.
fn soak(seconds: u64, seed: u64, folder: &std::path::Path) -> Vec<String> {
    let house = House::build(folder);
    // Only then all of its own threads are there.
    wait_until_ready(&house);
    let before: Vec<Load> = house.instances.iter().map(|i| lock(i).load()).collect();
    let crowd = Mutex::new(Crowd::gather(house.entrances()));
    wait_for(&house, &crowd, "enter", |r| r.entered.is_some());
    println!("soak: {} clients are there", lock(&crowd).size());

    let plan = faults::plan(seconds, seed);
    let begin = Instant::now();
    thread::scope(|scope| {
        for fault in &plan {
            thread::sleep(fault.at.saturating_sub(begin.elapsed()));
            println!("{:7.1} s  {}", fault.at.as_secs_f64(), fault.describe());
            scope.spawn(|| house.suffer(fault, &crowd));
        }
        let whole = Duration::from_secs(seconds);
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
        check::acknowledged(&crowd.records(), &mut lock(&house.wrong))
    };
    let last = |record: &Record| said.get(&record.room)?.keys().next_back().copied();
    wait_for(&house, &crowd, "see its room's last words", |record| {
        record.last_seen() >= last(record)
    });
    check_presence(&house, &lock(&crowd));
    {
        let crowd = lock(&crowd);
        check_and_report(&house, &crowd.records(), crowd.gone(), &said);
    }
    for (kind, count) in faults::count(&plan) {
        println!("{count:9} x {kind:?}");
    }

    lock(&crowd).everyone_leaves();
    check_rest(&house, &before);
    for instance in &house.instances {
        let mut instance = lock(instance);
        house.look_whether_it_ended(&mut instance);
        if let Err(what) = instance.drain() {
            house.complain(what);
        }
        instance
            .panics()
            .into_iter()
            .for_each(|p| house.complain(p));
    }
    std::mem::take(&mut *lock(&house.wrong))
}

fn wait_until_ready(house: &House) {
    for (number, instance) in house.instances.iter().enumerate() {
        if within(SETTLES_WITHIN, || lock(instance).is_ready().then_some(())).is_none() {
            house.complain(format!(
                "instance {number} is not ready in {SETTLES_WITHIN:?}"
            ));
        }
    }
}

fn wait_for(house: &House, crowd: &Mutex<Crowd>, what: &str, fact: impl Fn(&Record) -> bool) {
    let done = || lock(crowd).who_not(&fact).is_empty().then_some(());
    if within(SETTLES_WITHIN, done).is_none() {
        for name in lock(crowd).who_not(&fact) {
            house.complain(format!("{name} did not {what} in {SETTLES_WITHIN:?}"));
        }
    }
}

/// Asks each instance who is in which room, and looks what the members were shown.
fn check_presence(house: &House, crowd: &Crowd) {
    let mut expected: BTreeMap<RoomName, BTreeSet<UserName>> = BTreeMap::new();
    for record in crowd.records() {
        let room = expected.entry(record.room).or_default();
        room.insert(record.name);
    }
    let mut auditors = Vec::new();
    for (number, instance) in house.instances.iter().enumerate() {
        let name: UserName = format!("auditor-{number}").parse().expect("a name");
        let server = ServerUrl::parse(&lock(instance).address().to_string()).expect("an address");
        let auditor = Client::start(server, name.clone()).expect("a thread for a client");
        for room in (0..ROOMS).map(crowd::room) {
            auditor.join(room.clone(), None, None);
            expected.entry(room).or_default().insert(name.clone());
        }
        auditors.push(auditor);
    }
    let mut answers = vec![BTreeMap::new(); auditors.len()];
    let right = within(PRESENCE_WITHIN, || {
        for (auditor, answers) in auditors.iter().zip(&mut answers) {
            for room in expected.keys() {
                auditor.command(Command::Members { room: room.clone() });
            }
            let until = Instant::now() + Duration::from_millis(300);
            while let Ok(happening) = auditor.happenings().recv_deadline(until) {
                if let Happening::Event(Event::Members { room, members }) = happening {
                    answers.insert(room, members.iter().cloned().collect::<BTreeSet<_>>());
                }
            }
        }
        let shown = crowd.who_not(|r| expected.get(&r.room) == Some(&r.members));
        (answers.iter().all(|a| *a == expected) && shown.is_empty()).then_some(())
    });
    if right.is_some() {
        return;
    }
    let difference = |room: &RoomName, shown: &BTreeSet<UserName>| {
        let missing: Vec<_> = expected[room].difference(shown).collect();
        let extra: Vec<_> = shown.difference(&expected[room]).collect();
        (!missing.is_empty() || !extra.is_empty())
            .then(|| format!("without {missing:?} and with {extra:?} too many"))
    };
    for (number, answers) in answers.iter().enumerate() {
        for room in expected.keys() {
            let nobody = BTreeSet::new();
            if let Some(how) = difference(room, answers.get(room).unwrap_or(&nobody)) {
                house.complain(format!("instance {number} tells of {room} {how}"));
            }
        }
    }
    for record in crowd.records() {
        if let Some(how) = difference(&record.room, &record.members) {
            house.complain(format!("{} was shown {} {how}", record.name, record.room));
        }
    }
}

fn check_and_report(house: &House, there: &[Record], gone: &[Record], said: &Acknowledged) {
    let mut wrong = lock(&house.wrong);
    let (mut seen, mut gaps) = (0, 0);
    for (index, record) in there.iter().chain(gone).enumerate() {
        let Some(said) = said.get(&record.room) else {
            continue;
        };
        let until = if index < there.len() {
            said.keys().next_back().copied()
        } else {
            record.last_seen()
        };
        let who = &record.name;
        let faults = check::faults(record, said, until);
        wrong.extend(faults.iter().map(|fault| format!("{who}: {fault}")));
        // These come first: much else that is wrong may follow from them.
        wrong.splice(
            0..0,
            record.refusals.iter().map(|why| format!("{who}: {why}")),
        );
        for item in &record.seen {
            match item {
                Seen::Message(..) => seen += 1,
                Seen::Gap(after, before) => {
                    gaps += 1;
                    println!("gap: {who} in {}: {after:?} to {before:?}", record.room);
                }
            }
        }
        if index == 0 && faults.is_empty() && !check::can_fail(record, said) {
            wrong.push("the checker would not find a hole".to_owned());
        }
    }
    let all = || there.iter().chain(gone);
    let sum = |count: fn(&Record) -> usize| all().map(count).sum::<usize>();
    let longest = all().map(|r| r.longest).max().unwrap_or_default();
    println!("{:9} messages acknowledged", sum(|r| r.acknowledged.len()));
    println!("{seen:9} deliveries seen by {} clients", all().count());
    println!("{:9} reconnects", sum(|r| r.connections.saturating_sub(1)));
    println!("{gaps:9} gaps announced");
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
        let load = || lock(instance).load();
        let most = before.resident_kib * 3 + SPARE_RESIDENT_KIB;
        let clear = |load: &Load| {
            load.threads <= before.threads + SPARE_THREADS
                && load.descriptors <= before.descriptors + SPARE_DESCRIPTORS
                && load.resident_kib <= most
        };
        let _ = within(CLEARS_WITHIN, || clear(&load()).then_some(()));
        let after = load();
        let told = format!(
            "instance {number}: {} threads (before: {}), {} descriptors ({}), {} KiB resident ({}, \
             at most {most})",
            after.threads,
            before.threads,
            after.descriptors,
            before.descriptors,
            after.resident_kib,
            before.resident_kib,
        );
        println!("{told}");
        if !clear(&after) {
            house.complain(format!("something is left over, {told}"));
        }
    }
}
