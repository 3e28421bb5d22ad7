//! Webhooks: what other services post to a room.
//!
//! [`payload`] turns a service's JSON into the text of a message; [`super::api`] reads it from a request, and publishes
//! it as any other post.

pub mod payload;
