//! The lines that were typed here and not heard back yet. The terminal shows them already, so that what
//! comes back is not shown again.

use std::collections::VecDeque;

use crate::message::{Message, MessageId};
use crate::protocol::Ref;

/// The lines of one room, in the order in which they were typed.
#[derive(Default)]
pub(super) struct Echoes(VecDeque<Echo>);

struct Echo {
    reference: Ref,
    text: String,
    /// Once the line is stored.
    id: Option<MessageId>,
}

impl Echoes {
    /// A line was typed.
    pub(super) fn expect(&mut self, reference: Ref, text: String) {
        self.0.push_back(Echo {
            reference,
            text,
            id: None,
        });
    }

    /// The line is stored; if it was not heard yet, it will be under this id.
    pub(super) fn stored(&mut self, reference: &Ref, id: MessageId) {
        let echo = self.0.iter_mut().find(|echo| echo.reference == *reference);
        if let Some(echo) = echo {
            echo.id = Some(id);
        }
    }

    /// The line was refused: it will not be heard.
    pub(super) fn refused(&mut self, reference: &Ref) {
        self.0.retain(|echo| echo.reference != *reference);
    }

    /// The room was left.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes note of a message that was heard in the room, and whether the user who types here said
    /// it. True if it is a line that was typed here, once for each.
    pub(super) fn take(&mut self, message: &Message, is_mine: bool) -> bool {
        // A message comes before those with higher ids, or in a gap and never.
        self.0
            .retain(|echo| echo.id.is_none_or(|id| id >= message.id));
        // A message may overtake the answer that tells its id.
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
    fn what_another_user_says_is_theirs() {
        let (mut echoes, _) = expected("hello");
        assert!(!echoes.take(&message(1, "hello"), false));
        assert!(echoes.take(&message(2, "hello"), true));
    }

    #[test]
    fn a_line_that_will_not_come_back_hides_nothing_and_is_not_kept() {
        let (mut echoes, mine) = expected("hello");
        echoes.refused(&mine);
        assert!(!echoes.take(&message(1, "hello"), true));
        let (mut echoes, mine) = expected("hello");
        echoes.stored(&mine, id(1));
        // It was lost in a gap.
        assert!(!echoes.take(&message(2, "hello"), true));
        assert!(echoes.0.is_empty());
    }
}
