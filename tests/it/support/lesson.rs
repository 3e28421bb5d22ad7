//! The binary of the lesson, an example of this package.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where it is, up to date.
///
/// Cargo names no example to a test, and `cargo test --test it` does not build one: what is there may be
/// missing or old. So the first test that needs the lesson has cargo build it, into the folder of the
/// tests' own binaries and with their features; with nothing to do, that takes a moment.
pub(crate) fn binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_BIN_EXE_hubbub"))
            .parent()
            .expect("it is in a folder");
        let target = folder.parent().expect("a profile's folder is in another");
        // The one profile whose folder has another name.
        let profile = match folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let status = Command::new(env!("CARGO"))
            .args(["build", "--locked", "--quiet", "--example", "lesson"])
            .args(cfg!(feature = "tls").then_some("--features=tls"))
            .args(["--profile", profile, "--target-dir"])
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo can be started");
        assert!(status.success(), "the lesson cannot be built: {status}");
        folder.join("examples/lesson")
    })
}
