//! The nouns: users, rooms, messages and their ids.
//!
//! A [`UserName`] or [`RoomName`] is valid because it exists: parsing checks it. The backplane's log
//! gives each message its [`MessageId`]: the ids of one room grow, and their order is the room's order.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointSetData};
use serde::{Deserialize, Serialize};

/// The longest name, in characters.
pub const MAX_NAME_CHARS: usize = 64;

/// Why a user or room name was refused. The user has to choose another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// The name has no characters.
    Empty,
    /// More than [`MAX_NAME_CHARS`] characters.
    TooLong,
    /// A slash: names are path segments.
    Slash,
    /// A control character, a line or paragraph separator, or one that turns the direction of text.
    Control,
    /// White space other than single ordinary spaces inside: readers could not tell how much, or which.
    Space,
    /// A character that is drawn as nothing.
    Invisible,
    /// A combining mark at the beginning: it would change the character before the name.
    Mark,
    /// Not in Unicode normalization form C: two names would look the same.
    NotNormal,
    /// The beginning of a notice or an error in the text encoding.
    Notice,
    /// The end of a name in a line of the text encoding.
    Separator,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it must not be empty"),
            Self::TooLong => write!(f, "it must not be longer than {MAX_NAME_CHARS} characters"),
            Self::Slash => f.write_str("it must not contain a slash"),
            Self::Control => f.write_str("it must not contain control characters"),
            Self::Space => {
                f.write_str("it must not contain white space other than single spaces inside it")
            }
            Self::Invisible => {
                f.write_str("it must not contain invisible characters, as some emoji do")
            }
            Self::Mark => f.write_str("it must not begin with a combining mark"),
            Self::NotNormal => f.write_str("it must be in Unicode normalization form C"),
            Self::Notice => f.write_str(
                "it must not begin with an asterisk or an exclamation mark before a space",
            ),
            Self::Separator => {
                f.write_str("it must not contain a colon or a comma before a space or at its end")
            }
        }
    }
}

impl std::error::Error for NameError {}

fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.chars().count() > MAX_NAME_CHARS {
        return Err(NameError::TooLong);
    }
    if name.contains('/') {
        return Err(NameError::Slash);
    }
    if name.chars().any(disturbs_a_line) {
        return Err(NameError::Control);
    }
    let strange_space = |c: char| c.is_whitespace() && c != ' ';
    if name.trim() != name || name.contains("  ") || name.contains(strange_space) {
        return Err(NameError::Space);
    }
    if name.chars().any(is_invisible) {
        return Err(NameError::Invisible);
    }
    if name.starts_with(is_mark) {
        return Err(NameError::Mark);
    }
    if !ComposingNormalizerBorrowed::new_nfc().is_normalized(name) {
        return Err(NameError::NotNormal);
    }
    // The text encoding writes `NAME: text`, `* NAME joined` and `* online: NAME, NAME`, and a reader
    // takes a name to end at the first `: ` or `, `. A name that holds neither ends there and nowhere
    // else: `bob:` gives `bob:: text`, which does not begin with `bob: `. Yet `online:` would give
    // `* online: joined`, and `bob,` is no better before another name; so neither stands at the end.
    if name.starts_with("* ") || name.starts_with("! ") {
        return Err(NameError::Notice);
    }
    if [": ", ", "].iter().any(|one| name.contains(one)) || name.ends_with([':', ',']) {
        return Err(NameError::Separator);
    }
    Ok(())
}

