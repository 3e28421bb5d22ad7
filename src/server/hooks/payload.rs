//! The text of a message from what GitHub, Alertmanager, Grafana and Slack-style senders post.
//!
//! A text is short: what happened in one line, at most [`MOST_ITEMS`](super::excerpt::MOST_ITEMS) lines of details, and a link.

use std::fmt;
use std::sync::Mutex;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::excerpt::{cut, line, link_of, list};
use super::{github, slack};
use crate::threads::lock;

/// The reason why there is no text. The sender acts next.
#[derive(Debug, PartialEq, Eq)]
pub enum PayloadError {
    /// The body is not JSON.
    NotJson(String),
    /// The body is of no kind that is known.
    Unknown,
    /// The message has blocks of Slack, and none of them is simple.
    Blocks,
    /// The body is not what GitHub sends for this event.
    NotGithub,
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(why) => write!(f, "the body is not JSON: {why}"),
            Self::Unknown => f.write_str(
                r#"a hook takes {"text":…}, Slack's attachments, GitHub's events, and the alerts of Alertmanager and Grafana"#,
            ),
            Self::Blocks => f.write_str(
                r#"of Slack's blocks a hook takes header, section and context; give the message a "text""#,
            ),
            Self::NotGithub => {
                f.write_str("the body has not the fields of the event that X-GitHub-Event names")
            }
        }
    }
}

impl PayloadError {
    /// The HTTP status of the error.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotJson(_) => 400,
            Self::Unknown | Self::Blocks | Self::NotGithub => 422,
        }
    }
}

/// What a room reads of a body.
#[derive(Debug, PartialEq, Eq)]
pub struct HookText {
    /// One or more lines.
    pub text: String,
    /// Whether the body is a message for Slack. Its sender may check that the answer is Slack's.
    pub is_for_slack: bool,
}

/// Makes a text of at most `most` bytes from a body. The body is JSON, alone or in a form's field `payload`, as Slack
/// takes it and GitHub may send it. `github_event` is the value of `X-GitHub-Event`, if there is one.
pub fn text_of(
    body: &str,
    github_event: Option<&str>,
    most: usize,
) -> Result<HookText, PayloadError> {
    // A parsed body may need a hundred times its bytes, so only one is parsed at a time.
    static PARSING: Mutex<()> = Mutex::new(());
    let decoded = field_of_form(body);
    let _one = lock(&PARSING);
    let payload: Value = serde_json::from_str(decoded.as_deref().unwrap_or(body))
        .map_err(|why| PayloadError::NotJson(why.to_string()))?;
    let (text, is_for_slack) = match github_event {
        Some(event) => {
            let text = github::text_of(event, &payload);
            (text.ok_or(PayloadError::NotGithub)?, false)
        }
        None => match alerts(&payload) {
            Some(text) => (text, false),
            None => (of_slack(&payload)?, true),
        },
    };
    let text = cut(text.trim(), most);
    Ok(HookText { text, is_for_slack })
}

