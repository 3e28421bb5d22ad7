//! The house keeps its order.

use std::fs;
use std::path::{Path, PathBuf};

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

/// Where a file stands below `src`, such as `server/http/head.rs`.
fn place(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).expect("under src");
    inside.to_string_lossy().into_owned()
}

/// The lesson is a crate of its own, on its own six crates, and has its own tests.
const LESSON: &str = "lesson.rs";

/// A door: a folder of modules, and their order in its `lib.rs`, `mod.rs` or `main.rs`.
struct Door {
    folder: PathBuf,
    /// Its path in code, such as `crate::server`.
    path: String,
    modules: Vec<String>,
}

impl Door {
    fn of(map: &Path, text: &str) -> Self {
        let folder = map.parent().expect("a folder").to_owned();
        let inside = folder.strip_prefix(root().join("src")).expect("under src");
        let names = inside
            .components()
            .map(|name| name.as_os_str().to_string_lossy());
        let path: String = names.map(|name| format!("::{name}")).collect();
        let modules = product(text).lines().filter_map(|line| {
            let line = line.strip_prefix("pub").unwrap_or(line);
            let line = line.trim_start_matches("(super)").trim_start();
            line.strip_prefix("mod ")?.strip_suffix(';')
        });
        // The meter is a crate of its own.
        let path = if map.ends_with("main.rs") {
            String::new()
        } else {
            path
        };
        Self {
            folder,
            path: format!("crate{path}"),
            modules: modules.map(str::to_owned).collect(),
        }
    }

    /// The module of this door that a file belongs to, and whether `super` there is the door.
    fn module_of(&self, path: &Path) -> Option<(usize, bool)> {
        let inside = path.strip_prefix(&self.folder).ok()?;
        let mut names = inside
            .components()
            .map(|name| name.as_os_str().to_string_lossy());
        let first = names.next()?;
        let rest: Vec<_> = names.collect();
        let name = first.strip_suffix(".rs").unwrap_or(&first);
        let at = self.modules.iter().position(|module| module == name)?;
        Some((at, rest.is_empty() || rest == ["mod.rs"]))
    }
}

/// Code without comments and unit tests, in one line.
fn code(text: &str) -> String {
    let lines = product(text).lines().map(str::trim);
    let lines: Vec<_> = lines.filter(|line| !line.starts_with("//")).collect();
    lines.join(" ")
}

/// The names right behind each `path::` in code, also those in braces.
fn used(code: &str, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in code.split(&format!("{path}::")).skip(1) {
        let list = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default(),
            None => rest,
        };
        for one in list.split(',') {
            let one = one.trim_start();
            let end = one.find(|c: char| !c.is_alphanumeric() && c != '_');
            found.push(one[..end.unwrap_or(one.len())].to_owned());
            if !rest.starts_with('{') {
                break;
            }
        }
    }
    found
}

#[test]
fn a_module_uses_only_those_listed_above_it_in_the_house_and_behind_each_door() {
    let sources = sources(&root().join("src"));
    let maps = ["lib.rs", "mod.rs", "bench/main.rs"];
    let doors: Vec<_> = sources
        .iter()
        .filter(|(path, _)| maps.iter().any(|map| path.ends_with(map)))
        .map(|(path, text)| Door::of(path, text))
        .collect();
    assert!(doors.len() > 8, "the maps could not be read");
    let mut wrong = Vec::new();
    for door in &doors {
        for (path, text) in &sources {
            let Some((own, is_direct)) = door.module_of(path) else {
                continue;
            };
            assert!(!text.contains("super::super::"), "{}", path.display());
            let code = code(text);
            let mut names = used(&code, &door.path);
            if is_direct {
                names.extend(used(&code, "super"));
            }
            for name in names {
                let other = door.modules.iter().position(|module| *module == name);
                if other.is_some_and(|other| other > own) {
                    wrong.push(format!("{} uses {name}", path.display()));
                }
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
        ("redis", &["backplane/"][..]),
        ("redb", &["backplane/local/store.rs"]),
        ("rustls", &["stream/tls.rs"]),
        ("rustls_native_certs", &["stream/tls.rs"]),
        ("tungstenite", &["websocket/", "bench/"]),
        ("httparse", &["server/http/", "stream/response_head.rs"]),
        ("icu_normalizer", &["message.rs"]),
        ("icu_properties", &["message.rs"]),
        ("unicode_security", &["lookalikes.rs"]),
        ("clap", &["cli/", "bench/"]),
        ("simplelog", &["cli/"]),
        ("time", &["cli/"]),
        ("ctrlc", &["cli/"]),
        ("rustix", &["cli/", "server/http/proxy_header.rs"]),
        ("unicode_width", &["cli/"]),
        ("strsim", &["cli/environment.rs"]),
        ("ring", &["server/token/", "server/webhook.rs"]),
        // The system's own interface: signals, the machine's limits, and the meter.
        (
            "nix",
            &["cli/", "server/capacity.rs", "process.rs", "bench/"],
        ),
        // Sockets are made in one place, and written to in another.
        ("socket2", &["hub/outbox/", "server/"]),
    ];
    let sources = sources(&root().join("src"));
    for (foreign, rooms) in rooms {
        let places = sources
            .iter()
            .filter(|(_, text)| begins_paths_with(text, foreign))
            .map(|(path, _)| place(path));
        let places: Vec<_> = places.filter(|place| place != LESSON).collect();
        for room in rooms {
            let used = places.iter().any(|place| place.starts_with(room));
            assert!(used, "{foreign} is not used in {room}");
        }
        for place in &places {
            let known = rooms.iter().any(|room| place.starts_with(room));
            assert!(known, "{place} uses {foreign}");
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
    let others = [
        "threads.rs",
        "server/connection/",
        "client/",
        "bench/",
        "cli/",
        LESSON,
    ];
    let mut vital = Vec::new();
    for (path, text) in sources(&root().join("src")) {
        let place = place(&path);
        let is_other = others.iter().any(|other| place.starts_with(other));
        if is_other || path.ends_with("tests.rs") {
            continue;
        }
        let code = product(&text);
        for way in [
            "thread::spawn",
            " Builder",
            "thread::Builder",
            "thread::scope",
        ] {
            assert!(!code.contains(way), "{} uses {way}", path.display());
        }
        let spawned = code.split("spawn_vital(\"").skip(1);
        vital.extend(spawned.filter_map(|rest| Some(rest.split('"').next()?.to_owned())));
    }
    vital.sort();
    assert_eq!(
        vital,
        [
            "acceptor",
            "backplane",
            "disk",
            "keeper",
            "moderator",
            "publisher",
            "receipts",
            "sentinel",
            "subscriber",
            "topology"
        ]
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
    // A part of `std` has this name as well.
    others.retain(|name| name != "time");
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
    let headings = readme.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        heading
            .trim_matches(['#', ' '])
            .to_lowercase()
            .replace(' ', "-")
    };
    let anchors: Vec<_> = headings.map(anchor).collect();
    for link in links {
        let there = match link.strip_prefix('#') {
            Some(heading) => anchors.iter().any(|anchor| anchor == heading),
            None => root().join(link).exists(),
        };
        assert!(there, "{link} is not there");
    }
}

#[test]
fn the_newest_entry_of_the_changelog_is_this_version() {
    let changelog = root().join("scripts/release/CHANGELOG.md");
    let changelog = fs::read_to_string(changelog).expect("the changelog");
    let newest = changelog.lines().find_map(|line| line.strip_prefix("## "));
    assert_eq!(newest, Some(env!("CARGO_PKG_VERSION")));
}
