//! News: what the shards of a cluster tell the thread that keeps its map.

use crossbeam_channel::Sender;

use super::chain::Heard;
use super::pipeline::PendingCommand;

/// One piece of news.
pub(super) enum ClusterNews {
    /// The map may be old. The node of this name knows more, if there is one.
    Stale(Option<String>),
    /// This slot is on the node at this `host:port` now, so the command did nothing where it was sent.
    Moved {
        slot: u16,
        to: String,
        command: PendingCommand,
    },
    /// These rooms have to be heard on another node than the one of this name.
    Unassigned { from: String, rooms: Vec<Heard> },
    /// The backplane ends.
    Stop,
}

/// The way to that thread. Outside of a cluster there is none, and no news either.
#[derive(Clone)]
pub(super) struct NewsSender(pub(super) Option<Sender<ClusterNews>>);

impl NewsSender {
    /// The map may be old, and the node of this name knows more.
    pub(super) fn stale(&self, node: Option<&str>) {
        self.tell(ClusterNews::Stale(node.map(str::to_owned)));
    }

    /// Gives rooms away that are not on the node of this name any more.
    pub(super) fn unassigned(&self, from: &str, rooms: Vec<Heard>) {
        if !rooms.is_empty() {
            let from = from.to_owned();
            self.tell(ClusterNews::Unassigned { from, rooms });
        }
    }

    /// Gives a command away whose slot moved. Returns it if nobody takes it.
    pub(super) fn moved(
        &self,
        slot: u16,
        to: String,
        command: PendingCommand,
    ) -> Option<PendingCommand> {
        let Some(news) = &self.0 else {
            return Some(command);
        };
        let moved = ClusterNews::Moved { slot, to, command };
        match news
            .send(moved)
            .map_err(crossbeam_channel::SendError::into_inner)
        {
            Err(ClusterNews::Moved { command, .. }) => Some(command),
            _ => None,
        }
    }

    fn tell(&self, one: ClusterNews) {
        if let Some(news) = &self.0 {
            // The thread ends with the backplane.
            let _ = news.send(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use redis::cmd;

    use super::*;

    #[test]
    fn a_command_that_nobody_takes_comes_back() {
        let moved = |news: &NewsSender| {
            let command = PendingCommand::new(&cmd("PING"), Instant::now(), Box::new(|_| {}));
            news.moved(1, "127.0.0.1:1".to_owned(), command).is_some()
        };
        assert!(moved(&NewsSender(None)), "there is no cluster");
        let (news, told) = crossbeam_channel::unbounded();
        let news = NewsSender(Some(news));
        assert!(!moved(&news));
        assert!(matches!(
            told.recv(),
            Ok(ClusterNews::Moved { slot: 1, .. })
        ));
        drop(told);
        assert!(moved(&news), "the thread has ended");
    }
}
