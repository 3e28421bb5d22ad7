//! The permuter: runs each test under so many schedules, half of them random and half with few changes of priority
//! (PCT), which finds what needs one thread to stand still for long.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use real::sync::atomic::{AtomicUsize, Ordering};
use real::time::Instant;
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

/// A test, and the share of the schedules that it gets, in percent: a slow one gets fewer.
pub type Test = (&'static str, usize, fn());

/// A bug of this depth needs so many changes of priority.
const DEPTH: usize = 3;

/// What a test takes by far. More means that threads go round in circles.
const MOST_STEPS: usize = 100_000;

const STACK: usize = 256 * 1024;

const SEED: &str = "PERMUTED_SEED";

/// The permuter's choice: true once in so many times.
pub fn chance(of: u32) -> bool {
    thread_rng().gen_ratio(1, of)
}

/// The permuter's choice: all, nothing, or a part.
pub fn up_to(all: usize) -> usize {
    match thread_rng().gen_range(0..3) {
        0 => 0,
        1 => all,
        _ => thread_rng().gen_range(0..=all),
    }
}

/// Runs those tests whose names contain `part`.
pub fn run(tests: &[Test], schedules: usize, part: &str) -> ExitCode {
    let seed = env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    let chosen = tests.iter().filter(|(name, _, _)| name.contains(part));
    let chosen: Vec<_> = chosen.collect();
    // A name that is wrong must not look like a success.
    let mut failed = chosen.is_empty();
    for (name, percent, test) in chosen {
        let count = (schedules * percent / 100).max(2);
        let begun = Instant::now();
        let random = RandomScheduler::new_from_seed(seed, count / 2);
        let pct = PctScheduler::new_from_seed(seed, DEPTH, count / 2);
        let found = permute(random, "random", *test).or_else(|| permute(pct, "PCT", *test));
        let took = begun.elapsed().as_secs_f64();
        match found {
            None => println!("permuted: {name}: {count} schedules, {took:.1} s"),
            Some(found) => {
                failed = true;
                println!("permuted: {name}: FAILED at schedule {found}; {SEED}={seed} repeats it");
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

/// Which schedule fails, if one does.
fn permute(scheduler: impl Scheduler + 'static, kind: &str, test: fn()) -> Option<String> {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    config
        .ungraceful_shutdown_config
        .immediately_return_on_panic = true;
    let schedules = real::sync::Arc::new(AtomicUsize::new(0));
    let count = real::sync::Arc::clone(&schedules);
    let runner = Runner::new(scheduler, config);
    let run = catch_unwind(AssertUnwindSafe(|| {
        runner.run(move || {
            count.fetch_add(1, Ordering::Relaxed);
            test();
        })
    }));
    run.is_err()
        .then(|| format!("{} ({kind})", schedules.load(Ordering::Relaxed)))
}
