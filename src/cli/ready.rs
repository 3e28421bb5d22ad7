//! `hubbub ready`: a health check for container images that hold nothing but this binary.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::client::ServerUrl;

#[derive(Args)]
pub(super) struct ReadyArgs {
    /// The server
    #[arg(long, env = "HUBBUB_URL", value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = ServerUrl::parse)]
    url: ServerUrl,
    /// A file with the authorities to trust for https, in PEM, instead of those of the system
    #[arg(long, env = "HUBBUB_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The time within which the server has to be ready; until then it is asked again
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
}

pub(super) fn run(args: &ReadyArgs) -> Result<(), String> {
    let within = Duration::from_secs(args.timeout.max(1));
    args.url.is_ready(args.ca.as_deref(), within)
}
