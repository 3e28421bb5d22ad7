//! Which mutant is active in this program; see run.py.

use std::fs::File;
use std::io::Write;
use std::sync::{LazyLock, Mutex};

/// The number in MUTANT.
static ACTIVE: LazyLock<u32> =
    LazyLock::new(|| std::env::var("MUTANT").map_or(0, |number| number.parse().expect("a number")));
/// The file that MUTANT_TRACE names, and what is noted in it already.
static TRACE: LazyLock<Option<Mutex<(File, Vec<u32>)>>> = LazyLock::new(|| {
    let path = std::env::var_os("MUTANT_TRACE")?;
    let file = File::options().append(true).create(true).open(path).expect("the folder of mutants");
    Some(Mutex::new((file, Vec::new())))
});

/// The active mutant, if it is one of these, which are a function's; otherwise 0. The function's name in the trace is
/// the number of its first mutant.
pub fn active(first: u32, mutants: &[u32]) -> u32 {
    if let Some(trace) = &*TRACE {
        let (file, noted) = &mut *trace.lock().expect("nobody panics with it");
        if !noted.contains(&first) {
            noted.push(first);
            writeln!(file, "{first}").expect("the folder of mutants");
        }
    }
    if mutants.contains(&ACTIVE) { *ACTIVE } else { 0 }
}
