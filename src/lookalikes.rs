//! Names that look alike: `alice`, `Alice`, `a1ice`, and `аlice` with a Cyrillic letter.
//!
//! Each of two such names may be the older one, or the better known: nobody can tell which is meant to
//! deceive. So none is refused, which would keep its owner out, and both get a sign.

use std::collections::{BTreeSet, HashMap};

use unicode_security::confusable_detection::skeleton;

use crate::message::UserName;

/// A skeleton is cut here. A character may look like 18 others, and names are looked up under a lock.
const MOST_CHARS: usize = 256;

/// The names that are in one place, by how they look.
#[derive(Debug, Clone, Default)]
pub struct Lookalikes {
    /// The names of each skeleton, in alphabetical order.
    by_skeleton: HashMap<String, Vec<UserName>>,
    /// The number of skeletons that several names have.
    shared: usize,
}

impl Lookalikes {
    /// Whether any two names look alike. It costs nothing.
    pub fn any(&self) -> bool {
        self.shared > 0
    }

    /// Adds a name. One that is here already is not added again.
    pub fn add(&mut self, name: &UserName) {
        for skeleton in skeletons(name) {
            // Nearly always there is one.
            let names = self.by_skeleton.entry(skeleton);
            let names = names.or_insert_with(|| Vec::with_capacity(1));
            if let Err(index) = names.binary_search(name) {
                names.insert(index, name.clone());
                self.shared += usize::from(names.len() == 2);
            }
        }
    }

    /// Removes a name, if it is here.
    pub fn remove(&mut self, name: &UserName) {
        for skeleton in skeletons(name) {
            let Some(names) = self.by_skeleton.get_mut(&skeleton) else {
                continue;
            };
            if let Ok(index) = names.binary_search(name) {
                names.remove(index);
                self.shared -= usize::from(names.len() == 1);
            }
            if names.is_empty() {
                self.by_skeleton.remove(&skeleton);
            }
        }
    }

    /// The first other name here that looks like this one, which need not be here itself.
    pub fn of(&self, name: &UserName) -> Option<&UserName> {
        skeletons(name).into_iter().find_map(|skeleton| {
            let names = self.by_skeleton.get(&skeleton)?;
            names.iter().find(|other| *other != name)
        })
    }

    /// Each group of names that look alike, all in alphabetical order.
    pub fn groups(&self) -> Vec<Vec<UserName>> {
        if !self.any() {
            return Vec::new();
        }
        let groups = self.by_skeleton.values().filter(|names| names.len() > 1);
        // A set: most names that share one skeleton share both.
        groups
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }
}

impl<'a> FromIterator<&'a UserName> for Lookalikes {
    fn from_iter<T: IntoIterator<Item = &'a UserName>>(names: T) -> Self {
        let mut all = Self::default();
        names.into_iter().for_each(|name| all.add(name));
        all
    }
}

/// How a name looks: two names look alike if they have one of these in common.
///
/// These are skeletons by [UTS #39 §4](https://www.unicode.org/reports/tr39/#Confusable_Detection), also
/// of the name in capitals. Many letters look like another one only as capitals (Greek `Ν` and `ν`), or
/// only as small letters, so there are two: of the name as it is, and of the name in capitals. As
/// capital letters, `i` and `l` look alike as well, so `ian` and `lan` count as alike.
fn skeletons(name: &UserName) -> BTreeSet<String> {
    let skeleton = |name: &str| skeleton(name).take(MOST_CHARS).collect::<String>();
    let looks = |name: &str| {
        let small = skeleton(&skeleton(name).to_uppercase()).to_lowercase();
        // Nobody sees a second dot.
        small.replace("l\u{307}", "l").replace("j\u{307}", "j")
    };
    [looks(name.as_str()), looks(&name.as_str().to_uppercase())].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> UserName {
        name.parse().expect("a name")
    }

    fn look_alike(one: &str, other: &str) -> bool {
        let all: Lookalikes = [&name(one), &name(other)].into_iter().collect();
        all.any()
    }

    #[test]
    fn names_of_other_case_script_or_letters_that_look_the_same_look_alike() {
        for (one, other) in [
            ("alice", "Alice"),
            ("alice", "ALICE"),
            ("alice", "\u{430}lice"),           // Cyrillic а
            ("alice", "\u{410}LICE"),           // Cyrillic А, in capitals
            ("alice", "a1ice"),                 // the digit
            ("alice", "aIice"),                 // a capital i
            ("alice", "AIice"),                 //
            ("alice", "al\u{456}ce"),           // Ukrainian і
            ("Bob", "\u{412}ob"),               // Cyrillic В
            ("Bob", "B0b"),                     // a zero
            ("bob", "B0B"),                     //
            ("victor", "\u{3bd}ictor"),         // Greek ν
            ("mary", "rnary"),                  // r and n
            ("alice", "\u{1d44e}\u{1d459}ice"), // mathematical italics
            ("paypal", "\u{440}\u{430}ypal"),   // Cyrillic ра
            (
                "\u{412}\u{430}\u{441}\u{44f}",
                "\u{432}\u{430}\u{441}\u{44f}",
            ), // Вася and вася
            ("\u{412}\u{430}\u{441}\u{44f}", "Bac\u{44f}"), // and with Latin letters
            (
                "\u{39d}\u{3af}\u{3ba}\u{3bf}\u{3c2}",
                "\u{3bd}\u{3af}\u{3ba}\u{3bf}\u{3c2}",
            ), // Νίκος
            ("stra\u{df}e", "STRASSE"),
            ("alice", "ali\u{307}ce"), // a dot on the dot
            ("Istanbul", "\u{130}stanbul"),
            ("alice", "\u{ff41}\u{ff4c}\u{ff49}\u{ff43}\u{ff45}"), // wide letters
        ] {
            assert!(look_alike(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("alice", "bob"),
            ("alice", "alices"),
            ("alice", "al\u{ed}ce"), // an accent is to be seen
            ("anna", "\u{430}\u{43d}\u{43d}\u{430}"), // анна
            ("u1", "u2"),
        ] {
            assert!(!look_alike(one, other), "{one} {other}");
        }
        assert!(!look_alike("alice", "alice"), "one name");
    }

    #[test]
    fn a_name_of_characters_that_look_like_many_others_is_cut() {
        let long = name(&"\u{fdfa}".repeat(64));
        let longest = skeletons(&long).iter().map(|one| one.chars().count()).max();
        assert!(longest <= Some(MOST_CHARS), "{longest:?}");
    }

    #[test]
    fn a_name_has_others_like_it_while_they_are_here() {
        let mut all: Lookalikes = [&name("alice"), &name("bob")].into_iter().collect();
        assert_eq!(all.of(&name("alice")), None);
        assert_eq!(
            all.of(&name("Alice")),
            Some(&name("alice")),
            "not here itself"
        );
        all.add(&name("Alice"));
        all.add(&name("Alice"));
        all.add(&name("ALICE"));
        assert_eq!(all.of(&name("alice")), Some(&name("ALICE")));
        assert_eq!(
            all.groups(),
            [[name("ALICE"), name("Alice"), name("alice")]]
        );
        all.remove(&name("alice"));
        all.remove(&name("carol"));
        assert!(all.any());
        all.remove(&name("Alice"));
        assert!(!all.any() && all.groups().is_empty());
        all.remove(&name("ALICE"));
        all.remove(&name("bob"));
        assert!(all.by_skeleton.is_empty(), "{all:?}");
    }
}
