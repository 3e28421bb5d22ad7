//! Stands for `src/server`: the pumps of a connection, and what they need.

pub mod connection;

pub mod config {
    //! The limits, as they are.
    pub use hubbub::server::config::{Config, Deadlines};
}

pub mod grant {
    //! What a connection may do, as it is.
    pub use hubbub::server::grant::Grant;
}

#[path = "../../../src/server/rate.rs"]
pub mod rate;
