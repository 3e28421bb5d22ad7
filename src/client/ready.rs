//! The health check of `hubbub ready`: one plain HTTP request to `/readyz`.

use std::path::Path;
use std::time::Duration;

use super::ServerUrl;
use super::request::PlainRequest;

impl ServerUrl {
    /// Asks the server whether it can take users. The error says why it cannot, in the server's words
    /// if it answered. The operator, or a supervisor, acts next.
    pub fn is_ready(&self, ca: Option<&Path>, within: Duration) -> Result<(), String> {
        let request = PlainRequest {
            method: "GET",
            path: "/readyz",
            bearer: None,
            reference: None,
            body: "",
            body_type: None,
        };
        let response = self.send(&request, ca, within);
        let response = response.map_err(|why| why.to_string())?;
        match response.status {
            200 => Ok(()),
            status => Err(format!("{self} is not ready ({status}): {}", response.body)),
        }
    }
}
