//! The text of a message from what GitHub, Alertmanager, Grafana and Slack-style senders post.
//!
//! A text is short: what happened in one line, at most [`MOST_ITEMS`] lines of details, and a link.

use std::fmt;
use std::sync::Mutex;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::excerpt::{MOST_ITEMS, cut, line, link_of, list};
use super::github;
use crate::threads::lock;

/// The reason why there is no text. The sender acts next.
#[derive(Debug, PartialEq, Eq)]
pub enum PayloadError {
    /// The body is not JSON.
    NotJson(String),
    /// The body is of no kind that is known.
    Unknown,
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
            Self::Unknown | Self::NotGithub => 422,
        }
    }
}

/// Makes a text of at most `most` bytes from a body. The body is JSON, alone or in a form's field `payload`, as Slack
/// takes it and GitHub may send it. `github_event` is the value of `X-GitHub-Event`, if there is one.
pub fn text_of(
    body: &str,
    github_event: Option<&str>,
    most: usize,
) -> Result<String, PayloadError> {
    // A parsed body may need a hundred times its bytes, so only one is parsed at a time.
    static PARSING: Mutex<()> = Mutex::new(());
    let decoded = body.strip_prefix("payload=").map(|form| {
        let form = form.split('&').next().unwrap_or_default();
        let spaced = form.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    });
    let _one = lock(&PARSING);
    let payload: Value = serde_json::from_str(decoded.as_deref().unwrap_or(body))
        .map_err(|why| PayloadError::NotJson(why.to_string()))?;
    let text = match github_event {
        Some(event) => github::text_of(event, &payload).ok_or(PayloadError::NotGithub)?,
        None => alerts(&payload)
            .or_else(|| slack(&payload))
            .ok_or(PayloadError::Unknown)?,
    };
    Ok(cut(text.trim(), most))
}

/// Alerts of Alertmanager (<https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>, version 4) or
/// Grafana, which adds a title and links.
fn alerts(payload: &Value) -> Option<String> {
    let alerts = payload["alerts"].as_array()?;
    let status = line(payload, "/status")?;
    let title = line(payload, "/title").unwrap_or_else(|| {
        let labels = payload["groupLabels"].as_object();
        let labels = labels.into_iter().flat_map(|labels| labels.values());
        let labels: Vec<_> = labels.filter_map(|label| line(label, "")).collect();
        let status = status.to_uppercase();
        format!("[{status}:{}] {}", alerts.len(), labels.join(" "))
    });
    let lines = list(alerts, |alert| {
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

/// A message of Slack (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>), of which only the
/// text counts, or else the attachments.
fn slack(payload: &Value) -> Option<String> {
    let text = payload["text"]
        .as_str()
        .filter(|text| !text.trim().is_empty());
    if let Some(text) = text {
        return Some(plain(text));
    }
    let Some(attachments) = payload["attachments"].as_array() else {
        // An empty text is refused later, as in any post.
        return payload["text"].as_str().map(str::to_owned);
    };
    let attachments = attachments
        .iter()
        .take(MOST_ITEMS)
        .filter_map(|attachment| {
            let parts = ["pretext", "title", "text"].into_iter();
            let parts = parts.filter_map(|part| attachment[part].as_str());
            let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
            let text = match attachment["fallback"].as_str() {
                Some(fallback) if !fallback.is_empty() => fallback.to_owned(),
                _ if parts.is_empty() => return None,
                _ => parts.join("\n"),
            };
            Some(plain(&text) + &link_of(attachment, &["/title_link"]))
        });
    let attachments: Vec<_> = attachments.collect();
    (!attachments.is_empty()).then(|| attachments.join("\n"))
}

/// Slack's text as people read it: `<https://x|y>` is `y (https://x)`, and three characters are escaped
/// (<https://docs.slack.dev/messaging/formatting-message-text>).
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('<') {
        plain.push_str(before);
        let link = behind.split_once('>').filter(|(link, _)| {
            ["http://", "https://"]
                .iter()
                .any(|scheme| link.starts_with(scheme))
                && !link.contains('<')
        });
        rest = match link {
            Some((link, behind)) => {
                match link.split_once('|') {
                    Some((link, label)) => plain.push_str(&format!("{label} ({link})")),
                    None => plain.push_str(link),
                }
                behind
            }
            None => {
                plain.push('<');
                behind
            }
        };
    }
    plain.push_str(rest);
    let unescaped = plain.replace("&lt;", "<").replace("&gt;", ">");
    unescaped.replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The keys that one of the services uses.
    const KEYS: [&str; 24] = [
        "action",
        "alerts",
        "annotations",
        "attachments",
        "commits",
        "compare",
        "fallback",
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
        "sender",
        "status",
        "summary",
        "text",
        "title",
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
            event in proptest::option::of(prop::sample::select(&["push", "issues", "issue_comment", "pull_request", "x\n"][..])),
            most in 1..2000_usize,
        ) {
            match text_of(&body.to_string(), event, most) {
                Ok(text) => prop_assert!(text.len() <= most),
                Err(PayloadError::NotJson(why)) => prop_assert!(false, "{}", why),
                Err(PayloadError::Unknown) => prop_assert_eq!(event, None),
                Err(PayloadError::NotGithub) => prop_assert!(event.is_some()),
            }
        }
    }

    #[test]
    fn a_value_is_one_line_and_no_link_leads_to_a_script() {
        let body = r#"{"alerts":[{"annotations":{"summary":"a\nfiring: b\u0007"},"panelURL":"javascript:x"}],
            "status":"firing","title":"one\ntwo","externalURL":"https://x\ny"}"#;
        let text = text_of(body, None, 1000);
        assert_eq!(text.as_deref(), Ok("one two\n- firing: a firing: b"));
    }
}
