//! The body of a post: a message of a user, or an event of another service.

use std::time::Instant;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::hooks::payload::{self, HookText};
use super::http::{Request, Response, read_body};
use super::responses::{error, later, not_sent};
use super::state::State;
use crate::protocol::{ErrorCode, Ref, json};
use crate::stream::Stream;

/// The largest body of a hook, in bytes, unless messages may be larger: an event of GitHub often has more than 100 KiB.
const MOST_HOOK_BYTES: usize = 1 << 20;

/// The text of a post, and its ref. Other fields of its JSON are ignored.
#[derive(Deserialize)]
pub(super) struct PostBody {
    pub(super) text: String,
    #[serde(rename = "ref")]
    pub(super) reference: Option<Ref>,
    /// Whether the answer has to be that of Slack, once the message is stored.
    #[serde(skip)]
    pub(super) is_for_slack: bool,
}

/// The types of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyType {
    /// `application/json`
    Json,
    /// `text/plain` and the like: the text itself, also if it looks like JSON.
    Text,
    /// No type, or another one, such as curl's default: the text itself, unless it looks like JSON.
    Unclear,
}

/// The type of the request's body. A form with parts, and other JSON, are refused: the room
/// would read them as they are.
fn body_type(request: &Request) -> Result<BodyType, Response> {
    let kind = request.header("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    match kind.as_str() {
        "application/json" => Ok(BodyType::Json),
        "multipart/form-data" => Err(unsupported(
            "a form with parts is not taken; send the text itself, with curl -d TEXT or --data-binary @FILE, not -F",
        )),
        _ if kind.ends_with("/json") || kind.ends_with("+json") => Err(unsupported(
            "of JSON only {\"text\":…} is taken; send it with Content-Type: application/json",
        )),
        _ if kind.starts_with("text/") => Ok(BodyType::Text),
        _ => Ok(BodyType::Unclear),
    }
}

/// Whether a text looks like a JSON message.
fn looks_like_json(text: &str) -> bool {
    /// The values are not kept.
    #[derive(Deserialize)]
    struct WithText {
        #[serde(rename = "text")]
        _text: IgnoredAny,
    }
    text.trim_start().starts_with('{') && serde_json::from_str::<WithText>(text).is_ok()
}

fn unsupported(why: &str) -> Response {
    error(415, ErrorCode::BadRequest, &format!("not sent: {why}"))
}

/// Reads a user's post: its text from the body, and its ref from there or from the header.
pub(super) fn read_message(
    state: &State,
    stream: &Stream,
    request: &Request,
) -> Result<PostBody, Response> {
    let kind = body_type(request)?;
    let text = read_text(state, stream, request, state.config.max_message)?;
    let key = key(request, "idempotency-key")?;
    if kind == BodyType::Unclear && looks_like_json(&text) {
        return Err(unsupported(
            "this looks like JSON; send it with Content-Type: application/json, or with text/plain to say it as it is",
        ));
    }
    let mut body: PostBody = if kind == BodyType::Json {
        json::object(&text).map_err(|why| not_sent(400, &format!("not a JSON message: {why}")))?
    } else {
        PostBody {
            // A shell ends a line with a line break, which is not part of the message.
            text: text.trim_end_matches(['\r', '\n']).to_owned(),
            reference: None,
            is_for_slack: false,
        }
    };
    body.reference = key.or(body.reference);
    Ok(body)
}

/// Reads the post of another service, and makes its text from the service's JSON. GitHub's name for a delivery is the
/// ref, so that a redelivery is no double.
pub(super) fn read_hook(
    state: &State,
    stream: &Stream,
    request: &Request,
) -> Result<PostBody, Response> {
    let most = state.config.max_message;
    let is_large = request.body_may_exceed(most);
    let _permit = match is_large.then(|| state.large_bodies.take()) {
        Some(None) => {
            let message = "not sent: too many large hooks come at once, try again";
            return Err(later(error(503, ErrorCode::Unavailable, message)));
        }
        permit => permit,
    };
    let body = read_text(state, stream, request, MOST_HOOK_BYTES.max(most))?;
    let event = request.header("x-github-event");
    let HookText { text, is_for_slack } = payload::text_of(&body, event, most)
        .map_err(|why| not_sent(why.status(), &why.to_string()))?;
    let key = key(request, "idempotency-key")?;
    let reference = key.map_or_else(
        || self::key(request, "x-github-delivery"),
        |key| Ok(Some(key)),
    )?;
    Ok(PostBody {
        text,
        reference,
        is_for_slack,
    })
}

/// Reads a request's body of up to `most` bytes. A compressed one is refused (RFC 9110 §15.5.16).
fn read_text(
    state: &State,
    stream: &Stream,
    request: &Request,
    most: usize,
) -> Result<String, Response> {
    let coding = request.header("content-encoding").unwrap_or("identity");
    if !coding.eq_ignore_ascii_case("identity") {
        let why = "a compressed body is not taken; send it without Content-Encoding";
        return Err(unsupported(why).with("Accept-Encoding", "identity"));
    }
    let due = Instant::now() + state.config.deadlines.head;
    read_body(stream, request, most, due).map_err(|why| not_sent(why.status(), &why.to_string()))
}

/// The ref in a header field.
fn key(request: &Request, field: &str) -> Result<Option<Ref>, Response> {
    let key = request.header(field).map(str::to_owned);
    let key = key.map(Ref::try_from).transpose();
    key.map_err(|why| not_sent(400, &why))
}
