//! `hubbub token`: mints a token for a server that was started with the same secret.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;

use super::{RoomName, UserName};
use crate::server::token::{Claims, Secret};

#[derive(Args)]
pub(super) struct Options {
    /// Whom it lets in
    name: UserName,
    /// The server's --token-secret
    #[arg(long = "secret", env = "HUBBUB_TOKEN_SECRET", value_name = "SECRET", value_parser = Secret::new, hide_env_values = true)]
    secret: Secret,
    /// How long it is valid
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    life: u64,
    /// A room that may be entered; may be repeated. Without any, all may
    #[arg(long = "room", value_name = "ROOM")]
    rooms: Vec<RoomName>,
}

pub(super) fn run(options: Options) -> Result<(), String> {
    let rooms = (!options.rooms.is_empty()).then_some(options.rooms);
    let life = Duration::from_secs(options.life);
    let token = Claims::new(options.name, life, rooms).sign(&options.secret);
    // Nobody reads a pipe that is closed.
    let _ = writeln!(io::stdout(), "{token}");
    Ok(())
}
