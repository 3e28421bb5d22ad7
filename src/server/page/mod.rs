//! The chat page: its files, as a browser asks for them.
//!
//! The page is plain HTML, CSS and ES modules, without a build step and without a request to
//! anywhere else. What is in this folder and not in this table is not served.

use std::hash::{DefaultHasher, Hash, Hasher};

/// What every file of the page is served with. The page runs only its own scripts and talks only to
/// its own server (`'self'` covers `ws:` and `wss:` of the same host: CSP 3, §6.7.2.8), and trusted
/// types take the sinks away that would make markup of a text.
pub const HEADERS: [(&str, &str); 4] = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    // Asked for again each time and mostly answered with 304, so that a page is never half of one
    // version and half of another.
    ("Cache-Control", "no-cache"),
];

/// One file of the page.
#[derive(Debug, PartialEq, Eq)]
pub struct Asset {
    /// Where it is served.
    pub path: &'static str,
    /// For the `Content-Type` field.
    pub content_type: &'static str,
    /// The whole of it.
    pub text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! asset {
    ($path:literal, $content_type:ident, $file:literal) => {
        Asset {
            path: $path,
            content_type: $content_type,
            text: include_str!($file),
        }
    };
}

/// Every file of the page: the document, its looks, and its modules from the entry down.
pub static ASSETS: [Asset; 24] = [
    asset!("/", HTML, "index.html"),
    asset!("/page/icon.svg", SVG, "icon.svg"),
    asset!("/page/base.css", CSS, "base.css"),
    asset!("/page/layout.css", CSS, "layout.css"),
    asset!("/page/timeline.css", CSS, "timeline.css"),
    asset!("/page/app.js", JS, "app.js"),
    asset!("/page/entrance.js", JS, "entrance.js"),
    asset!("/page/sidebar.js", JS, "sidebar.js"),
    asset!("/page/members.js", JS, "members.js"),
    asset!("/page/status.js", JS, "status.js"),
    asset!("/page/timeline.js", JS, "timeline.js"),
    asset!("/page/rows.js", JS, "rows.js"),
    asset!("/page/prose.js", JS, "prose.js"),
    asset!("/page/composer.js", JS, "composer.js"),
    asset!("/page/title.js", JS, "title.js"),
    asset!("/page/chat.js", JS, "chat.js"),
    asset!("/page/room.js", JS, "room.js"),
    asset!("/page/outgoing.js", JS, "outgoing.js"),
    asset!("/page/connection.js", JS, "connection.js"),
    asset!("/page/names.js", JS, "names.js"),
    asset!("/page/ids.js", JS, "ids.js"),
    asset!("/page/time.js", JS, "time.js"),
    asset!("/page/store.js", JS, "store.js"),
    asset!("/page/dom.js", JS, "dom.js"),
];

/// The file at `path`.
pub fn asset(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

impl Asset {
    /// Names this content (RFC 9110 §8.8.3): other builds may name the same content otherwise.
    pub fn etag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.text.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }
}
