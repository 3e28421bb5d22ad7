//! The chat page: the files that a browser loads.
//!
//! The page is plain HTML, CSS and ES modules. It has no build step and sends no request to another
//! host. The server serves only the files in [`ASSETS`], not the whole folder. Read `app.js` first: it
//! makes the chat (`chat.js`) and its views.

use std::hash::{DefaultHasher, Hash, Hasher};

/// The header fields of every file. The page runs only its own scripts and connects only to its own
/// server (`'self'` includes `ws:` and `wss:` of the same host: CSP 3, §6.7.2.8). Trusted types disable
/// the functions that would parse a text as markup.
pub const HEADERS: [(&str, &str); 4] = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    // The browser asks again each time, and mostly gets a 304. So it never mixes files of two versions.
    ("Cache-Control", "no-cache"),
];

/// One file of the page.
#[derive(Debug, PartialEq, Eq)]
pub struct Asset {
    /// The path at which it is served.
    pub path: &'static str,
    /// The value of the `Content-Type` field.
    pub content_type: &'static str,
    /// The content.
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

/// Every file of the page: the document, its style sheets, and its modules from the entry down.
pub static ASSETS: [Asset; 36] = [
    asset!("/", HTML, "index.html"),
    asset!("/page/icon.svg", SVG, "icon.svg"),
    asset!("/page/base.css", CSS, "base.css"),
    asset!("/page/layout.css", CSS, "layout.css"),
    asset!("/page/timeline.css", CSS, "timeline.css"),
    asset!("/page/dialogs.css", CSS, "dialogs.css"),
    asset!("/page/notice.css", CSS, "notice.css"),
    asset!("/page/app.js", JS, "app.js"),
    asset!("/page/address.js", JS, "address.js"),
    asset!("/page/entrance.js", JS, "entrance.js"),
    asset!("/page/sidebar.js", JS, "sidebar.js"),
    asset!("/page/finder.js", JS, "finder.js"),
    asset!("/page/members.js", JS, "members.js"),
    asset!("/page/status.js", JS, "status.js"),
    asset!("/page/search.js", JS, "search.js"),
    asset!("/page/ask.js", JS, "ask.js"),
    asset!("/page/timeline.js", JS, "timeline.js"),
    asset!("/page/rows.js", JS, "rows.js"),
    asset!("/page/prose.js", JS, "prose.js"),
    asset!("/page/markup.js", JS, "markup.js"),
    asset!("/page/composer.js", JS, "composer.js"),
    asset!("/page/notify.js", JS, "notify.js"),
    asset!("/page/title.js", JS, "title.js"),
    asset!("/page/keep.js", JS, "keep.js"),
    asset!("/page/chat.js", JS, "chat.js"),
    asset!("/page/room.js", JS, "room.js"),
    asset!("/page/outgoing.js", JS, "outgoing.js"),
    asset!("/page/session.js", JS, "session.js"),
    asset!("/page/connection.js", JS, "connection.js"),
    asset!("/page/elsewhere.js", JS, "elsewhere.js"),
    asset!("/page/mention.js", JS, "mention.js"),
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
    /// The entity tag of this content (RFC 9110 §8.8.3). Other builds may give the same content another
    /// tag.
    pub fn etag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.text.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }
}
