//! Webhooks: what other services post to a room. The bodies are shortened examples of their documentation.

use serde_json::{Value, json};

use crate::support::client::{metric, raw};
use crate::support::hubbub::{Hubbub, run};

const SECRET: &str = "an example of a secret of enough bytes";

const HOOK: &str = "/hooks/ops?user=ci";

/// Posts to a hook; the status, and the answer as JSON, or as a text if it is none.
fn post(hubbub: &Hubbub, target: &str, fields: &[&str], body: &str) -> (u16, Value) {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    );
    let answer = String::from_utf8(raw(hubbub.address(), request.as_bytes())).expect("text");
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (
        status.unwrap_or_else(|| panic!("no status in {answer:?}")),
        serde_json::from_str(body).unwrap_or_else(|_| json!(body)),
    )
}

/// The texts of a room, oldest first.
fn said_in(hubbub: &Hubbub, room: &str) -> Vec<String> {
    let target = format!("GET /api/rooms/{room}/messages HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (_, body) = crate::support::client::request(hubbub.address(), &target);
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let messages = body["messages"].as_array().expect("a list");
    let texts = messages
        .iter()
        .map(|one| one["text"].as_str().expect("a text").to_owned());
    texts.collect()
}

/// What the room reads when this is posted.
fn read_of(hubbub: &Hubbub, event: Option<&str>, body: &Value) -> String {
    let field = event.map(|event| format!("X-GitHub-Event: {event}"));
    let fields: Vec<_> = field.iter().map(String::as_str).collect();
    let (status, answer) = post(hubbub, HOOK, &fields, &body.to_string());
    assert!(matches!(status, 200 | 201), "{event:?}: {answer}");
    said_in(hubbub, "ops").pop().expect("a message")
}

#[test]
fn what_slack_style_senders_post_is_read_as_they_meant_it() {
    let hubbub = Hubbub::alone();
    let mut alice = hubbub.join_room("alice", "ops");
    let answer_of_slack = (200, json!("ok"));
    let answer = post(&hubbub, HOOK, &[], r#"{"text":"Build 17 is out"}"#);
    assert_eq!(answer, answer_of_slack);
    assert_eq!(alice.hears(), "ci: Build 17 is out");
    for form in [
        "payload=%7B%22text%22%3A%22a+%2B+b%22%7D",
        "channel=%23ops&payload=%7B%22text%22%3A%22a+%2B+b%22%7D&x",
    ] {
        let kind = ["Content-Type: application/x-www-form-urlencoded"];
        assert_eq!(post(&hubbub, HOOK, &kind, form), answer_of_slack);
        assert_eq!(alice.hears(), "ci: a + b");
    }
    let section = json!({"type": "section", "text": {"type": "mrkdwn", "text": "*Build* <https://b.example|17>"},
        "fields": [{"type": "mrkdwn", "text": "took 5 s"}]});
    let header = json!({"type": "header", "text": {"type": "plain_text", "text": "Done"}});
    let button = json!({"type": "actions", "elements": [{"type": "button", "text": {"type": "plain_text", "text": "Go"}}]});
    for (body, read) in [
        (
            json!({"text": "A &lt;b&gt; &amp;amp; <https://x.example/?a=1|the page> <b>"}),
            "A <b> &amp; the page (https://x.example/?a=1) <b>",
        ),
        (
            json!({"channel": "#ops", "attachments": [
                {"fallback": "New open task: <http://t.example/1>", "color": "#D00"},
                {"fallback": "less", "pretext": "before", "title": "Task", "title_link": "https://t.example/2", "text": "do it"},
                {"color": "good"}
            ]}),
            "New open task: http://t.example/1\nbefore\nTask\ndo it\nhttps://t.example/2",
        ),
        (
            json!({"attachments": [{"title": "T", "title_link": "https://t.example/3", "text": "see <https://t.example/3|it>",
                "fields": [{"title": "Job", "value": "api", "short": true}, {"value": "alone"}, {}]}]}),
            "T\nsee it (https://t.example/3)\nJob: api\nalone",
        ),
        (
            json!({"text": "Heading", "attachments": [{"fields": [{"title": "Job", "value": "api"}]}]}),
            "Heading\nJob: api",
        ),
        (
            json!({"blocks": [header, section, button], "text": ""}),
            "Done\n*Build* 17 (https://b.example)\ntook 5 s",
        ),
        (
            json!({"attachments": [{"color": "good", "blocks": [header]}]}),
            "Done",
        ),
        (
            json!({"text": "x <https://unfinished"}),
            "x <https://unfinished",
        ),
    ] {
        assert_eq!(read_of(&hubbub, None, &body), read);
    }
}

fn octocat(mut event: Value) -> Value {
    event["repository"] = json!({"full_name": "octocat/Hello-World"});
    event["sender"] = json!({"login": "octocat"});
    event
}

#[test]
fn events_of_github_are_a_few_lines_with_a_link() {
    let hubbub = Hubbub::alone();
    let commit = |n: usize| json!({"id": format!("{n}d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c"), "message": format!("Change {n}\n\nWhy.")});
    let commits: Vec<_> = (1..8).map(commit).collect();
    let push = json!({"ref": "refs/heads/simple-tag", "forced": true, "deleted": false, "commits": commits,
        "compare": "https://github.com/octocat/Hello-World/compare/a...b"});
    let pull = json!({"number": 2, "title": "Update", "html_url": "https://x.example/pull/2"});
    let issue = json!({"number": 1, "title": "Spelling error\nin the README file",
        "html_url": "https://github.com/octocat/Hello-World/issues/1"});
    for (event, body, read) in [
        (
            "push",
            push,
            "octocat pushed by force 7 commits to simple-tag of octocat/Hello-World\n\
             - 1d1a26e Change 1\n- 2d1a26e Change 2\n- 3d1a26e Change 3\n- 4d1a26e Change 4\n\
             - 5d1a26e Change 5\n- … and 2 more\nhttps://github.com/octocat/Hello-World/compare/a...b",
        ),
        (
            "push",
            json!({"ref": "refs/heads/old", "deleted": true, "commits": []}),
            "octocat deleted the branch old of octocat/Hello-World",
        ),
        (
            "push",
            json!({"ref": "refs/tags/v1", "created": true, "commits": [], "compare": "https://x.example/v1"}),
            "octocat made the tag v1 of octocat/Hello-World\nhttps://x.example/v1",
        ),
        (
            "pull_request",
            json!({"action": "closed", "pull_request": {"number": 2, "merged": true, "title": "Update the README",
                "html_url": "https://github.com/octocat/Hello-World/pull/2"}}),
            "octocat merged pull request #2 of octocat/Hello-World: Update the README\n\
             https://github.com/octocat/Hello-World/pull/2",
        ),
        (
            "issues",
            json!({"action": "opened", "issue": issue}),
            "octocat opened issue #1 of octocat/Hello-World: Spelling error in the README file\n\
             https://github.com/octocat/Hello-World/issues/1",
        ),
        (
            "issue_comment",
            json!({"action": "created", "issue": issue, "comment": {"body": "You are right!\nI fix it.",
                "html_url": "https://github.com/octocat/Hello-World/issues/1#issuecomment-4"}}),
            "octocat commented on issue #1 of octocat/Hello-World: Spelling error in the README file\n\
             > You are right!\nhttps://github.com/octocat/Hello-World/issues/1#issuecomment-4",
        ),
        (
            "release",
            json!({"action": "published", "release": {"tag_name": "0.0.1", "name": "First",
                "html_url": "https://github.com/octocat/Hello-World/releases/tag/0.0.1"}}),
            "octocat published release 0.0.1 of octocat/Hello-World: First\n\
             https://github.com/octocat/Hello-World/releases/tag/0.0.1",
        ),
        (
            "workflow_run",
            json!({"action": "completed", "workflow_run": {"name": "Build", "head_branch": "master",
                "status": "completed", "conclusion": "timed_out",
                "html_url": "https://github.com/octocat/Hello-World/actions/runs/30433642"}}),
            "Build of octocat/Hello-World on master: timed out\n\
             https://github.com/octocat/Hello-World/actions/runs/30433642",
        ),
        (
            "ping",
            json!({"zen": "Keep it logically awesome.", "hook_id": 1}),
            "the webhook of GitHub works for octocat/Hello-World: Keep it logically awesome.",
        ),
        (
            "pull_request",
            json!({"action": "ready_for_review", "pull_request": pull}),
            "octocat marked pull request #2 of octocat/Hello-World as ready for review: Update\nhttps://x.example/pull/2",
        ),
        (
            "pull_request",
            json!({"action": "converted_to_draft", "pull_request": pull}),
            "octocat converted pull request #2 of octocat/Hello-World to a draft: Update\nhttps://x.example/pull/2",
        ),
        (
            "pull_request",
            json!({"action": "review_requested", "pull_request": pull, "requested_reviewer": {"login": "hubot"}}),
            "octocat requested a review of pull request #2 of octocat/Hello-World from hubot: Update\n\
             https://x.example/pull/2",
        ),
        (
            "pull_request_review",
            json!({"action": "submitted", "pull_request": pull, "review": {"state": "changes_requested", "body": "Almost.\nBut",
                "html_url": "https://x.example/pull/2#review-1"}}),
            "octocat requested changes of pull request #2 of octocat/Hello-World: Update\n> Almost.\n\
             https://x.example/pull/2#review-1",
        ),
        (
            "pull_request_review",
            json!({"action": "submitted", "pull_request": pull, "review": {"state": "approved", "body": null}}),
            "octocat approved pull request #2 of octocat/Hello-World: Update\nhttps://x.example/pull/2",
        ),
        (
            "pull_request_review_comment",
            json!({"action": "created", "pull_request": pull, "comment": {"body": "Why?",
                "html_url": "https://x.example/pull/2#discussion_r1"}}),
            "octocat commented on pull request #2 of octocat/Hello-World: Update\n> Why?\n\
             https://x.example/pull/2#discussion_r1",
        ),
        (
            "commit_comment",
            json!({"action": "created", "comment": {"commit_id": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
                "body": "This is a really good change!", "html_url": "https://x.example/commit/6113728#comment-1"}}),
            "octocat commented on commit 6113728 of octocat/Hello-World\n> This is a really good change!\n\
             https://x.example/commit/6113728#comment-1",
        ),
        (
            "check_run",
            json!({"action": "completed", "check_run": {"name": "lint", "conclusion": "timed_out", "html_url": "https://x.example/runs/1"}}),
            "check run completed by octocat in octocat/Hello-World: lint: timed out\nhttps://x.example/runs/1",
        ),
        (
            "status",
            json!({"state": "success", "commit": {"html_url": "https://x.example/commit/1"}}),
            "status by octocat in octocat/Hello-World: success\nhttps://x.example/commit/1",
        ),
        (
            "push",
            json!({"ref": "refs/heads/of-another-form"}),
            "push by octocat in octocat/Hello-World: refs/heads/of-another-form",
        ),
        (
            "star",
            json!({"action": "created"}),
            "star created by octocat in octocat/Hello-World",
        ),
    ] {
        assert_eq!(
            read_of(&hubbub, Some(event), &octocat(body)),
            read,
            "{event}"
        );
    }
    let advisory =
        json!({"action": "published", "security_advisory": {"summary": "A hole in rails"}});
    assert_eq!(
        read_of(&hubbub, Some("security_advisory"), &advisory),
        "security advisory published: A hole in rails",
        "an event of nobody, in no repository"
    );
    let mut starred = octocat(json!({"action": "created"}));
    starred["repository"]["html_url"] = json!("https://github.com/octocat/Hello-World");
    assert_eq!(
        read_of(&hubbub, Some("star"), &starred),
        "star created by octocat in octocat/Hello-World\nhttps://github.com/octocat/Hello-World",
        "the repository's address, if there is no better one"
    );
}

#[test]
fn alerts_of_alertmanager_and_grafana_are_a_line_each() {
    let hubbub = Hubbub::alone();
    let alert = |instance: &str| {
        json!({"status": "firing", "labels": {"alertname": "InstanceDown", "instance": instance},
            "annotations": {}, "generatorURL": "http://prometheus.example/graph"})
    };
    let of_alertmanager = json!({"version": "4", "status": "firing", "receiver": "hubbub",
        "groupLabels": {"alertname": "InstanceDown", "job": "api"}, "externalURL": "http://alerts.example",
        "alerts": [alert("a:9100"), alert("b:9100")]});
    assert_eq!(
        read_of(&hubbub, None, &of_alertmanager),
        "[FIRING:2] InstanceDown api\n- firing: InstanceDown (a:9100)\n- firing: InstanceDown (b:9100)\n\
         http://prometheus.example/graph",
    );
    let mut of_both = of_alertmanager;
    of_both["alerts"][1]["status"] = json!("resolved");
    of_both["truncatedAlerts"] = json!(3);
    assert_eq!(
        read_of(&hubbub, None, &of_both),
        "[FIRING:1] InstanceDown api\n- firing: InstanceDown (a:9100)\n- resolved: InstanceDown (b:9100)\n\
         - … and 3 more\nhttp://prometheus.example/graph",
    );
    of_both["status"] = json!("resolved");
    let first = read_of(&hubbub, None, &of_both);
    assert_eq!(first.lines().next(), Some("[RESOLVED] InstanceDown api"));
    let of_grafana = json!({"receiver": "My Super Webhook", "status": "resolved", "state": "ok",
        "alerts": [{"status": "resolved", "labels": {"alertname": "High memory usage", "zone": "us-1"},
            "annotations": {"description": "The system has high memory usage", "summary": "This alert was triggered"},
            "generatorURL": "https://play.grafana.org/alerting/1afz29v7z/edit",
            "panelURL": "https://play.grafana.org/d/CHECKsQ2k?viewPanel=9"}],
        "externalURL": "https://play.grafana.org/", "version": "1",
        "title": "[RESOLVED:1]  (High memory usage us-1)", "message": "**Resolved**\n\nLabels: …"});
    assert_eq!(
        read_of(&hubbub, None, &of_grafana),
        "[RESOLVED:1] (High memory usage us-1)\n- resolved: This alert was triggered\n\
         https://play.grafana.org/d/CHECKsQ2k?viewPanel=9",
    );
}

#[test]
fn a_redelivery_of_github_is_the_same_message() {
    let hubbub = Hubbub::alone();
    let fields = [
        "X-GitHub-Event: star",
        "X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958",
    ];
    let body = octocat(json!({"action": "created"})).to_string();
    let (_, first) = post(&hubbub, HOOK, &fields, &body);
    let (status, again) = post(&hubbub, HOOK, &fields, &body);
    assert_eq!((status, &again["duplicate"]), (201, &json!(true)));
    assert_eq!(first["id"], again["id"]);
    assert_eq!(said_in(&hubbub, "ops").len(), 1);
}

#[test]
fn what_is_no_message_is_refused_with_a_sentence() {
    let hubbub = Hubbub::with(&["--max-message", "100"]);
    let huge = format!(r#"{{"text":"{}"}}"#, "x".repeat(1 << 20));
    let deep = "[".repeat(100_000);
    for (event, body, status, sentence) in [
        ("", "hello", 400, "not JSON"),
        ("", "payload=hello", 400, "not JSON"),
        ("", &deep, 400, "not JSON"),
        ("", "[]", 422, "a hook takes"),
        ("", r#"{"text":1}"#, 422, "a hook takes"),
        (
            "",
            r#"{"attachments":[{"color":"good"}]}"#,
            422,
            "a hook takes",
        ),
        (
            "",
            r#"{"blocks":[{"type":"image"}]}"#,
            422,
            "of Slack's blocks",
        ),
        ("", r#"{"text":" "}"#, 400, "nothing to say"),
        ("push", "{}", 422, "X-GitHub-Event"),
        ("star", "null", 422, "X-GitHub-Event"),
        ("", &huge, 413, "over 1048576 bytes"),
    ] {
        let field = format!("X-GitHub-Event: {event}");
        let fields: &[&str] = if event.is_empty() { &[] } else { &[&field] };
        let (found, answer) = post(&hubbub, HOOK, fields, body);
        let message = answer["message"].as_str().unwrap_or_default();
        assert_eq!(found, status, "{event}: {message}");
        assert!(message.contains(sentence), "{event}: {message}");
    }
    let zipped = ["Content-Encoding: gzip"];
    for target in [HOOK, "/api/rooms/ops/messages?user=ci"] {
        let (status, answer) = post(&hubbub, target, &zipped, r#"{"text":"x"}"#);
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(
            message.contains("a compressed body is not taken"),
            "{answer}"
        );
        assert_eq!(status, 415);
    }
    assert_eq!(said_in(&hubbub, "ops"), [""; 0], "nothing was said");
    let long = json!({"text": "é".repeat(1000)});
    let read = read_of(&hubbub, None, &long);
    assert_eq!(read, "é".repeat(48) + "…", "as much as fits into a message");
    let beginnings = json!({"text": "<".repeat(1_000_000)});
    let read = read_of(&hubbub, None, &beginnings);
    assert_eq!(read, "<".repeat(97) + "…", "and it is found in time");
}

#[test]
fn a_hook_is_let_in_and_paced_as_a_post_is() {
    let arguments = [
        "--token-secret",
        SECRET,
        "--send-rate",
        "1",
        "--send-burst",
        "1",
    ];
    let hubbub = Hubbub::with(&arguments);
    let token = |arguments: &[&str]| {
        let common = ["token", "ci", "--room", "ops", "--secret", SECRET];
        let output = run(&[&common, arguments].concat());
        String::from_utf8(output.stdout)
            .expect("text")
            .trim()
            .to_owned()
    };
    let to = |room: &str, token: &str| format!("/hooks/{room}?token={token}");
    let body = r#"{"text":"x"}"#;
    assert_eq!(post(&hubbub, HOOK, &[], body).0, 401);
    assert_eq!(post(&hubbub, &to("den", &token(&[])), &[], body).0, 403);
    assert_eq!(
        post(&hubbub, &to("ops", &token(&["--read-only"])), &[], body).0,
        403
    );
    let evil = ["Origin: https://evil.example"];
    assert_eq!(post(&hubbub, &to("ops", &token(&[])), &evil, body).0, 403);
    let statuses = [(); 2].map(|()| post(&hubbub, &to("ops", &token(&[])), &[], body).0);
    assert_eq!(statuses, [200, 429]);
    assert!(
        !hubbub.log().contains(&token(&[])[..40]),
        "no token is logged"
    );
}

#[test]
fn only_so_many_large_bodies_are_in_memory_at_once() {
    let hubbub = Hubbub::alone();
    let half = |length: usize| {
        let mut stream = std::net::TcpStream::connect(hubbub.address()).expect("a connection");
        let head = format!(
            "POST {HOOK} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        );
        std::io::Write::write_all(&mut stream, head.as_bytes()).expect("a head");
        let mut asked = [0; 12];
        std::io::Read::read_exact(&mut stream, &mut asked).expect("an answer");
        (stream, String::from_utf8_lossy(&asked).into_owned())
    };
    let held: Vec<_> = (0..32).map(|_| half(100_000)).collect();
    assert!(held.iter().all(|(_, asked)| asked == "HTTP/1.1 100"));
    assert_eq!(half(100_000).1, "HTTP/1.1 503");
    assert_eq!(post(&hubbub, HOOK, &[], r#"{"text":"a small one"}"#).0, 200);
    drop(held);
    let text = json!({"text": "x", "more": "y".repeat(100_000)}).to_string();
    crate::support::until("there is a place again", || {
        (post(&hubbub, HOOK, &[], &text).0 == 200).then_some(())
    });
    assert!(metric(&hubbub, "hubbub_requests_refused_total") >= 1);
}
