//! Hooks: what other services post to a room, at `/hooks/{room}`.
//!
//! [`excerpt`] makes short lines of a service's JSON, [`github`] the text for an event of GitHub, [`slack`] that of a
//! message for Slack, and [`payload`] the text for any service. `post_body.rs` reads the JSON from a request, and [`super::api`] publishes the text as any
//! other post.

mod excerpt;
mod github;
mod slack;
pub mod payload;
