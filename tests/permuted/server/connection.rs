//! The pumps and the thread budget of `src/server/connection`, with a heartbeat that knows no time.

#[path = "../../../src/server/connection/thread_budget.rs"]
mod thread_budget;
#[path = "../../../src/server/connection/pumps.rs"]
mod pumps;

pub use self::pumps::{Pumps, Upgrade};
pub use self::thread_budget::ThreadBudget;

/// Joins the writer that ended last, and with it all that ended before.
pub fn join_writers(threads: &ThreadBudget) {
    threads.join_ended();
}

mod heartbeat {
    //! Reads until the input has ended.
    use std::io::{self, Read};
    use std::sync::Arc;
    use std::time::Duration;

    use crate::hub::outbox::Outbox;
    use crate::server::config::Deadlines;
    use crate::server::grant::Grant;
    use crate::stream::Stream;

    pub(super) struct Heartbeat(Arc<Stream>);

    impl Heartbeat {
        pub(super) fn new(
            stream: Arc<Stream>,
            _: Arc<Outbox>,
            _: Arc<Grant>,
            _: Duration,
            _: &Deadlines,
        ) -> Self {
            Self(stream)
        }
    }

    impl Read for Heartbeat {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let mut socket = self.0.socket();
            socket.read(buffer)
        }
    }
}