/// Whether the character is drawn as nothing. Joiners and variation selectors are among these
/// characters, so a name cannot have an emoji that is made with one.
fn is_invisible(c: char) -> bool {
    // Unicode does not list some characters as ignorable although they are drawn as nothing: a Braille
    // cell without dots, the anchors of annotations, and a note without a head.
    matches!(c, '\u{2800}' | '\u{fff9}'..='\u{fffb}' | '\u{1d159}')
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

fn is_mark(c: char) -> bool {
    GeneralCategoryGroup::Mark.contains(CodePointMapData::<GeneralCategory>::new().get(c))
}

/// Whether the character changes how the rest of a line is shown: control characters, line separators,
/// and the marks that override or isolate the direction of text.
pub(crate) fn disturbs_a_line(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as the user gave it; case is not folded.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                check_name(name)?;
                Ok(Self(name.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                name.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    };
}

name! {
    /// A user's name: 1 to 64 visible characters in normalization form C, without slashes, and without
    /// anything that reads as the end of a name in a line. [`NameError`] has every rule.
    UserName
}

name! {
    /// A room's name. The rules are the same as for a [`UserName`].
    RoomName
}

/// The room of a client that names none.
pub const DEFAULT_ROOM: &str = "lobby";

impl RoomName {
    /// [`DEFAULT_ROOM`].
    pub fn lobby() -> Self {
        Self(DEFAULT_ROOM.into())
    }
}

/// A message's place in its room's log: the millisecond in which the log stored it, and its number
/// within that millisecond. Written `1700000000000-0`, as
/// [Redis stream ids](https://redis.io/docs/latest/develop/data-types/streams/#entry-ids) are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageId {
    /// Milliseconds since the Unix epoch.
    pub millis: u64,
    /// Counts up within one millisecond.
    pub number: u64,
}

impl MessageId {
    /// Smaller than the id of any message.
    pub const ZERO: Self = Self {
        millis: 0,
        number: 0,
    };

    /// At least as great as the id of any message.
    pub const GREATEST: Self = Self {
        millis: u64::MAX,
        number: u64::MAX,
    };

    /// The smallest id above this one; `None` above the greatest.
    pub fn next(self) -> Option<Self> {
        match self.number.checked_add(1) {
            Some(number) => Some(Self { number, ..self }),
            None => Some(Self {
                millis: self.millis.checked_add(1)?,
                number: 0,
            }),
        }
    }

    /// The greatest id below this one; `None` below [`MessageId::ZERO`].
    pub fn previous(self) -> Option<Self> {
        match self.number.checked_sub(1) {
            Some(number) => Some(Self { number, ..self }),
            None => Some(Self {
                millis: self.millis.checked_sub(1)?,
                number: u64::MAX,
            }),
        }
    }
}

/// Text that is not a [`MessageId`]. The sender has to correct it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidId;

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message id is two numbers with a dash between them, as in 1700000000000-0")
    }
}

impl std::error::Error for InvalidId {}

impl FromStr for MessageId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let number = |digits: &str| {
            // `u64::from_str` would also take a plus sign.
            if digits.bytes().all(|b| b.is_ascii_digit()) {
                digits.parse().map_err(|_| InvalidId)
            } else {
                Err(InvalidId)
            }
        };
        let (millis, rest) = text.split_once('-').ok_or(InvalidId)?;
        Ok(Self {
            millis: number(millis)?,
            number: number(rest)?,
        })
    }
}

impl TryFrom<String> for MessageId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<MessageId> for String {
    fn from(id: MessageId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}

/// A message, as its readers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its place in the room's order.
    pub id: MessageId,
    /// The author.
    pub from: UserName,
    /// The text, as the author sent it.
    pub text: String,
    /// The time at which the log stored it, in milliseconds since the Unix epoch.
    pub at: u64,
}

/// Names one connection of one instance. A connection recognises its own messages by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Via {
    /// The instance; a random number from its start.
    pub instance: InstanceId,
    /// The connection; a number that counts up within the instance.
    pub connection: ConnectionId,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.instance, self.connection)
    }
}

impl Via {
    /// Reads the format of `Display`; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (instance, connection) = text.split_once('.')?;
        Some(Self {
            instance: InstanceId(u64::from_str_radix(instance, 16).ok()?),
            connection: ConnectionId(connection.parse().ok()?),
        })
    }
}

/// Names an instance among those that share a Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId(u64);

impl InstanceId {
    /// A new id, drawn at random.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Names a connection within its instance. An id is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A message, with what only the log and the hub need to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The message.
    pub message: Message,
    /// The id of the entry before it in the room's log; `None` for the first. This is the chain that
    /// shows a gap.
    pub prev: Option<MessageId>,
    /// The connection that sent it.
    pub via: Option<Via>,
}

/// An event in a room that the log does not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A user joined or left.
    Presence(PresenceChange),
    /// A user is typing.
    Typing(UserName),
}

/// A user joined a room or left it, with all of their connections on all instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceChange {
    /// The user.
    pub user: UserName,
    /// Whether the user is present from now on.
    pub joined: bool,
    /// The place of this change among all changes of the room.
    pub revision: Revision,
}

/// The place of a change in a room's presence. Revisions grow, so a list of members and a change that
/// arrives beside it can be compared: the list shows the change if its revision is not smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision {
    /// When the shared state began to count, in microseconds since the Unix epoch. It begins anew if
    /// Redis lost its data.
    pub began: u64,
    /// The number of the change since then.
    pub number: u64,
}

