//! The lines sent from this screen that the server has not sent back yet. The terminal shows them already,
//! so their messages are not printed again.

use std::collections::VecDeque;

use crate::message::{Message, MessageId};
use crate::protocol::Ref;

/// The lines of one room, in the order in which the user typed them.
#[derive(Default)]
pub(super) struct Echoes(VecDeque<Echo>);

struct Echo {
    reference: Ref,
    text: String,
    /// Set once the server has stored the line.
    id: Option<MessageId>,
}

impl Echoes {
    /// A line is sent.
    pub(super) fn expect(&mut self, reference: Ref, text: String) {
        self.0.push_back(Echo {
            reference,
            text,
            id: None,
        });
    }

    /// The line is stored. Unless its message came before this answer, it comes with this id.
    pub(super) fn stored(&mut self, reference: &Ref, id: MessageId) {
        let echo = self.0.iter_mut().find(|echo| echo.reference == *reference);
        if let Some(echo) = echo {
            echo.id = Some(id);
        }
    }

    /// The line is refused: it has no message.
    pub(super) fn refused(&mut self, reference: &Ref) {
        self.0.retain(|echo| echo.reference != *reference);
    }

    /// The user has left the room.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether this message is one of the lines; each line matches once. `is_mine`: whether the message
    /// is from the user of this screen.
    pub(super) fn take(&mut self, message: &Message, is_mine: bool) -> bool {
        // Ids grow. A line with a lower id than this message is lost in a gap.
        self.0
            .retain(|echo| echo.id.is_none_or(|id| id >= message.id));
        // A message may arrive before the answer with its id.
        let is_it = |echo: &Echo| match echo.id {
            Some(id) => id == message.id,
            None => echo.text == message.text,
        };
        let index = self.0.iter().position(is_it).filter(|_| is_mine);
        index.and_then(|index| self.0.remove(index)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u64, text: &str) -> Message {
        Message {
            id: id(number),
            from: "alice".parse().expect("a name"),
            text: text.to_owned(),
            at: 0,
        }
    }

    fn id(number: u64) -> MessageId {
        MessageId { millis: 1, number }
    }

    fn expected(text: &str) -> (Echoes, Ref) {
        let mut echoes = Echoes::default();
        let reference = Ref::random();
        echoes.expect(reference.clone(), text.to_owned());
        (echoes, reference)
    }

    #[test]
    fn a_line_comes_back_once_before_its_answer_or_after_it() {
        let (mut echoes, mine) = expected("hello");
        assert!(echoes.take(&message(1, "hello"), true));
        echoes.stored(&mine, id(1));
        assert!(!echoes.take(&message(2, "hello"), true));
        let (mut echoes, mine) = expected("hello");
        echoes.stored(&mine, id(2));
        assert!(!echoes.take(&message(1, "hello"), true), "said elsewhere");
        assert!(echoes.take(&message(2, "hello"), true));
    }

    #[test]
    fn a_message_of_another_user_is_no_echo() {
        let (mut echoes, _) = expected("hello");
        assert!(!echoes.take(&message(1, "hello"), false));
        assert!(echoes.take(&message(2, "hello"), true));
    }

    #[test]
    fn a_line_without_a_message_hides_no_other_and_is_not_kept() {
        let (mut echoes, mine) = expected("hello");
        echoes.refused(&mine);
        assert!(!echoes.take(&message(1, "hello"), true));
        let (mut echoes, mine) = expected("hello");
        echoes.stored(&mine, id(1));
        // The line with id 1 was lost in a gap.
        assert!(!echoes.take(&message(2, "hello"), true));
        assert!(echoes.0.is_empty());
    }
}
