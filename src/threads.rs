//! Threads and locks, and what a panic ends.
//!
//! A panic in a connection's thread ends that connection. A panic in a vital thread ends the process:
//! the acceptor, the publisher, the subscriber, the keeper, and the embedded backplane's thread.
//!
//! A vital thread cannot be replaced. Its state is lost with it, and a loop that begins anew behind an
//! unknown fault would promise what it may not keep. Without it the process goes on in part: sends are
//! acknowledged and nobody hears them, and `/readyz` says 200. So a panic there ends the process, and
//! a supervisor starts a whole one; users come back and resume, and the log has what they missed.
//!
//! This holds for a receipt that panics as well, and for a delivery to the hub, since both run on these
//! threads. A receipt that was caught leaves its send unanswered for ever, and a caught delivery leaves
//! a room in which some members have a message that the others never get.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use log::error;

/// Takes the lock, also when a thread panicked while it held it. Every mutex of this crate guards data
/// that is valid between any two statements, so the lock is still good to use.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The exit code of a process whose vital thread panicked; the same that Rust gives a process whose
/// main thread does.
const PANICKED: i32 = 101;

/// Starts a thread whose panic ends the process with one line in the log and the exit code 101.
///
/// The process exits and does not abort, so that a bug has an exit code of its own and leaves no core
/// file each time that the supervisor starts the next process. Exiting waits for no other thread and
/// takes none of their locks: destructors do not run, not even those of statics. Nothing is left to be
/// flushed, since the log writes each line through to stderr.
pub(crate) fn spawn_vital(
    name: &'static str,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).spawn(move || {
        if catch_unwind(AssertUnwindSafe(run)).is_ok() {
            return;
        }
        // The panic may have struck within the log, which then panics again.
        let _ = catch_unwind(|| {
            error!("the thread {name} panicked, and nothing can replace it: the process ends");
        });
        process::exit(PANICKED);
    })
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::Command;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Tells this test, started anew, that it is the process whose thread panics.
    const CHILD: &str = "HUBBUB_TEST_PANICS_IN";

    /// Longer than the process may take to end.
    const LONG: Duration = Duration::from_secs(20);

    struct ToStderr;

    impl log::Log for ToStderr {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        #[allow(clippy::print_stderr)] // it is what a log does
        fn log(&self, record: &log::Record<'_>) {
            eprintln!("[{}] {}", record.level(), record.args());
        }

        fn flush(&self) {}
    }

    /// What the child does.
    fn panic_in_a_vital_thread() {
        log::set_logger(&ToStderr).expect("the only log");
        log::set_max_level(log::LevelFilter::Error);
        spawn_vital("heart", || panic!("on purpose")).expect("a thread");
        thread::sleep(LONG);
    }

    #[test]
    fn a_panic_in_a_vital_thread_ends_the_process_with_one_line() {
        if env::var_os(CHILD).is_some() {
            return panic_in_a_vital_thread();
        }
        let itself = env::current_exe().expect("the path of the tests");
        let name = "threads::tests::a_panic_in_a_vital_thread_ends_the_process_with_one_line";
        let child = Command::new(itself)
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .expect("the tests start");
        assert_eq!(child.status.code(), Some(PANICKED), "{child:?}");
        let told = String::from_utf8_lossy(&child.stderr);
        let lines: Vec<_> = told.lines().filter(|l| l.starts_with("[ERROR]")).collect();
        assert_eq!(
            lines,
            ["[ERROR] the thread heart panicked, and nothing can replace it: the process ends"],
            "{told}"
        );
    }

    #[test]
    fn a_vital_thread_that_returns_is_joined_like_any_other() {
        let thread = spawn_vital("heart", || {}).expect("a thread");
        assert!(thread.join().is_ok());
    }
}