impl Revision {
    /// Before every change.
    pub const ZERO: Self = Self {
        began: 0,
        number: 0,
    };

    /// The revision of the next change.
    pub const fn next(self) -> Self {
        Self {
            began: self.began,
            number: self.number + 1,
        }
    }

    /// Reads two numbers with a dash between them; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (began, number) = text.split_once('-')?;
        Some(Self {
            began: began.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

/// The users that are present in a room, on all instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberList {
    /// Their names, in alphabetical order.
    pub users: Arc<[UserName]>,
    /// The last change that the list shows.
    pub revision: Revision,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_to_sixty_four_visible_characters_without_slash() {
        for good in [
            "a",
            "Zoë",
            "名前",
            "a b",
            "{x}:%",
            "a:b,c",
            "..",
            "*",
            "!x",
            "\u{1f600}",
            "\u{1f44d}\u{1f3fd}",
            "नमस्ते",
            &"é".repeat(64),
        ] {
            assert!(good.parse::<UserName>().is_ok(), "{good:?}");
        }
        for (bad, why) in [
            ("", NameError::Empty),
            (&*"é".repeat(65), NameError::TooLong),
            ("a/b", NameError::Slash),
            ("a\nb", NameError::Control),
            ("a\u{7f}", NameError::Control),
            ("a\u{85}b", NameError::Control),
            ("a\u{202e}b", NameError::Control),
            (" a", NameError::Space),
            ("a\u{3000}", NameError::Space),
            ("a  b", NameError::Space),
            ("a\u{a0}b", NameError::Space),
            ("\u{301}", NameError::Mark),
            ("\u{301}bob", NameError::Mark),
            ("\u{903}", NameError::Mark),
            ("Zoe\u{308}", NameError::NotNormal),
            ("\u{212b}", NameError::NotNormal), // the ångström sign
            ("* online", NameError::Notice),
            ("! not sent", NameError::Notice),
            ("bob: I resign", NameError::Separator),
            ("online:", NameError::Separator),
            ("alice, bob", NameError::Separator),
            ("alice,", NameError::Separator),
        ] {
            assert_eq!(bad.parse::<RoomName>(), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn a_name_with_an_invisible_character_is_refused() {
        for invisible in [
            '\u{ad}',    // soft hyphen
            '\u{34f}',   // combining grapheme joiner
            '\u{61c}',   // Arabic letter mark
            '\u{115f}',  // Hangul fillers
            '\u{3164}',  //
            '\u{ffa0}',  //
            '\u{17b4}',  // Khmer inherent vowel
            '\u{180b}',  // Mongolian variation selector
            '\u{200b}',  // zero width space
            '\u{200d}',  // zero width joiner
            '\u{200e}',  // left-to-right mark
            '\u{2060}',  // word joiner
            '\u{2065}',  // reserved for another
            '\u{2800}',  // Braille blank
            '\u{fe0f}',  // variation selector
            '\u{feff}',  // byte order mark
            '\u{fffa}',  // annotation separator
            '\u{1d159}', // note without a head
            '\u{1d173}', // begin of a beam
            '\u{e0041}', // tag
            '\u{e0100}', // variation selector
        ] {
            for name in [format!("{invisible}"), format!("bob{invisible}")] {
                let found = name.parse::<UserName>();
                assert_eq!(found, Err(NameError::Invisible), "{name:?}");
            }
        }
    }

    #[test]
    fn ids_are_ordered_by_time_then_number_and_survive_being_written() {
        let id: MessageId = "1700000000000-12".parse().expect("an id");
        assert_eq!(id.to_string(), "1700000000000-12");
        assert!(id > "1700000000000-9".parse().expect("an id"));
        assert!(id > MessageId::ZERO);
        assert_eq!(id.next().and_then(MessageId::previous), Some(id));
        assert_eq!(MessageId::ZERO.previous(), None);
        for bad in [
            "",
            "1",
            "1-",
            "-1",
            "1-2-3",
            "+1-2",
            "a-b",
            "99999999999999999999-0",
        ] {
            assert_eq!(bad.parse::<MessageId>(), Err(InvalidId), "{bad:?}");
        }
    }

    #[test]
    fn a_via_survives_being_written() {
        let via = Via {
            instance: InstanceId::random(),
            connection: ConnectionId(17),
        };
        assert_eq!(Via::parse(&via.to_string()), Some(via));
        assert_eq!(Via::parse("elsewhere"), None);
    }
}
