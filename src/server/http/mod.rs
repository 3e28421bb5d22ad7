//! HTTP/1.1: requests and responses, one after the other.
//!
//! [`proxy_header`] reads what a proxy says first, [`head`] reads the request, [`Request::route`] finds its route,
//! [`body`] reads its body if somebody wants it, and [`Response`] is written back. The server does not use
//! tungstenite's own accept, since that sends no response to a bad request.

mod date;
mod input;
mod body;
mod head;
mod proxy_header;
mod response;

use std::fmt::Display;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use self::body::Body;
pub use self::body::{BodyError, read_body};
pub use self::head::{HeadError, read_request};
pub use self::proxy_header::{ProxyHeader, read_proxy_header};
pub use self::response::Response;
use crate::server::page::{self, Asset};

/// A request: its head, and its body, which may not have been read yet.
#[derive(Debug)]
pub struct Request {
    /// Such as `GET`.
    pub method: String,
    /// The host, and perhaps a port: from the target, or else from the `Host` field.
    pub host: String,
    /// Still percent-encoded.
    pub path: String,
    /// The parameters, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The header fields as they came.
    pub headers: Vec<(String, String)>,
    /// Whether it is of HTTP/1.0.
    pub is_old: bool,
    body: Body,
}

impl Request {
    /// The first value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut values = self.query.iter().filter(|(found, _)| found == name);
        values.next().map(|(_, value)| value.as_str())
    }

    /// The first value of a query parameter, parsed; `None` without one. The error is a sentence.
    pub fn parsed<T>(&self, name: &str) -> Result<Option<T>, String>
    where
        T: FromStr<Err: Display>,
    {
        let value = self.parameter(name).map(str::parse).transpose();
        value.map_err(|why| format!("bad {name}: {why}"))
    }

    /// The first value of a query parameter that is a number of messages, or of something else (`what`).
    pub fn number_of(&self, what: &str, name: &str) -> Result<Option<usize>, String> {
        let number = self.parameter(name).map(str::parse).transpose();
        number.map_err(|_| format!("bad {name}: it is a number of {what}"))
    }

    /// The first value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_values(name).next()
    }

    /// All values of a header field, which may be repeated.
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers
            .iter()
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The subprotocols that the request offers (RFC 6455 §1.9), in order.
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        self.header_values("sec-websocket-protocol")
            .flat_map(|value| value.split(','))
            .map(str::trim)
    }

    /// Whether a body follows the head.
    pub fn has_body(&self) -> bool {
        self.body.is_present()
    }

    /// Whether the body may have more bytes than this.
    pub fn body_may_exceed(&self, most: usize) -> bool {
        self.body.may_exceed(most)
    }

    /// Whether the client may have more to ask on this connection (RFC 9112 §9.3). Not after it asked for an upgrade: a
    /// proxy that takes any response for one no longer looks at what it passes on.
    pub fn goes_on(&self) -> bool {
        let lists = |wanted: &str| {
            let values = self.header_values("connection");
            let mut options = values.flat_map(|value| value.split(','));
            options.any(|option| option.trim().eq_ignore_ascii_case(wanted))
        };
        let is_wanted = !lists("close") && (!self.is_old || lists("keep-alive"));
        is_wanted && self.header("upgrade").is_none()
    }

    /// Whether the client waits to be asked for the body (RFC 9110 §10.1.1).
    fn expects_to_be_asked(&self) -> bool {
        let expected = self.header("expect");
        !self.is_old && expected.is_some_and(|what| what.eq_ignore_ascii_case("100-continue"))
    }

    /// The bytes that were read behind the request; `None` if its end is not known. Frees the head: a chat may follow,
    /// and last for days.
    pub fn into_rest(self) -> Option<Vec<u8>> {
        self.body.into_rest()
    }

    /// The route of the request.
    pub fn route(&self) -> Route {
        if let Some(asset) = page::asset(&self.path) {
            return Route::Page(asset);
        }
        let Some(path) = self.path.strip_prefix('/') else {
            return Route::Unknown;
        };
        let mut segments = path.split('/');
        match (segments.next(), segments.next(), segments.next()) {
            (Some("livez"), None, _) => Route::Live,
            (Some("readyz"), None, _) => Route::Ready,
            (Some("metrics"), None, _) => Route::Metrics,
            (Some("chat"), user, None) => Route::Chat {
                user: user.and_then(decode),
            },
            (Some("api"), Some("rooms"), None) => Route::Api {
                room: None,
                resource: Some(Resource::Rooms),
            },
            (Some("api"), Some("rooms"), room) => {
                let resource = match (segments.next(), segments.next()) {
                    (Some("messages"), None) => Some(Resource::Messages),
                    (Some("members"), None) => Some(Resource::Members),
                    _ => None,
                };
                Route::Api {
                    room: room.and_then(decode),
                    resource,
                }
            }
            (Some("hooks"), Some(room), None) => Route::Api {
                room: decode(room),
                resource: Some(Resource::Hook),
            },
            (Some("api"), Some("admin"), first) => {
                let path: Option<Vec<_>> = first.into_iter().chain(segments).map(decode).collect();
                // No path of ours is empty.
                Route::Admin(path.unwrap_or_default())
            }
            (Some("api"), _, _) => Route::Api {
                room: None,
                resource: None,
            },
            _ => Route::Unknown,
        }
    }
}

