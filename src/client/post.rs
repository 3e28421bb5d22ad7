//! The message of `hubbub say`: posted over HTTP under one ref, again and again, until a server has stored it. A post
//! makes nobody present.

use std::thread;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::request::{PlainRequest, PlainResponse, RequestError};
use super::state::{NOT_CONFIRMED, NOT_SENT, REF_IS_SAFE};
use super::{ClientOptions, ClientToken, RECONNECT_CAP, RECONNECT_FIRST, ServerUrl};
use crate::backoff::Backoff;
use crate::message::RoomName;
use crate::protocol::{Event, Ref, json};

/// The time within which one server has to answer; then it is the next one's turn. A server answers within three
/// seconds also while its Redis is away.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Why one attempt did not store the message.
struct Failure {
    /// A sentence.
    why: String,
    /// Whether the message may be stored all the same.
    in_doubt: bool,
    /// The shortest wait before the next attempt; `None` if that would fail the same way.
    retry_after: Option<Duration>,
}

impl ClientOptions {
    /// Posts a text to a room until it is stored, for this time at most. The error is a sentence. It begins with
    /// [`NOT_SENT`] if the text is stored nowhere, and with [`NOT_CONFIRMED`] if nobody knows. The user acts next.
    pub fn post(&self, room: &RoomName, text: &str, within: Duration) -> Result<(), String> {
        let begun = Instant::now();
        let reference = Ref::random();
        let mut backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_CAP);
        let (mut outcome, mut end) = (NOT_SENT, within);
        // The servers take turns.
        for server in self.servers.iter().cycle() {
            let left = end.saturating_sub(begun.elapsed());
            let limit = left.min(ANSWER_WITHIN);
            let Err(failure) = self.post_once(server, room, text, &reference, limit) else {
                return Ok(());
            };
            if failure.in_doubt {
                outcome = NOT_CONFIRMED;
                // Later, the server may have forgotten the ref, and would store the message twice.
                end = within.min(REF_IS_SAFE);
            }
            let wait = failure.retry_after.map(|least| backoff.next().max(least));
            match wait.filter(|wait| begun.elapsed().saturating_add(*wait) < end) {
                Some(wait) => thread::sleep(wait),
                None => return Err(format!("{outcome}: {}", failure.why)),
            }
        }
        Err(format!("{NOT_SENT}: there is no server"))
    }

    fn post_once(
        &self,
        server: &ServerUrl,
        room: &RoomName,
        text: &str,
        reference: &Ref,
        within: Duration,
    ) -> Result<(), Failure> {
        let failed = |why, in_doubt, retry_after| Failure {
            why,
            in_doubt,
            retry_after,
        };
        let at_once = Some(Duration::ZERO);
        let token = self.token.as_ref().map(ClientToken::read).transpose();
        let token = token.map_err(|why| failed(why, false, at_once))?;
        if !token
            .iter()
            .all(|token| token.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let why = "the token has characters that no token has".to_owned();
            return Err(failed(why, false, None));
        }
        let encoded = |name| utf8_percent_encode(name, NON_ALPHANUMERIC);
        let (room, user) = (encoded(room.as_str()), encoded(self.user.as_str()));
        let request = PlainRequest {
            method: "POST",
            path: &format!("/api/rooms/{room}/messages?user={user}"),
            bearer: token.as_deref(),
            reference: Some(reference),
            body: text,
            // It may look like JSON.
            body_type: Some("text/plain; charset=utf-8"),
        };
        match server.send(&request, self.ca.as_deref(), within) {
            Ok(response) => self.look_at(server, response),
            Err(RequestError::Permanent(why)) => Err(failed(why, false, None)),
            Err(RequestError::NotSent(why)) => Err(failed(why, false, at_once)),
            Err(RequestError::NotAnswered(why)) => Err(failed(why, true, at_once)),
        }
    }

    /// Whether the message is stored.
    fn look_at(&self, server: &ServerUrl, response: PlainResponse) -> Result<(), Failure> {
        let PlainResponse { status, body, .. } = response;
        let (told, wait) = match json::parse_event(&body) {
            Ok(Event::Sent { .. }) => return Ok(()),
            Ok(Event::Error {
                message,
                retry_after_ms,
                ..
            }) => (message, retry_after_ms.map(Duration::from_millis)),
            // A server that is full answers in plain text, and a proxy with a page.
            _ => (body, None),
        };
        let line = told.lines().next().filter(|line| !line.starts_with('<'));
        // The outcome is put before it again, and the ref was this client's to repeat.
        let reason = |line: &'_ str| {
            let doubt = line.strip_prefix("it may have been sent or not: ");
            let doubt = doubt.map(|why| why.strip_suffix(" with the same ref").unwrap_or(why));
            doubt.or(line.strip_prefix("not sent: ")).map(str::to_owned)
        };
        let why = match line.map(|line| reason(line).ok_or(line)) {
            Some(Ok(why)) => why,
            Some(Err(line)) => format!("{server} refuses ({status}): {line}"),
            None => format!("{server} refuses ({status})"),
        };
        let may_read_another = matches!(self.token, Some(ClientToken::File(_)));
        let passes = match status {
            408 | 429 | 502..=504 => true,
            401 => may_read_another,
            _ => false,
        };
        let wait = wait.or(response.retry_after).unwrap_or_default();
        Err(Failure {
            why,
            // A server, or a proxy, got no answer from Redis, or from the server behind it. Or this is no server of
            // ours.
            in_doubt: matches!(status, 200..=299 | 502 | 504),
            retry_after: passes.then_some(wait),
        })
    }
}
