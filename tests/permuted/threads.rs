//! Stands for `src/threads.rs`: the same locks and threads, without the order of locks, which a debug build checks by
//! thread, and without the end of the process: here a panic ends the test.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> Guard<'_, T> {
    Guard(mutex.lock().unwrap_or_else(PoisonError::into_inner))
}

pub(crate) struct Guard<'a, T>(MutexGuard<'a, T>);

impl<T> Guard<'_, T> {
    pub(crate) fn wait(self, on: &Condvar) -> Self {
        Self(on.wait(self.0).unwrap_or_else(PoisonError::into_inner))
    }

    /// Never times out: a wake-up that is lost must not be made up for by a look at the clock.
    pub(crate) fn wait_for(self, on: &Condvar, _: Duration) -> Self {
        self.wait(on)
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

pub(crate) fn spawn_vital(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(run)
}