fn decode(text: &str) -> Option<String> {
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

/// The route of a request, by its path.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// `/`, and the files that its document loads.
    Page(&'static Asset),
    /// `/livez`: whether the process answers, and its version.
    Live,
    /// `/readyz`: whether the instance can take users.
    Ready,
    /// `/metrics`: counters and gauges for Prometheus.
    Metrics,
    /// `/chat/{user}`, with the user decoded; `None` if it is not UTF-8 or missing.
    Chat {
        /// Not validated yet.
        user: Option<String>,
    },
    /// `/api/rooms/{room}/…` or `/hooks/{room}`, with the room decoded; `None` if it is not UTF-8 or missing.
    Api {
        /// Not validated yet.
        room: Option<String>,
        /// `None` if there is no such resource.
        resource: Option<Resource>,
    },
    /// The segments behind `/api/admin/`, decoded; none if one is not UTF-8.
    Admin(Vec<String>),
    /// Any other path.
    Unknown,
}

/// A resource of a room in the API, or the list of rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// `/api/rooms`
    Rooms,
    /// `/api/rooms/{room}/messages`
    Messages,
    /// `/api/rooms/{room}/members`
    Members,
    /// `/hooks/{room}`
    Hook,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(target: &str) -> Route {
        let request = Request {
            method: "GET".to_owned(),
            host: "x".to_owned(),
            path: target.to_owned(),
            query: Vec::new(),
            headers: Vec::new(),
            is_old: false,
            body: Body::new(body::Framing::Absent, Vec::new()),
        };
        request.route()
    }

    #[test]
    fn paths_lead_where_they_should() {
        let chat = |user: Option<&str>| Route::Chat {
            user: user.map(str::to_owned),
        };
        let api = |room: Option<&str>, resource| Route::Api {
            room: room.map(str::to_owned),
            resource,
        };
        let admin = |path: &[&str]| Route::Admin(path.iter().map(|&one| one.to_owned()).collect());
        for (target, expected) in [
            ("/", Route::Page(page::asset("/").expect("the document"))),
            ("/page/../", Route::Unknown),
            ("/page/screenshot.png", Route::Unknown),
            ("/livez", Route::Live),
            ("/readyz", Route::Ready),
            ("/metrics", Route::Metrics),
            ("/chat/bob", chat(Some("bob"))),
            ("/chat/Zo%C3%AB", chat(Some("Zoë"))),
            ("/chat/a%2Fb", chat(Some("a/b"))),
            ("/chat/%ff", chat(None)),
            ("/chat", chat(None)),
            ("/chat/", chat(Some(""))),
            ("/chat/a/b", Route::Unknown),
            (
                "/api/rooms/a%20b/messages",
                api(Some("a b"), Some(Resource::Messages)),
            ),
            (
                "/api/rooms/ops/members",
                api(Some("ops"), Some(Resource::Members)),
            ),
            ("/api/rooms/ops/messages/1", api(Some("ops"), None)),
            (
                "/api/rooms/%ff/messages",
                api(None, Some(Resource::Messages)),
            ),
            ("/hooks/a%20b", api(Some("a b"), Some(Resource::Hook))),
            ("/hooks", Route::Unknown),
            ("/hooks/ops/x", Route::Unknown),
            ("/api/rooms", api(None, Some(Resource::Rooms))),
            ("/api/rooms/", api(Some(""), None)),
            ("/api", api(None, None)),
            (
                "/api/admin/users/a%2Fb/disconnect",
                admin(&["users", "a/b", "disconnect"]),
            ),
            ("/api/admin/%ff", admin(&[])),
            ("/api/admin", admin(&[])),
            ("/nowhere", Route::Unknown),
            ("//metrics", Route::Unknown),
            ("/metrics/", Route::Unknown),
            ("*", Route::Unknown),
        ] {
            assert_eq!(route(target), expected, "{target}");
        }
    }
}
