//! Stands for `src/backplane`: what it shares, as it is, and the threads of both backplanes.

#[path = "../../../src/backplane/backlog.rs"]
mod backlog;
#[path = "../../../src/backplane/roster.rs"]
mod roster;
pub mod local;
pub mod redis;

pub use hubbub::backplane::{
    ANSWER_WITHIN, BackplaneError, Ban, Banned, Departure, Draft, Receipt, ShardState, Stored,
};

pub mod ban {
    //! The clock stands still.
    pub const KEPT_LONGER: u64 = 0;
}
