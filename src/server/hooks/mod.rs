//! Webhooks, in both directions.
//!
//! In: [`payload`] turns another service's JSON into the text of a message, [`github`] that of GitHub, and [`excerpt`]
//! shortens its parts; [`super::api`] reads it from a request, and publishes it as any other post. Out: the [`poster`]
//! posts what is said in a room to another service, by a [`request`].

mod excerpt;
mod github;
pub mod payload;
mod request;
mod poster;

pub use self::poster::{Posters, render_lags, take_leases};
pub use self::request::AGENT;
