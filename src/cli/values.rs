//! The values of options: parsers that say in one sentence what a value has to be.

use std::error::Error;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use log::LevelFilter;

use super::usage::Unusable;
use crate::server::config::Limit;

/// Accepts a number in the range of this limit.
pub(super) fn within<T>(limit: Limit) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: TryFrom<u64>,
{
    move |text| {
        let number = text
            .parse()
            .ok()
            .filter(|number| limit.range.contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        let (least, most) = (limit.range.start(), limit.range.end());
        number.ok_or_else(|| format!("it has to be a whole number from {least} to {most}"))
    }
}

/// Parses or resolves a listen address.
pub(super) fn address(text: &str) -> Result<SocketAddr, Box<dyn Error + Send + Sync>> {
    let (host, port) = text.rsplit_once(':').unwrap_or_default();
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err("it should look like 127.0.0.1:8080".into());
    }
    // Its name may have an address later.
    let cannot_find = |why: io::Error| Unusable(format!("it has no address: {why}"));
    let mut found = text.to_socket_addrs().map_err(cannot_find)?;
    found
        .next()
        .ok_or_else(|| Unusable("it has no address".to_owned()).into())
}

/// Checks an origin (RFC 6454 §6.2), or the word for all.
pub(super) fn allowed_origin(text: &str) -> Result<String, String> {
    let host = text.split_once("://").map_or("", |(_, host)| host);
    if (host.is_empty() || host.contains(['/', '?', '#'])) && text != "*" {
        return Err("it should look like https://chat.example, or *".to_owned());
    }
    Ok(text.to_owned())
}

/// Parses a switch. The other words are what programs write for `on` and `off`.
pub(super) fn on_or_off(text: &str) -> Result<bool, String> {
    match &*text.to_ascii_lowercase() {
        "on" | "true" | "t" | "yes" | "y" | "1" => Ok(true),
        "off" | "false" | "f" | "no" | "n" | "0" => Ok(false),
        _ => Err("it has to be on or off".to_owned()),
    }
}

/// Parses a level of the log.
pub(super) fn level(text: &str) -> Result<LevelFilter, String> {
    text.parse()
        .map_err(|_| "it has to be off, error, warn, info, debug or trace".to_owned())
}

/// Checks a host's name, without a port.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let name = text.trim_end_matches('.');
    let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if name.is_empty() || !name.chars().all(good) {
        return Err(
            "it should look like chat.example, without a port; other letters as xn--".to_owned(),
        );
    }
    Ok(name.to_ascii_lowercase())
}
