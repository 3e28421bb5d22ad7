//! Stands for `src/backplane`: what it shares, as it is, and Redis.

pub mod redis;

pub use hubbub::backplane::{ANSWER_WITHIN, BackplaneError};
