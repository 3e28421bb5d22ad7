//! Threads and locks, and the reach of a panic.
//!
//! A panic in a connection's thread ends that connection. A panic in a vital thread ends the process: the acceptor, the
//! publisher, its receipts, the subscriber, the topology, the sentinel, the fan-out workers, the keeper, the moderator,
//! the posters, `hangup`, and the embedded backplane's threads.
//!
//! A vital thread cannot be replaced. Its state is lost with it, and after an unknown fault a loop that
//! begins anew could not keep its promises. Without that thread the process would go on in part: it
//! would acknowledge sends that nobody hears, and `/readyz` would say 200. So a panic there ends the
//! process, and a supervisor starts a new one. Users come back and resume from the log.
//!
//! Receipts and deliveries to the hub run on these threads, too, and their panics are not caught
//! either. A send whose receipt panicked would never be answered, and a room whose delivery panicked
//! would have members that lack a message for ever.

#[cfg(debug_assertions)]
use std::any::type_name;
#[cfg(debug_assertions)]
use std::cell::RefCell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use log::error;

/// Takes the lock, even if a thread panicked while it held the lock. Every mutex of this crate guards
/// data that is valid between any two statements, so the data can still be used.
///
/// A debug build checks the order of locks ([`NESTED`]), so each test run holds it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> Guard<'_, T> {
    let held = HeldLock::of::<T>();
    let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
    Guard { guard, _held: held }
}

/// What those locks guard that a thread may take while it holds another one, in the order in which it takes them: the
/// roster and the owners of a cluster's slots; the worker's members of a room, a member's outbox, its writer's handle,
/// the thread of a connection that ended last, the flag that the outbox's reader waits, and what TLS knows of a
/// connection. All other locks are taken alone.
#[cfg(debug_assertions)]
const NESTED: [&str; 8] = [
    "backplane::roster::Roster",
    "backplane::redis::cluster::Owners",
    "Vec<hubbub::hub::member::Member>",
    "outbox::lane::Lane",
    "Option<hubbub::server::connection::pumps::Running>",
    "Option<std::thread::join_handle::JoinHandle<()>>",
    "bool",
    "stream::tls::TlsState",
];

/// A lock that is held.
pub(crate) struct Guard<'a, T> {
    guard: MutexGuard<'a, T>,
    _held: HeldLock,
}

impl<'a, T> Guard<'a, T> {
    /// Waits on a condition variable, which gives the lock back meanwhile.
    pub(crate) fn wait(self, on: &Condvar) -> Self {
        let guard = on.wait(self.guard).unwrap_or_else(PoisonError::into_inner);
        Self { guard, ..self }
    }

    /// The same for a limited time.
    pub(crate) fn wait_for(self, on: &Condvar, time: Duration) -> Self {
        let waited = on.wait_timeout(self.guard, time);
        let (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        Self { guard, ..self }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(debug_assertions)]
thread_local! {
    /// What the locks guard that this thread holds.
    static HELD: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// A lock in the list of those that its thread holds, in a debug build.
struct HeldLock {
    #[cfg(debug_assertions)]
    guards: &'static str,
}

#[cfg(debug_assertions)]
impl HeldLock {
    fn of<T>() -> Self {
        let guards = type_name::<T>();
        HELD.with_borrow_mut(|held| {
            let place = |name: &str| NESTED.iter().position(|nested| name.ends_with(nested));
            for outer in held.iter() {
                assert!(
                    place(outer)
                        .zip(place(guards))
                        .is_some_and(|(first, second)| first < second),
                    "the lock of {guards} is taken while that of {outer} is held"
                );
            }
            held.push(guards);
        });
        Self { guards }
    }
}

#[cfg(debug_assertions)]
impl Drop for HeldLock {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| {
            let index = held.iter().rposition(|guards| *guards == self.guards);
            held.remove(index.expect("it was taken on this thread"));
        });
    }
}

#[cfg(not(debug_assertions))]
impl HeldLock {
    fn of<T>() -> Self {
        Self {}
    }
}

/// The exit code of a process whose vital thread panicked. Rust uses the same code when the main thread
/// panics.
const PANICKED: i32 = 101;

/// Starts a thread whose panic ends the process with one line in the log and the exit code 101.
///
/// The process exits and does not abort: so a bug has an exit code of its own, and the supervisor's
/// restarts leave no core files. `exit` waits for no thread and takes no lock of ours, since it runs no
/// destructors. The log needs no flush, since it writes each line to stderr at once.
pub(crate) fn spawn_vital(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let name = name.to_owned();
    Builder::new().name(name.clone()).spawn(move || {
        if catch_unwind(AssertUnwindSafe(run)).is_ok() {
            return;
        }
        // If the log itself panicked, it panics here again.
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

    /// Set in the process that the test starts, whose thread panics.
    const CHILD: &str = "HUBBUB_TEST_PANICS_IN";

    /// The process ends long before this.
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

    /// Runs in the child process.
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
    #[should_panic(expected = "the lock of u16 is taken while that of u8 is held")]
    fn locks_that_are_not_in_the_order_are_not_held_together() {
        let (first, second) = (Mutex::new(1_u8), Mutex::new(2_u16));
        let _first = lock(&first);
        let _second = lock(&second);
    }

    #[test]
    fn a_vital_thread_that_returns_is_joined_like_any_other() {
        let thread = spawn_vital("heart", || {}).expect("a thread");
        assert!(thread.join().is_ok());
    }
}
