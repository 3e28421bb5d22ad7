//! The house keeps its order.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The example in `src`: a crate of its own, beside the house and not in it.
const LESSON: &str = "lesson";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust source below `folder`, with its text.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            found.push((path, text));
        }
    }
    found
}

/// The top-level module that a file under `src` belongs to.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).expect("under src");
    let first = inside.components().next().expect("a name");
    let name = first.as_os_str().to_string_lossy();
    name.trim_end_matches(".rs").to_owned()
}

/// The modules in the order in which `lib.rs` lists them.
fn layers() -> BTreeMap<String, usize> {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("lib.rs");
    text.lines()
        .filter_map(|line| {
            let line = line.strip_prefix("pub ").unwrap_or(line);
            line.strip_prefix("mod ")?.strip_suffix(';')
        })
        .enumerate()
        .map(|(index, name)| (name.to_owned(), index))
        .collect()
}

/// The names right behind each `crate::` in code, leaving out comments.
fn used(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    code.split("crate::")
        .skip(1)
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}

#[test]
fn a_module_uses_only_those_listed_above_it() {
    let layers = layers();
    assert!(layers.len() > 10, "lib.rs could not be read: {layers:?}");
    let mut wrong = Vec::new();
    for (path, text) in sources(&root().join("src")) {
        let module = module_of(&path);
        let Some(own) = layers.get(&module) else {
            // Crates of their own, which no module can use.
            let known = ["lib", "main", LESSON].contains(&&*module);
            assert!(known, "lib.rs does not list {module}");
            continue;
        };
        assert!(!text.contains("super::super::"), "{}", path.display());
        for name in used(&text) {
            match layers.get(&name) {
                Some(other) if other <= own => {}
                _ => wrong.push(format!("{} uses {name}", path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether code, leaving out comments, begins a path with this crate.
fn begins_paths_with(text: &str, foreign: &str) -> bool {
    let path = format!("{foreign}::");
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .any(|line| {
            line.match_indices(&path).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            })
        })
}

#[test]
fn a_foreign_crate_has_one_room() {
    let rooms = [
        ("redis", "backplane"),
        ("tungstenite", "websocket"),
        ("httparse", "http"),
        ("icu_normalizer", "message"),
        ("icu_properties", "message"),
        ("clap", "cli"),
        ("simplelog", "cli"),
        ("ctrlc", "cli"),
        ("rustix", "cli"),
        ("unicode_width", "cli"),
        ("hmac", "token"),
        ("sha2", "token"),
    ];
    let mut sources = sources(&root().join("src"));
    // It stands on its own six, and has its own test.
    sources.retain(|(path, _)| module_of(path) != LESSON);
    for (foreign, room) in rooms {
        let mut users: Vec<_> = sources
            .iter()
            .filter(|(_, text)| begins_paths_with(text, foreign))
            .map(|(path, _)| module_of(path))
            .collect();
        users.dedup();
        assert_eq!(users, [room], "{foreign}");
    }
    // The system's own interface has three: signals, the machine's limits, and the meter; and sockets
    // two, where they are made and where they are written to.
    for (foreign, rooms) in [
        ("nix", &["cli", "limits", "bench"][..]),
        ("socket2", &["outbox", "server"]),
    ] {
        let users = sources
            .iter()
            .filter(|(_, text)| begins_paths_with(text, foreign));
        for (path, _) in users {
            assert!(rooms.contains(&&*module_of(path)), "{}", path.display());
        }
    }
}

/// The code above a file's unit tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests")
        .next()
        .expect("the first part")
}

/// A connection's thread ends with its connection; the client's and the commands' threads are not
/// the server's. All others are vital.
#[test]
fn a_thread_of_the_server_that_cannot_be_replaced_is_spawned_as_a_vital_one() {
    let others = ["vital", "connection", "client", "bench", "cli", "lesson"];
    let mut vital = Vec::new();
    for (path, text) in sources(&root().join("src")) {
        let module = module_of(&path);
        if others.contains(&&*module) || path.ends_with("tests.rs") {
            continue;
        }
        let code = product(&text);
        for way in ["thread::spawn", "Builder", "thread::scope"] {
            assert!(!code.contains(way), "{} uses {way}", path.display());
        }
        let spawned = code.split("vital::spawn(\"").skip(1);
        vital.extend(spawned.filter_map(|rest| Some(rest.split('"').next()?.to_owned())));
    }
    vital.sort();
    assert_eq!(
        vital,
        ["acceptor", "backplane", "keeper", "publisher", "subscriber"]
    );
}

/// The crates that `Cargo.toml` names in its sections of this kind, as code spells them.
fn dependencies(section: &str) -> Vec<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let lines = manifest.lines().skip_while(|line| *line != section);
    lines
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.replace('-', "_"))
        .collect()
}

#[test]
fn the_lesson_is_short_and_stands_on_the_given_crates_alone() {
    const GIVEN: [&str; 6] = [
        "tungstenite",
        "redis",
        "crossbeam_channel",
        "log",
        "simplelog",
        "ctrlc",
    ];
    let lesson = fs::read_to_string(root().join("src/lesson.rs")).expect("the lesson");
    let lines = lesson.lines().count();
    assert!(lines <= 200, "{lines} lines");
    for given in GIVEN {
        assert!(begins_paths_with(&lesson, given), "{given}");
    }
    let mut others = dependencies("[dependencies]");
    others.append(&mut dependencies("[dev-dependencies]"));
    others.retain(|name| !GIVEN.contains(&&**name));
    assert!(
        others.len() > 10,
        "Cargo.toml could not be read: {others:?}"
    );
    others.push("hubbub".to_owned());
    for other in others {
        assert!(!begins_paths_with(&lesson, &other), "{other}");
    }
}

#[test]
fn the_corners_of_the_lesson_are_numbered_in_order() {
    let lesson = fs::read_to_string(root().join("src/lesson.rs")).expect("the lesson");
    let numbers: Vec<usize> = lesson
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("// Corner "))
        .filter_map(|rest| rest.split_once(": ")?.0.parse().ok())
        .collect();
    assert!(numbers.len() >= 10, "{numbers:?}");
    assert!(numbers.iter().copied().eq(1..=numbers.len()), "{numbers:?}");
}

#[test]
fn the_top_level_holds_what_was_given_and_nothing_else() {
    let given = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "LICENSE",
        "src",
        "tests",
        "scripts",
    ];
    for entry in fs::read_dir(root()).expect("the repository") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_string_lossy();
        // `target` is cargo's, and ignored.
        let known = given.contains(&&*name) || name.starts_with('.') || name == "target";
        assert!(known, "{name} has no place at the top level");
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for folder in ["src", "tests"] {
        for (path, text) in sources(&root().join(folder)) {
            assert!(text.starts_with("//! "), "{} does not", path.display());
        }
    }
}

#[test]
fn what_the_readme_points_to_is_there() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    let links: Vec<_> = readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|link| !link.contains("://"))
        .collect();
    assert!(links.len() > 10, "the links could not be read: {links:?}");
    for link in links {
        assert!(root().join(link).exists(), "{link} is not there");
    }
}
