//! The text of a message from what GitHub, Alertmanager, Grafana and Slack-style senders post.
//!
//! A text is short: what happened in one line, at most [`MOST_ITEMS`] lines of details, and a link. Values of the sender
//! become one line each, so that none of them looks like another line of ours.

use std::fmt;
use std::sync::Mutex;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::threads::lock;

/// The most commits, alerts or attachments that one text has.
const MOST_ITEMS: usize = 5;

/// The longest value, in characters, but for links.
const LONGEST_VALUE: usize = 200;

/// The longest link, in bytes. A longer one is left out, since half a link leads nowhere.
const LONGEST_LINK: usize = 1000;

/// Stands for what was cut off.
const CUT: &str = "…";

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

/// The text for a body, of at most `most` bytes. `github_event` is the value of `X-GitHub-Event`, if there is one. The
/// body is JSON, perhaps in a form's field `payload`, as Slack takes it and GitHub may send it.
pub fn text_of(
    body: &str,
    github_event: Option<&str>,
    most: usize,
) -> Result<String, PayloadError> {
    // A parsed body may need a hundred times its bytes, so there is one at a time.
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
        Some(event) => github(event, &payload).ok_or(PayloadError::NotGithub)?,
        None => alerts(&payload)
            .or_else(|| slack(&payload))
            .ok_or(PayloadError::Unknown)?,
    };
    Ok(cut(text.trim(), most))
}

/// The beginning of a text that fits into so many bytes.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let sign = if most < CUT.len() { "" } else { CUT };
    let mut end = most - sign.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{sign}", &text[..end])
}

/// The value at a JSON pointer (RFC 6901) as one line; `None` if it is no text or number, or empty.
fn line(payload: &Value, pointer: &str) -> Option<String> {
    let text = match payload.pointer(pointer)? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    let fits = line.char_indices().nth(LONGEST_VALUE);
    let line = fits.map_or(line.clone(), |(end, _)| format!("{}{CUT}", &line[..end]));
    Some(line).filter(|line| !line.is_empty())
}

/// The first line of a longer text, such as the subject of a commit.
fn first_line(payload: &Value, pointer: &str) -> Option<String> {
    let text = payload.pointer(pointer)?.as_str()?.trim_start();
    line(&Value::from(text.lines().next()?), "")
}

/// The address at the first of these pointers that has one, on a line of its own; empty if none has.
fn link_of(payload: &Value, pointers: &[&str]) -> String {
    let mut found = pointers
        .iter()
        .filter_map(|pointer| payload.pointer(pointer)?.as_str());
    let link = found.find(|link| {
        let is_plain = |c: char| !c.is_whitespace() && !c.is_control();
        (link.starts_with("https://") || link.starts_with("http://"))
            && link.len() <= LONGEST_LINK
            && link.chars().all(is_plain)
    });
    link.map_or(String::new(), |link| format!("\n{link}"))
}

/// A line for each of the first items, and one for the others.
fn list(items: &[Value], to_line: impl Fn(&Value) -> Option<String>) -> String {
    let lines = items.iter().take(MOST_ITEMS).filter_map(to_line);
    let mut text: String = lines.map(|line| format!("\n- {line}")).collect();
    if let Some(more @ 1..) = items.len().checked_sub(MOST_ITEMS) {
        text.push_str(&format!("\n- {CUT} and {more} more"));
    }
    text
}

/// An event of GitHub
/// (<https://docs.github.com/en/webhooks/webhook-events-and-payloads>). Gitea and Forgejo send the same.
fn github(event: &str, payload: &Value) -> Option<String> {
    let get = |pointer: &str| line(payload, pointer);
    let owner = || get("/organization/login");
    let place = get("/repository/full_name").or_else(owner);
    let sender = get("/sender/login");
    if event == "ping" {
        let place = place.map_or(String::new(), |place| format!(" for {place}"));
        return Some(format!(
            "the webhook of GitHub works{place}: {}",
            get("/zen")?
        ));
    }
    let action = get("/action");
    let numbered = |what: &str, item: &str| {
        let number = get(&format!("{item}/number"))?;
        let title = get(&format!("{item}/title"))?;
        Some(format!("{what} #{number} of {}: {title}", place.as_ref()?))
    };
    let text = match event {
        "push" => {
            let (sender, place) = (sender.or_else(|| get("/pusher/name"))?, place?);
            let reference = get("/ref")?;
            let branch = reference
                .strip_prefix("refs/heads/")
                .or_else(|| reference.strip_prefix("refs/tags/"));
            let branch = branch.unwrap_or(&reference);
            if payload["deleted"] == true {
                return Some(format!("{sender} deleted {branch} of {place}"));
            }
            let forced = if payload["forced"] == true {
                " by force"
            } else {
                ""
            };
            let commits = payload["commits"].as_array()?;
            let count = commits.len();
            let plural = if count == 1 { "" } else { "s" };
            let commits = list(commits, |commit| {
                let id: String = line(commit, "/id")?.chars().take(7).collect();
                Some(format!("{id} {}", first_line(commit, "/message")?))
            });
            let link = link_of(payload, &["/compare"]);
            format!(
                "{sender} pushed{forced} {count} commit{plural} to {branch} of {place}{commits}{link}"
            )
        }
        "pull_request" => {
            let merged = payload.pointer("/pull_request/merged") == Some(&Value::Bool(true));
            let action = match action?.as_str() {
                "closed" if merged => "merged".to_owned(),
                other => other.replace('_', " "),
            };
            let link = link_of(payload, &["/pull_request/html_url"]);
            let what = numbered("pull request", "/pull_request")?;
            format!("{} {action} {what}{link}", sender?)
        }
        "issues" => {
            let link = link_of(payload, &["/issue/html_url"]);
            format!(
                "{} {} {}{link}",
                sender?,
                action?,
                numbered("issue", "/issue")?
            )
        }
        "issue_comment" => {
            let action = match action?.as_str() {
                "created" => "commented on".to_owned(),
                other => format!("{other} a comment on"),
            };
            let kind = match payload.pointer("/issue/pull_request") {
                None | Some(Value::Null) => "issue",
                Some(_) => "pull request",
            };
            let said = first_line(payload, "/comment/body");
            let said = said.map_or(String::new(), |said| format!("\n> {said}"));
            let link = link_of(payload, &["/comment/html_url"]);
            format!(
                "{} {action} {}{said}{link}",
                sender?,
                numbered(kind, "/issue")?
            )
        }
        "release" => {
            let tag = get("/release/tag_name")?;
            let name = get("/release/name").filter(|name| *name != tag);
            let name = name.map_or(String::new(), |name| format!(": {name}"));
            let link = link_of(payload, &["/release/html_url"]);
            format!(
                "{} {} release {tag} of {}{name}{link}",
                sender?, action?, place?
            )
        }
        "workflow_run" => {
            let get = |field: &str| line(payload, &format!("/workflow_run/{field}"));
            let state = get("conclusion")
                .or_else(|| get("status"))?
                .replace('_', " ");
            let branch = get("head_branch").map_or(String::new(), |branch| format!(" on {branch}"));
            let link = link_of(payload, &["/workflow_run/html_url"]);
            format!("{} of {}{branch}: {state}{link}", get("name")?, place?)
        }
        other => {
            let event = line(&Value::from(other), "")?.replace('_', " ");
            let action = action.map_or(String::new(), |action| format!(" {action}"));
            let place = place.map_or(String::new(), |place| format!(" in {place}"));
            format!("{event}{action} by {}{place}", sender?)
        }
    };
    Some(text)
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
        // An empty text is refused as that of a post is.
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
