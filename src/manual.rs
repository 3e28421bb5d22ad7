//! Writes the manual pages and the completions of bash, zsh and fish into a folder, as a Cargo example:
//! `cargo run --example manual -- FOLDER`. `scripts/release.sh` packs them.

use std::path::PathBuf;
use std::{env, fs, io};

use clap_complete::Shell;

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("usage: manual FOLDER"))?;
    fs::create_dir_all(&folder)?;
    let mut command = hubbub::cli::command();
    clap_mangen::generate_to(command.clone(), &folder)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "hubbub", &folder)?;
    }
    Ok(())
}
