//! Locks that outlive a panic.
//!
//! A panic ends its connection's thread and nothing else (where a thread cannot be replaced, it ends
//! the process: `vital`). Every mutex here guards data that is valid between any two statements, so a
//! lock that a dying thread held is still good to use.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes the lock, also when a thread panicked while it held it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