/// The field `payload` of a form (URL Standard §5.1); `None` if the body is JSON, or has no such field.
fn field_of_form(body: &str) -> Option<String> {
    if body.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let mut fields = body.split('&');
    let field = fields.find_map(|field| field.strip_prefix("payload="))?;
    let spaced = field.replace('+', " ");
    Some(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

fn of_slack(payload: &Value) -> Result<String, PayloadError> {
    match slack::text_of(payload) {
        Some(text) => Ok(text),
        None if slack::has_blocks(payload) => Err(PayloadError::Blocks),
        // An empty text is refused later, as in any post.
        None => match payload["text"].as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(PayloadError::Unknown),
        },
    }
}

/// Alerts of Alertmanager (<https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>, version 4) or
/// Grafana, which adds a title and links. Without a title the first line is as in Alertmanager's own template, which
/// counts the firing ones.
fn alerts(payload: &Value) -> Option<String> {
    let alerts = payload["alerts"].as_array()?;
    let status = line(payload, "/status")?;
    let title = line(payload, "/title").unwrap_or_else(|| {
        let labels = payload["groupLabels"].as_object();
        let labels = labels.into_iter().flat_map(|labels| labels.values());
        let labels: Vec<_> = labels.filter_map(|label| line(label, "")).collect();
        let firing = alerts.iter().filter(|alert| alert["status"] == "firing");
        let count = match &*status {
            "firing" => format!(":{}", firing.count()),
            _ => String::new(),
        };
        let status = status.to_uppercase();
        format!("[{status}{count}] {}", labels.join(" "))
    });
    let truncated = payload["truncatedAlerts"].as_u64().unwrap_or_default();
    let lines = list(alerts, truncated, |alert| {
        let mut named = [
            "/annotations/summary",
            "/annotations/description",
            "/labels/alertname",
        ]
        .into_iter()
        .filter_map(|pointer| line(alert, pointer));
        let what = named.next()?;
        let status = line(alert, "/status").unwrap_or_else(|| status.clone());
        let instance = line(alert, "/labels/instance");
        let instance = instance.filter(|instance| !what.contains(instance.as_str()));
        let instance = instance.map_or(String::new(), |instance| format!(" ({instance})"));
        Some(format!("{status}: {what}{instance}"))
    });
    let first = alerts.first().unwrap_or(&Value::Null);
    let link = match link_of(first, &["/panelURL", "/dashboardURL", "/generatorURL"]) {
        none if none.is_empty() => link_of(payload, &["/externalURL"]),
        link => link,
    };
    Some(format!("{}{lines}{link}", title.trim()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The keys that one of the services uses.
    const KEYS: [&str; 30] = [
        "action",
        "alerts",
        "annotations",
        "attachments",
        "blocks",
        "comment",
        "commits",
        "compare",
        "fallback",
        "fields",
        "full_name",
        "groupLabels",
        "html_url",
        "id",
        "issue",
        "labels",
        "login",
        "message",
        "number",
        "pull_request",
        "ref",
        "repository",
        "review",
        "sender",
        "status",
        "summary",
        "text",
        "title",
        "title_link",
        "type",
    ];

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u32>().prop_map(Value::from),
            "\\PC{0,9}|(<?https?://[é|>&; \n]{0,5})|[ \n<>&;é]{0,300}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 8, |inner| {
            let object = proptest::collection::hash_map(
                prop::sample::select(&KEYS[..]),
                inner.clone(),
                0..8,
            );
            prop_oneof![
                proptest::collection::vec(inner, 0..8).prop_map(Value::from),
                object.prop_map(|fields| {
                    fields
                        .into_iter()
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect()
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_comes_the_text_is_short_or_there_is_a_reason(
            body in json(),
            event in proptest::option::of(prop::sample::select(&["push", "issues", "issue_comment", "pull_request", "pull_request_review", "commit_comment", "x\n"][..])),
            most in 1..2000_usize,
        ) {
            match text_of(&body.to_string(), event, most) {
                Ok(HookText { text, is_for_slack }) => {
                    prop_assert!(text.len() <= most);
                    prop_assert!(event.is_none() || !is_for_slack);
                }
                Err(PayloadError::NotJson(why)) => prop_assert!(false, "{}", why),
                Err(PayloadError::Unknown | PayloadError::Blocks) => prop_assert_eq!(event, None),
                Err(PayloadError::NotGithub) => prop_assert!(event.is_some()),
            }
        }
    }

    #[test]
    fn a_value_is_one_line_and_no_link_leads_to_a_script() {
        let body = r#"{"alerts":[{"annotations":{"summary":"a\nfiring: b\u0007"},"panelURL":"javascript:x"}],
            "status":"firing","title":"one\ntwo","externalURL":"https://x\ny"}"#;
        let text = text_of(body, None, 1000);
        let read = text.map(|of_hook| of_hook.text);
        assert_eq!(read.as_deref(), Ok("one two\n- firing: a firing: b"));
    }
}
