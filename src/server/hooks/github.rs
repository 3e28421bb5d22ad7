//! The text of an event of GitHub (<https://docs.github.com/en/webhooks/webhook-events-and-payloads>). Gitea and
//! Forgejo send the most common ones in the same form.

use serde_json::Value;

use super::excerpt::{first_line, line, link_of, list};

/// The text; `None` if the body says neither who did something, nor where, nor what.
pub(super) fn text_of(name: &str, payload: &Value) -> Option<String> {
    let get = |pointer: &str| line(payload, pointer);
    let event = GithubEvent {
        payload,
        sender: get("/sender/login").or_else(|| get("/pusher/name")),
        action: get("/action").map(|action| action.replace('_', " ")),
        place: get("/repository/full_name").or_else(|| get("/organization/login")),
    };
    let text = match name {
        "ping" => event.ping(),
        "push" => event.push(),
        "pull_request" => event.numbered("pull request", "/pull_request"),
        "pull_request_review" => event.review(),
        "pull_request_review_comment" => event.comment("pull request", "/pull_request"),
        "issues" => event.numbered("issue", "/issue"),
        "issue_comment" => event.comment(event.kind_of_issue(), "/issue"),
        "discussion" => event.numbered("discussion", "/discussion"),
        "discussion_comment" => event.comment("discussion", "/discussion"),
        "commit_comment" => event.commit_comment(),
        "release" => event.release(),
        "workflow_run" => event.workflow_run(),
        _ => None,
    };
    text.or_else(|| event.other(name))
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

    /// The address at the first of these pointers that has one, or else that of the repository, on a line of its own.
    fn link(&self, pointers: &[&str]) -> String {
        link_of(
            self.payload,
            &[pointers, &["/repository/html_url"]].concat(),
        )
    }

    /// What happened to an issue, a pull request or a discussion, with its number and its title.
    fn happened(&self, verb: &str, kind: &str, item: &str, rest: &str) -> Option<String> {
        let number = self.get(&format!("{item}/number"))?;
        let title = self.get(&format!("{item}/title"))?;
        let (sender, place) = (self.sender.as_ref()?, self.place.as_ref()?);
        Some(format!(
            "{sender} {verb} {kind} #{number} of {place}{rest}: {title}"
        ))
    }

    /// The first line of what a comment or a review says, on a line of its own.
    fn said(&self, pointer: &str) -> String {
        part("\n> ", first_line(self.payload, pointer))
    }

    fn numbered(&self, kind: &str, item: &str) -> Option<String> {
        let named = |before, pointers: &[&str]| {
            part(
                before,
                pointers.iter().find_map(|pointer| self.get(pointer)),
            )
        };
        let nothing = String::new;
        let (verb, rest) = match self.action.as_deref()? {
            "closed" if self.is("/pull_request/merged") => ("merged", nothing()),
            "synchronize" => ("updated", nothing()),
            "ready for review" => ("marked", " as ready for review".to_owned()),
            "converted to draft" => ("converted", " to a draft".to_owned()),
            "review requested" => {
                let reviewers = ["/requested_reviewer/login", "/requested_team/name"];
                ("requested a review of", named(" from ", &reviewers))
            }
            "review request removed" => ("withdrew a request to review", nothing()),
            "auto merge enabled" => ("enabled auto-merge of", nothing()),
            "auto merge disabled" => ("disabled auto-merge of", nothing()),
            "assigned" => ("assigned", named(" to ", &["/assignee/login"])),
            "unassigned" => ("unassigned", named(" from ", &["/assignee/login"])),
            "labeled" => ("labeled", named(" as ", &["/label/name"])),
            "category changed" => ("changed the category of", nothing()),
            "answered" => ("marked an answer to", nothing()),
            "unanswered" => ("unmarked an answer to", nothing()),
            other => (other, nothing()),
        };
        let what = self.happened(verb, kind, item, &rest)?;
        let link = self.link(&[&format!("{item}/html_url")]);
        Some(format!("{what}{link}"))
    }

    /// GitHub sends a comment on a pull request as one on its issue.
    fn kind_of_issue(&self) -> &'static str {
        match self.payload.pointer("/issue/pull_request") {
            None | Some(Value::Null) => "issue",
            Some(_) => "pull request",
        }
    }

    fn comment(&self, kind: &str, item: &str) -> Option<String> {
        let verb = match self.action.as_deref()? {
            "created" => "commented on".to_owned(),
            other => format!("{other} a comment on"),
        };
        let what = self.happened(&verb, kind, item, "")?;
        let said = self.said("/comment/body");
        let link = self.link(&["/comment/html_url", &format!("{item}/html_url")]);
        Some(format!("{what}{said}{link}"))
    }

    fn review(&self) -> Option<String> {
        let state = self.get("/review/state");
        let verb = match (self.action.as_deref()?, state.as_deref()) {
            ("submitted", Some("approved")) => "approved".to_owned(),
            ("submitted", Some("changes_requested")) => "requested changes of".to_owned(),
            ("submitted", _) => "reviewed".to_owned(),
            (other, _) => format!("{other} a review of"),
        };
        let what = self.happened(&verb, "pull request", "/pull_request", "")?;
        let said = self.said("/review/body");
        let link = self.link(&["/review/html_url", "/pull_request/html_url"]);
        Some(format!("{what}{said}{link}"))
    }

    fn commit_comment(&self) -> Option<String> {
        let (sender, place) = (self.sender.as_ref()?, self.place.as_ref()?);
        let commit = short(&self.get("/comment/commit_id")?);
        let said = self.said("/comment/body");
        let link = self.link(&["/comment/html_url"]);
        Some(format!(
            "{sender} commented on commit {commit} of {place}{said}{link}"
        ))
    }

    fn ping(&self) -> Option<String> {
        let zen = self.get("/zen")?;
        let place = part(" for ", self.place.clone());
        let link = self.link(&[]);
        Some(format!("the webhook of GitHub works{place}: {zen}{link}"))
    }

    fn push(&self) -> Option<String> {
        let (sender, place) = (self.sender.as_ref()?, self.place.as_ref()?);
        let reference = self.get("/ref")?;
        let mut kinds = [("refs/heads/", "branch"), ("refs/tags/", "tag")].into_iter();
        let found = kinds.find_map(|(start, kind)| Some((kind, reference.strip_prefix(start)?)));
        let (kind, name) = found.unwrap_or(("ref", &reference));
        let commits = self.payload["commits"].as_array()?;
        if self.is("/deleted") {
            let link = self.link(&[]);
            return Some(format!(
                "{sender} deleted the {kind} {name} of {place}{link}"
            ));
        }
        let link = self.link(&["/compare", "/compare_url"]);
        if self.is("/created") && commits.is_empty() {
            return Some(format!("{sender} made the {kind} {name} of {place}{link}"));
        }
        let by_force = if self.is("/forced") { " by force" } else { "" };
        let count = match commits.len() {
            1 => "1 commit".to_owned(),
            count => format!("{count} commits"),
        };
        let commits = list(commits, 0, |commit| {
            let id = short(&line(commit, "/id")?);
            Some(format!("{id} {}", first_line(commit, "/message")?))
        });
        Some(format!(
            "{sender} pushed{by_force} {count} to {name} of {place}{commits}{link}"
        ))
    }

    fn release(&self) -> Option<String> {
        let tag = self.get("/release/tag_name")?;
        let name = self.get("/release/name").filter(|name| *name != tag);
        let name = part(": ", name);
        let link = self.link(&["/release/html_url"]);
        let (sender, place) = (self.sender.as_ref()?, self.place.as_ref()?);
        let action = self.action.as_ref()?;
        Some(format!(
            "{sender} {action} release {tag} of {place}{name}{link}"
        ))
    }

    fn workflow_run(&self) -> Option<String> {
        let get = |field: &str| self.get(&format!("/workflow_run/{field}"));
        let state = get("conclusion").or_else(|| get("status"))?;
        let state = state.replace('_', " ");
        let name = get("name").or_else(|| self.get("/workflow/name"))?;
        let branch = part(" on ", get("head_branch"));
        let link = self.link(&["/workflow_run/html_url"]);
        let place = self.place.as_ref()?;
        Some(format!("{name} of {place}{branch}: {state}{link}"))
    }

    /// Any event, in a few words: who did what where, and the title, the outcome and the address of its subject.
    fn other(&self, name: &str) -> Option<String> {
        if self.sender.is_none() && self.place.is_none() && self.action.is_none() {
            return None;
        }
        let nothing = Value::Null;
        let subject = self.subject(name).unwrap_or(&nothing);
        let named = ["/title", "/summary", "/name"].into_iter();
        let title = named.filter_map(|field| line(subject, field)).next();
        let title = title.or_else(|| self.get("/ref").or_else(|| self.get("/state")));
        let outcome = line(subject, "/conclusion").map(|outcome| outcome.replace('_', " "));
        let link = match link_of(subject, &["/html_url"]) {
            none if none.is_empty() => self.link(&[]),
            link => link,
        };
        Some(format!(
            "{}{}{}{}{}{}{link}",
            line(&Value::from(name), "")?.replace('_', " "),
            part(" ", self.action.clone()),
            part(" by ", self.sender.clone()),
            part(" in ", self.place.clone()),
            part(": ", title),
            part(": ", outcome),
        ))
    }

    /// The thing of which the event is: the field of its name, or else the first one that has an address, and is
    /// neither a person nor the place.
    fn subject(&self, name: &str) -> Option<&Value> {
        let mut fields = self.payload.as_object()?.iter().filter(|(key, value)| {
            !matches!(key.as_str(), "repository" | "organization" | "enterprise")
                && value.get("login").is_none()
        });
        let named = self.payload.get(name).filter(|_| name != "repository");
        named.or_else(|| fields.find_map(|(_, value)| value.get("html_url").map(|_| value)))
    }
}

/// A part of a sentence, if there is one, and what comes before it.
fn part(before: &str, part: Option<String>) -> String {
    part.map_or(String::new(), |part| format!("{before}{part}"))
}

/// The beginning of a commit's id.
fn short(id: &str) -> String {
    id.chars().take(7).collect()
}
