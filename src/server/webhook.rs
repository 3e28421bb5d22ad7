//! A webhook: a room, and the address to which its messages are posted.

use std::fmt;

use data_encoding::HEXLOWER;
use percent_encoding::percent_decode_str;
use ring::digest::{SHA256, digest};

use crate::message::RoomName;
use crate::stream::ServerUrl;

/// A webhook. Its address is a secret: neither the log nor `Debug` shows more of it than the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The room.
    pub room: RoomName,
    /// The server that it posts to.
    pub server: ServerUrl,
    /// The path there, and the query.
    pub target: String,
}

impl Webhook {
    /// Reads `ROOM=URL`, with the room percent-encoded if need be. The error is a sentence without the URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shape = || "it should look like ops=https://service.example/path".to_owned();
        let (room, url) = text.split_at(text.find("=http").ok_or_else(shape)?);
        let url = &url[1..];
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) || url.contains('#') {
            return Err("the URL must be percent-encoded, without a fragment".to_owned());
        }
        let room = percent_decode_str(room).decode_utf8_lossy();
        let room = room
            .parse()
            .map_err(|why| format!("bad room name: {why}"))?;
        let host = url.find("://").ok_or_else(shape)? + "://".len();
        let end = url[host..].find(['/', '?']);
        let (server, target) = url.split_at(end.map_or(url.len(), |end| host + end));
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self {
            room,
            server: ServerUrl::parse(server)?,
            target: format!("{slash}{target}"),
        })
    }

    /// Its name among the webhooks of its room, which does not give the address away.
    pub fn name(&self) -> String {
        let address = format!("{}{}", self.server, self.target);
        HEXLOWER.encode(&digest(&SHA256, address.as_bytes()).as_ref()[..16])
    }
}

impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.room, self.server)
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Webhook({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_and_an_address_are_read_and_only_the_server_is_shown() {
        for (text, room, target, shown) in [
            (
                "ops=http://x.example",
                "ops",
                "/",
                "ops at http://x.example:80",
            ),
            (
                "ops=http://x.example?a=b",
                "ops",
                "/?a=b",
                "ops at http://x.example:80",
            ),
            (
                "a=b=http://[::1]:9/secret?u=http://y",
                "a=b",
                "/secret?u=http://y",
                "a=b at http://[::1]:9",
            ),
            (
                "my%20room=http://x:1/",
                "my room",
                "/",
                "my room at http://x:1",
            ),
        ] {
            let webhook = Webhook::parse(text).expect(text);
            assert_eq!((webhook.room.as_str(), &*webhook.target), (room, target));
            assert_eq!(webhook.to_string(), shown);
            assert_eq!(format!("{webhook:?}"), format!("Webhook({shown})"));
            assert!(!webhook.name().contains("secret"));
        }
        for bad in [
            "ops",
            "ops=ftp://x",
            "=http://x",
            "a/b=http://x",
            "ops=http://",
            "ops=httpx://x",
            "ops=http://x/a b",
            "ops=http://x/\r\nX: y",
            "ops=http://x/#y",
            "ops=http://u:p@x/",
            "ops=http:x",
        ] {
            let why = Webhook::parse(bad).expect_err(bad);
            assert!(!why.contains("u:p"), "{why}");
        }
    }
}
