//! `hubbub ready`: a health check for container images that hold nothing but this binary.

use std::time::Duration;

use clap::Args;

use crate::client::ServerUrl;

#[derive(Args)]
pub(super) struct ReadyArgs {
    /// The server
    #[arg(long, env = "HUBBUB_URL", value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = ServerUrl::parse)]
    url: ServerUrl,
    /// The time within which the server has to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    timeout: u64,
}

pub(super) fn run(args: &ReadyArgs) -> Result<(), String> {
    args.url.is_ready(Duration::from_secs(args.timeout.max(1)))
}
