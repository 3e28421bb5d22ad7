//! `hubbub token`: makes a token for a server that was started with the same secret.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;

use super::UserName;
use crate::server::token::{Audience, Claims, RoomPattern, Secret};

#[derive(Args)]
pub(super) struct TokenArgs {
    /// The user that the token lets in
    name: UserName,
    /// The server's --token-secret
    #[arg(long = "secret", env = "HUBBUB_TOKEN_SECRET", value_name = "SECRET", value_parser = Secret::new, hide_env_values = true)]
    secret: Secret,
    /// The time for which the token is valid
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    life: u64,
    /// A room that the user may join, or all that begin alike, as in `team-*`; may be repeated. Without it, every room
    #[arg(long = "room", value_name = "ROOM")]
    rooms: Vec<RoomPattern>,
    /// The user may join and read, and say nothing
    #[arg(long)]
    read_only: bool,
    /// The server's --token-issuer
    #[arg(long, env = "HUBBUB_TOKEN_ISSUER", value_name = "ISSUER")]
    issuer: Option<String>,
    /// The server's --token-audience
    #[arg(long, env = "HUBBUB_TOKEN_AUDIENCE", value_name = "AUDIENCE")]
    audience: Option<String>,
}

pub(super) fn run(args: TokenArgs) -> Result<(), String> {
    let rooms = (!args.rooms.is_empty()).then_some(args.rooms);
    let life = Duration::from_secs(args.life);
    let claims = Claims {
        readonly: args.read_only,
        iss: args.issuer,
        aud: args.audience.map(Audience::One),
        ..Claims::new(args.name, life, rooms)
    };
    let token = claims.sign(&args.secret);
    // A closed pipe has no reader to whom the failure matters.
    let _ = writeln!(io::stdout(), "{token}");
    Ok(())
}
