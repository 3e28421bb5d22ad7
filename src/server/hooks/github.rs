//! The text of an event of GitHub (<https://docs.github.com/en/webhooks/webhook-events-and-payloads>). Gitea and
//! Forgejo send the most common ones in the same form.

use serde_json::Value;

use super::excerpt::{first_line, line, link_of, list};

/// The text; `None` if the body has not the fields of this event.
pub(super) fn text_of(name: &str, payload: &Value) -> Option<String> {
    let get = |pointer: &str| line(payload, pointer);
    let event = GithubEvent {
        payload,
        sender: get("/sender/login").or_else(|| get("/pusher/name")),
        action: get("/action").map(|action| action.replace('_', " ")),
        place: get("/repository/full_name").or_else(|| get("/organization/login")),
    };
    match name {
        "ping" => event.ping(),
        "push" => event.push(),
        "pull_request" => event.pull_request(),
        "issues" => event.issues(),
        "issue_comment" => event.issue_comment(),
        "release" => event.release(),
        "workflow_run" => event.workflow_run(),
        other => event.other(other),
    }
}

/// An event, with the fields that nearly all events have.
struct GithubEvent<'a> {
    payload: &'a Value,
    sender: Option<String>,
    action: Option<String>,
    /// The repository, or else the organization.
    place: Option<String>,
}

impl GithubEvent<'_> {
    fn get(&self, pointer: &str) -> Option<String> {
        line(self.payload, pointer)
    }

    fn is(&self, pointer: &str) -> bool {
        self.payload.pointer(pointer) == Some(&Value::Bool(true))
    }

    /// The address at this pointer, on a line of its own.
    fn link(&self, pointer: &str) -> String {
        link_of(self.payload, &[pointer])
    }

    /// An issue or a pull request, with its number and its title.
    fn numbered(&self, kind: &str, item: &str) -> Option<String> {
        let number = self.get(&format!("{item}/number"))?;
        let title = self.get(&format!("{item}/title"))?;
        let place = self.place.as_ref()?;
        Some(format!("{kind} #{number} of {place}: {title}"))
    }

    fn ping(self) -> Option<String> {
        let zen = self.get("/zen")?;
        let place = self.place.map(|place| format!(" for {place}"));
        let place = place.unwrap_or_default();
        Some(format!("the webhook of GitHub works{place}: {zen}"))
    }

    fn push(self) -> Option<String> {
        let (sender, place) = (self.sender.as_ref()?, self.place.as_ref()?);
        let reference = self.get("/ref")?;
        let mut kinds = [("refs/heads/", "branch"), ("refs/tags/", "tag")].into_iter();
        let found = kinds.find_map(|(start, kind)| Some((kind, reference.strip_prefix(start)?)));
        let (kind, name) = found.unwrap_or(("ref", &reference));
        let commits = self.payload["commits"].as_array()?;
        if self.is("/deleted") {
            return Some(format!("{sender} deleted the {kind} {name} of {place}"));
        }
        let link = link_of(self.payload, &["/compare", "/compare_url"]);
        if self.is("/created") && commits.is_empty() {
            return Some(format!("{sender} made the {kind} {name} of {place}{link}"));
        }
        let by_force = if self.is("/forced") { " by force" } else { "" };
        let count = match commits.len() {
            1 => "1 commit".to_owned(),
            count => format!("{count} commits"),
        };
        let commits = list(commits, 0, |commit| {
            let id: String = line(commit, "/id")?.chars().take(7).collect();
            Some(format!("{id} {}", first_line(commit, "/message")?))
        });
        Some(format!(
            "{sender} pushed{by_force} {count} to {name} of {place}{commits}{link}"
        ))
    }

    fn pull_request(self) -> Option<String> {
        let what = self.numbered("pull request", "/pull_request")?;
        let action = match self.action.as_deref()? {
            "closed" if self.is("/pull_request/merged") => "merged",
            "synchronize" => "updated",
            other => other,
        };
        let link = self.link("/pull_request/html_url");
        let sender = self.sender.as_ref()?;
        Some(format!("{sender} {action} {what}{link}"))
    }

    fn issues(self) -> Option<String> {
        let what = self.numbered("issue", "/issue")?;
        let link = self.link("/issue/html_url");
        Some(format!("{} {} {what}{link}", self.sender?, self.action?))
    }

    fn issue_comment(self) -> Option<String> {
        let kind = match self.payload.pointer("/issue/pull_request") {
            None | Some(Value::Null) => "issue",
            Some(_) => "pull request",
        };
        let what = self.numbered(kind, "/issue")?;
        let said = first_line(self.payload, "/comment/body").map(|said| format!("\n> {said}"));
        let said = said.unwrap_or_default();
        let link = self.link("/comment/html_url");
        let action = match &*self.action? {
            "created" => "commented on".to_owned(),
            other => format!("{other} a comment on"),
        };
        Some(format!("{} {action} {what}{said}{link}", self.sender?))
    }

    fn release(self) -> Option<String> {
        let tag = self.get("/release/tag_name")?;
        let name = self.get("/release/name").filter(|name| *name != tag);
        let name = name.map_or(String::new(), |name| format!(": {name}"));
        let link = self.link("/release/html_url");
        let (sender, action, place) = (self.sender?, self.action?, self.place?);
        Some(format!(
            "{sender} {action} release {tag} of {place}{name}{link}"
        ))
    }

    fn workflow_run(self) -> Option<String> {
        let get = |field: &str| self.get(&format!("/workflow_run/{field}"));
        let state = get("conclusion").or_else(|| get("status"))?;
        let state = state.replace('_', " ");
        let name = get("name").or_else(|| self.get("/workflow/name"))?;
        let branch = get("head_branch").map_or(String::new(), |branch| format!(" on {branch}"));
        let link = self.link("/workflow_run/html_url");
        Some(format!("{name} of {}{branch}: {state}{link}", self.place?))
    }

    fn other(self, name: &str) -> Option<String> {
        let name = line(&Value::from(name), "")?.replace('_', " ");
        if self.sender.is_none() && self.place.is_none() {
            return None;
        }
        let part = |before: &str, part: Option<String>| {
            part.map_or(String::new(), |part| format!("{before}{part}"))
        };
        let action = part(" ", self.action);
        let (sender, place) = (part(" by ", self.sender), part(" in ", self.place));
        Some(format!("{name}{action}{sender}{place}"))
    }
}
