//! The chat page as it is served. What it does is shown in `tests/browser/`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use hubbub::message::RoomName;
use hubbub::server::page::ASSETS;

use crate::support::client::raw;
use crate::support::hubbub::Hubbub;

/// Head and body of an answer.
fn ask(hubbub: &Hubbub, method: &str, path: &str, field: &str) -> (String, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n");
    let answer = String::from_utf8(raw(hubbub.address(), request.as_bytes())).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let found = lines.find(|(found, _)| *found == name);
    found.unwrap_or_else(|| panic!("no {name}: {head}")).1
}

#[test]
fn every_file_is_served_with_its_type_and_under_a_strict_policy() {
    let hubbub = Hubbub::alone();
    for asset in &ASSETS {
        let (head, body) = ask(&hubbub, "GET", asset.path, "");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(body, asset.text, "{}", asset.path);
        assert_eq!(field(&head, "Content-Type"), asset.content_type);
        let extension = Path::new(asset.path).extension().and_then(|e| e.to_str());
        let expected = match extension {
            None => "text/html; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some(other) => panic!("a type for {other}?"),
        };
        assert_eq!(asset.content_type, expected, "{}", asset.path);
        let policy = field(&head, "Content-Security-Policy");
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(field(&head, "X-Content-Type-Options"), "nosniff");
        assert_eq!(field(&head, "Referrer-Policy"), "no-referrer");
        assert_eq!(field(&head, "Cache-Control"), "no-cache");
    }
}

#[test]
fn a_file_that_the_browser_has_is_not_sent_again() {
    let hubbub = Hubbub::alone();
    let (head, _) = ask(&hubbub, "GET", "/page/app.js", "");
    let etag = field(&head, "ETag");
    let has = format!("If-None-Match: \"other\", {etag}\r\n");
    let (head, body) = ask(&hubbub, "GET", "/page/app.js", &has);
    assert!(head.starts_with("HTTP/1.1 304 Not Modified\r\n"), "{head}");
    assert_eq!(body, "");
    let (head, _) = ask(&hubbub, "GET", "/", &has);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
}

#[test]
fn head_is_answered_without_a_body_and_other_methods_not_at_all() {
    let hubbub = Hubbub::alone();
    let (head, body) = ask(&hubbub, "HEAD", "/", "");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let length: usize = field(&head, "Content-Length").parse().expect("a number");
    assert!(length > 1000 && body.is_empty(), "{head}");
    let (head, _) = ask(&hubbub, "POST", "/", "Content-Length: 0\r\n");
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
}

#[test]
fn what_is_not_in_the_table_is_not_there() {
    let hubbub = Hubbub::alone();
    for path in ["/page", "/page/", "/page/mod.rs", "/page/../Cargo.toml"] {
        let (head, _) = ask(&hubbub, "GET", path, "");
        assert!(head.starts_with("HTTP/1.1 404 "), "{path}: {head}");
    }
}

/// What stands in double quotes behind `word`.
fn quoted<'a>(text: &'a str, word: &str) -> impl Iterator<Item = &'a str> {
    let parts = text.split(word).skip(1);
    parts.filter_map(|rest| rest.split_once('"').map(|(inside, _)| inside))
}

#[test]
fn what_the_page_asks_for_is_in_the_table_and_the_other_way_round() {
    let mut asked = BTreeSet::from(["/".to_owned()]);
    for asset in &ASSETS {
        match asset.path {
            "/" => {
                for word in ["src=\"", "href=\""] {
                    asked.extend(quoted(asset.text, word).map(|path| format!("/{path}")));
                }
            }
            _ => {
                // The import of a type is a comment.
                let code = asset.text.lines().filter(|line| !line.contains("@import"));
                let imports = code.flat_map(|line| quoted(line, "from \"./"));
                asked.extend(imports.map(|file| format!("/page/{file}")));
            }
        }
    }
    let served: BTreeSet<String> = ASSETS.iter().map(|asset| asset.path.to_owned()).collect();
    assert_eq!(asked, served);
    // And what lies in the folder is in the table.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/page");
    for entry in fs::read_dir(folder).expect("the folder") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_str().expect("a name");
        let path = match name {
            // The last has types only, for scripts/check.sh.
            "mod.rs" | "screenshot.png" | "wire.d.ts" => continue,
            "index.html" => "/".to_owned(),
            _ => format!("/page/{name}"),
        };
        assert!(served.contains(&path), "{name} is not served");
    }
}

#[test]
fn no_module_can_make_markup_or_code_of_a_text() {
    for asset in &ASSETS {
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "style=\"",
            "javascript:",
        ] {
            assert!(!asset.text.contains(word), "{} has {word}", asset.path);
        }
    }
}

#[test]
fn the_page_objects_to_a_name_as_the_server_does() {
    let names = [
        "alice",
        "Zoë",
        "名前",
        "a b",
        "*",
        "a:b,c",
        "\u{1f600}",
        "नमस्ते",
        "",
        "a/b",
        "a\nb",
        "a\u{85}",
        "a\u{2028}",
        "a\u{202e}",
        " a",
        "a\u{3000}",
        "a  b",
        "a\u{a0}b",
        "a\u{ad}",
        "a\u{200b}",
        "a\u{2800}",
        "a\u{3164}",
        "a\u{fe0f}",
        "a\u{fffa}",
        "a\u{1d159}",
        "a\u{e0041}",
        "\u{301}",
        "\u{903}",
        "Zoe\u{308}",
        "\u{212b}",
        "* online",
        "! not sent",
        "bob: no",
        "online:",
        "a, b",
        "alice,",
    ];
    let [longest, too_long] = ["\u{1f600}".repeat(64), "\u{1f600}".repeat(65)];
    let names = [&names[..], &[&*longest, &*too_long]].concat();
    let rules = fs::read_to_string("src/server/page/names.js").expect("the page's rules");
    let asked = serde_json::to_string(&names).expect("JSON");
    let program = format!("{rules}\nconsole.log(JSON.stringify({asked}.map(objection)));");
    let node = Command::new("node")
        .args(["--input-type=module", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut node) = node else {
        return; // no Node here; scripts/browser_test.sh installs it
    };
    let mut input = node.stdin.take().expect("a pipe");
    input.write_all(program.as_bytes()).expect("it is read");
    drop(input);
    let output = node.wait_with_output().expect("it ends");
    let found: Vec<Option<String>> = serde_json::from_slice(&output.stdout).expect("JSON");
    for (name, found) in names.iter().zip(found) {
        let expected = name.parse::<RoomName>().err();
        let found = found.map(|why| format!("it {why}"));
        assert_eq!(found, expected.map(|why| why.to_string()), "{name:?}");
    }
}
