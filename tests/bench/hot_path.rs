//! What the steps of one message cost on their own, without sockets, threads and Redis: reading a
//! command, making the frame, and the fan-out. Run by `cargo bench --bench hot_path`, with a word to
//! choose (`-- fan_out`). For comparing a change with what was before, on the same quiet machine.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use divan::{Bencher, black_box, counter::ItemsCount};
use hubbub::hub::outbox::{Queue, outbox};
use hubbub::hub::{Delivery, Hub, Pace};
use hubbub::message::{
    ConnectionId, Entry, InstanceId, MemberList, Message, MessageId, Revision, RoomName, UserName,
};
use hubbub::protocol::{Encoding, Event, Priority, json, text};
use hubbub::websocket::frame;

const TEXT: &str = "a message of a hundred bytes, more or less, as people in a chat write them all day long, yes indeed";

fn main() {
    divan::main();
}

fn message(id: MessageId) -> Message {
    Message {
        id,
        from: "alice".parse().expect("a name"),
        text: TEXT.to_owned(),
        at: 1_700_000_000_000,
    }
}

#[divan::bench(args = ["text", "json"])]
fn parse(bencher: Bencher<'_, '_>, encoding: &str) {
    let room = RoomName::lobby();
    let frame = format!(r#"{{"type":"send","room":"lobby","text":"{TEXT}","ref":"a1"}}"#);
    match encoding {
        "text" => bencher.bench(|| text::parse(black_box(TEXT), &room)),
        _ => bencher.bench(|| json::parse(black_box(&frame))),
    }
}

#[divan::bench(args = [Encoding::Text, Encoding::Json])]
fn encode(bencher: Bencher<'_, '_>, encoding: Encoding) {
    let event = Event::Message {
        room: RoomName::lobby(),
        message: message(MessageId::ZERO),
        looks_like: None,
        via: None,
    };
    bencher.bench(|| frame::text(&encoding.encode(black_box(&event))));
}

/// A room full of members whose outboxes are emptied by nobody but us.
struct Hall {
    hub: Hub,
    room: RoomName,
    queues: Vec<Queue>,
    last: MessageId,
}

impl Hall {
    fn with(members: u64) -> Self {
        let hub = Hub::start(InstanceId::random(), 0).expect("no threads");
        let room = RoomName::lobby();
        let list = MemberList {
            users: [].into(),
            revision: Revision::ZERO,
        };
        let queues = (0..members)
            .map(|n| {
                let user: UserName = format!("user-{n}").parse().expect("a name");
                let (outbox, queue) = outbox(Encoding::Text, 1 << 20, None);
                let connection = ConnectionId(n);
                hub.add_member(&room, connection, Some(&user), &outbox);
                hub.release(&room, connection, None, &list, None);
                queue
            })
            .collect();
        Self {
            hub,
            room,
            queues,
            last: MessageId::ZERO,
        }
    }

    fn next(&mut self) -> Entry {
        self.last = self.last.next().expect("there are many ids");
        Entry {
            message: message(self.last),
            prev: None,
            via: None,
        }
    }

    fn empty(&self) {
        let mut bytes = Vec::new();
        for queue in &self.queues {
            queue.collect_by(Instant::now(), &mut bytes);
            bytes.clear();
        }
    }
}

/// From the backplane into every member's outbox. The outboxes are emptied in between, outside the
/// measurement.
#[divan::bench(args = [10, 100, 1000, 4000])]
fn fan_out(bencher: Bencher<'_, '_>, members: u64) {
    let hall = RefCell::new(Hall::with(members));
    bencher
        .counter(ItemsCount::new(members))
        .with_inputs(|| {
            let mut hall = hall.borrow_mut();
            hall.empty();
            hall.next()
        })
        .bench_local_values(|entry| {
            let hall = hall.borrow();
            hall.hub
                .deliver(&hall.room, Delivery::Messages(vec![entry]), Pace::Calm);
        });
}

/// From an outbox into the bytes of one write, with the pushes before it: what one member costs when
/// so many messages wait for it.
#[divan::bench(args = [1, 10, 100])]
fn push_and_collect(bencher: Bencher<'_, '_>, waiting: usize) {
    let (outbox, queue) = outbox(Encoding::Text, 1 << 20, None);
    let event = Event::Message {
        room: RoomName::lobby(),
        message: message(MessageId::ZERO),
        looks_like: None,
        via: None,
    };
    let frame = frame::text(&Encoding::Text.encode(&event)).expect("a frame");
    let mut bytes = Vec::new();
    bencher.counter(ItemsCount::new(waiting)).bench_local(|| {
        for _ in 0..waiting {
            outbox.push(Arc::clone(&frame), Priority::High);
        }
        bytes.clear();
        queue.collect_by(Instant::now(), &mut bytes)
    });
}
