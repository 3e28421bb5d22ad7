//! The health check of `hubbub ready`: plain HTTP requests to `/readyz`.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::ServerUrl;
use super::request::{PlainRequest, RequestError};

/// The pause before a server that is not ready is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Why a server is not ready.
struct NotReady {
    /// A sentence.
    why: String,
    /// Whether it may be ready soon: it starts, or its Redis is away.
    may_pass: bool,
}

impl ServerUrl {
    /// Asks the server whether it can take users, again and again for this time at most: a server that was just started
    /// does not listen yet. The error says why it cannot, in the server's words if it answered. The operator, or a
    /// supervisor, acts next.
    pub fn is_ready(&self, ca: Option<&Path>, within: Duration) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let left = within.saturating_sub(begun.elapsed());
            let Err(NotReady { why, may_pass }) = self.ask_ready(ca, left) else {
                return Ok(());
            };
            if !may_pass || begun.elapsed() + ASK_AGAIN_AFTER >= within {
                return Err(why);
            }
            thread::sleep(ASK_AGAIN_AFTER);
        }
    }

    fn ask_ready(&self, ca: Option<&Path>, within: Duration) -> Result<(), NotReady> {
        let request = PlainRequest {
            method: "GET",
            path: "/readyz",
            bearer: None,
            reference: None,
            body: "",
            body_type: None,
        };
        let response = self.send(&request, ca, within);
        let response = response.map_err(|error| match error {
            RequestError::Permanent(why) => NotReady {
                why,
                may_pass: false,
            },
            RequestError::NotSent(why) | RequestError::NotAnswered(why) => NotReady {
                why,
                may_pass: true,
            },
        })?;
        match response.status {
            200 => Ok(()),
            status => Err(NotReady {
                why: format!("{self} is not ready ({status}): {}", response.body),
                may_pass: matches!(status, 429 | 502..=504),
            }),
        }
    }
}
