//! The variables of the environment that begin with `HUBBUB_`. Each option that has one names it.

use std::collections::BTreeSet;

use clap::{Arg, Command};

use crate::protocol::text::shown;

/// The beginning of all variables.
const PREFIX: &str = "HUBBUB_";

/// A variable with so many wrong letters is not taken for a known one.
const WRONG_LETTERS: usize = 3;

/// A sentence for each variable that no option of `all` has. It does not tell the value, which may be a secret. It
/// suggests variables of `own`, the command that runs.
pub(super) fn unknown(all: &Command, own: &Command) -> BTreeSet<String> {
    let (mut known, mut suggested) = (BTreeSet::new(), BTreeSet::new());
    collect(all, &mut known);
    collect(own, &mut suggested);
    let set = std::env::vars_os();
    let set = set.map(|(name, value)| (name.to_string_lossy().into_owned(), value));
    let unknown = set.filter(|(name, value)| {
        let is_link = is_service_link(name, &value.to_string_lossy());
        name.starts_with(PREFIX) && !known.contains(name) && !is_link
    });
    unknown
        .map(|(name, _)| sentence(&name, &suggested))
        .collect()
}

/// Takes each empty variable for one that is not set, as `${REDIS:-}` in a compose file leaves it.
pub(super) fn without_empty(command: Command) -> Command {
    let forget = |arg: Arg| match arg.get_env().and_then(std::env::var_os) {
        Some(value) if value.is_empty() => arg.env(None::<&'static str>),
        Some(_) | None => arg,
    };
    command.mut_args(forget).mut_subcommands(without_empty)
}

fn collect(command: &Command, known: &mut BTreeSet<String>) {
    let variables = command
        .get_arguments()
        .filter_map(|argument| argument.get_env());
    known.extend(variables.map(|name| name.to_string_lossy().into_owned()));
    for subcommand in command.get_subcommands() {
        collect(subcommand, known);
    }
}

/// Whether Kubernetes sets this variable: it does so in every container beside a service that is called hubbub.
fn is_service_link(name: &str, value: &str) -> bool {
    let parts = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"];
    parts.iter().any(|part| name.contains(part)) || value.starts_with("tcp://")
}

fn sentence(name: &str, known: &BTreeSet<String>) -> String {
    let distances = known
        .iter()
        .map(|one| (strsim::damerau_levenshtein(name, one), one));
    let name = shown(name);
    match distances.min() {
        Some((distance, nearest)) if is_near(distance, &name) => {
            format!("hubbub does not know the variable {name}; did you mean {nearest}?")
        }
        _ => format!("hubbub does not know the variable {name}"),
    }
}

/// Short names are all alike, so a third of the letters has to be wrong at most.
fn is_near(distance: usize, name: &str) -> bool {
    let letters = name.trim_start_matches(PREFIX).chars().count();
    distance < WRONG_LETTERS && 3 * distance <= letters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_name_is_told_if_one_is_near() {
        let known: BTreeSet<String> = ["HUBBUB_REDIS", "HUBBUB_ROOM"].map(str::to_owned).into();
        let told = |name| sentence(name, &known);
        assert!(told("HUBBUB_REDSI").ends_with("HUBBUB_REDSI; did you mean HUBBUB_REDIS?"));
        assert!(told("HUBBUB_COLOUR").ends_with("variable HUBBUB_COLOUR"));
        assert!(told("HUBBUB_FOO").ends_with("variable HUBBUB_FOO"));
        assert!(told("HUBBUB_ROMO").ends_with("did you mean HUBBUB_ROOM?"));
        assert!(told("HUBBUB_\u{1b}[2J").contains("HUBBUB_\u{fffd}[2J"));
    }

    #[test]
    fn the_links_to_a_service_of_kubernetes_are_no_mistakes() {
        for (name, value) in [
            ("HUBBUB_SERVICE_HOST", "10.0.0.1"),
            ("HUBBUB_SERVICE_PORT_HTTP", "8080"),
            ("HUBBUB_PORT", "tcp://10.0.0.1:8080"),
            ("HUBBUB_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ] {
            assert!(is_service_link(name, value), "{name}");
        }
        assert!(!is_service_link("HUBBUB_PORT", "8080"));
    }
}
