//! The publisher's thread, with the test in Redis's place; and what is queued for it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;

use redis::cmd;

use super::wire::PubSub;
use super::*;
use crate::backplane::redis::address::{Form, RedisAddress};
use crate::message::{InstanceId, MessageId, RoomName};

impl Connecting {
    /// To a port where nobody listens.
    pub(in crate::backplane::redis) fn to_nobody() -> Self {
        let address = RedisAddress::parse("redis://127.0.0.1:1").expect("an address");
        let Form::Server(server) = address.0 else {
            panic!("it is one server")
        };
        Self {
            source: Source::Server(Arc::new(server)),
            name: "nobody".to_owned(),
            keys: Keys::new("hubbub", InstanceId::random()),
            scripts: Scripts::new(PubSub::Plain),
            servers: None,
            news: NewsSender(None),
            acknowledged: None,
        }
    }
}

impl Publisher {
    /// One whose thread is the test: it takes the queued commands out, and answers them.
    pub(in crate::backplane::redis) fn without_thread(
        to: Connecting,
    ) -> (Self, impl Fn() -> Option<PendingCommand>) {
        let (queue, queued) = crossbeam_channel::unbounded();
        let publisher = Self {
            queue,
            link: Arc::new(Link::new(&to.name)),
            to,
            thread: Mutex::default(),
        };
        let next = move || match queued.recv() {
            Ok(Queued::Command(pending)) => Some(pending),
            Ok(Queued::Stop) | Err(_) => None,
        };
        (publisher, next)
    }
}

/// The publisher's thread, whose connection ends at the test.
fn connected() -> (PublisherThread, TcpStream) {
    let (pipeline, peer) = Pipeline::to_test();
    let link = Arc::new(Link::new("nobody"));
    let mut thread = PublisherThread::new(Connecting::to_nobody(), link).expect("a thread");
    thread.pipeline = Some(pipeline);
    (thread, peer)
}

/// The answers, with the number of the command of each.
type Answers = mpsc::Receiver<(usize, Result<Value, BackplaneError>)>;

/// Makes commands whose answers are told. Each has the length of [`pings`] by their number.
fn commands() -> (impl Fn(usize) -> PendingCommand, Answers) {
    let (tell, answers) = mpsc::channel();
    let command = move |number| {
        let tell = tell.clone();
        let on_answer = move |answer| tell.send((number, answer)).expect("the test waits");
        PendingCommand::new(&cmd("PING"), due(), Box::new(on_answer))
    };
    (command, answers)
}

/// The bytes of so many commands.
fn pings(count: usize) -> Vec<u8> {
    cmd("PING").get_packed_command().repeat(count)
}

fn pong() -> Result<Value, BackplaneError> {
    Ok(Value::SimpleString("PONG".to_owned()))
}

fn answer(peer: &mut TcpStream, count: usize) {
    let pongs = b"+PONG\r\n".repeat(count);
    peer.write_all(&pongs).expect("it reads");
}

fn queue(commands: impl Iterator<Item = PendingCommand>) -> (Sender<Queued>, Receiver<Queued>) {
    let (tell, queue) = crossbeam_channel::unbounded();
    commands.for_each(|one| tell.send(Queued::Command(one)).expect("a queue"));
    (tell, queue)
}

#[test]
fn two_batches_are_written_before_the_first_answer_and_all_are_answered_before_it_ends() {
    const SENT: usize = 2 * BATCH_COMMANDS + 10;
    let (thread, mut peer) = connected();
    let (command, answers) = commands();
    let (tell, queue) = queue((0..SENT).map(&command));
    tell.send(Queued::Stop).expect("a queue");
    tell.send(Queued::Command(command(SENT))).expect("a queue");
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut heard = vec![0; pings(2 * BATCH_COMMANDS).len()];
            peer.read_exact(&mut heard).expect("two batches");
            answer(&mut peer, SENT);
            // It reads to the end before it closes.
            let mut rest = Vec::new();
            peer.read_to_end(&mut rest).expect("the end");
            assert_eq!(rest, pings(10));
        });
        thread.run(None, &queue);
    });
    let expected = (0..SENT).map(|number| (number, pong()));
    let late = (SENT, Err(BackplaneError::Unavailable));
    let expected: Vec<_> = expected.chain([late]).collect();
    assert_eq!(answers.try_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn no_third_batch_is_written() {
    let (mut thread, mut peer) = connected();
    let (command, _answers) = commands();
    let (_tell, queue) = queue((2..4).map(&command));
    thread.write(vec![command(0)]);
    thread.write(vec![command(1)]);
    answer(&mut peer, 1);
    thread.read(&queue);
    assert_eq!((thread.in_flight(), queue.len()), (1, 2));
}

#[test]
fn what_waits_when_the_connection_breaks_is_certainly_not_done() {
    let (mut thread, peer) = connected();
    let (command, answers) = commands();
    let (_tell, queue) = queue([command(1)].into_iter());
    thread.write(vec![command(0)]);
    drop(peer);
    let before = Instant::now();
    thread.read(&queue);
    assert!(thread.next_attempt >= before, "after a pause");
    let batch = thread.next_batch(&queue);
    thread.write(batch);
    assert_eq!(
        answers.try_iter().collect::<Vec<_>>(),
        [
            (0, Err(BackplaneError::NoAnswer)),
            (1, Err(BackplaneError::Unavailable))
        ]
    );
    let before = Instant::now();
    thread.connect();
    assert!(thread.next_attempt >= before, "after another pause");
}

#[test]
fn a_batch_is_bounded_in_commands_and_in_bytes() {
    let (mut thread, _peer) = connected();
    let (command, _answers) = commands();
    let (tell, queue) = queue((0..BATCH_COMMANDS + 1).map(&command));
    assert_eq!(thread.next_batch(&queue).len(), BATCH_COMMANDS);
    assert_eq!(thread.next_batch(&queue).len(), 1);
    for number in 0..3 {
        let mut large = command(number);
        large.command = vec![b'x'; BATCH_BYTES / 2];
        tell.send(Queued::Command(large)).expect("a queue");
    }
    assert_eq!(thread.next_batch(&queue).len(), 2);
    assert_eq!(thread.next_batch(&queue).len(), 1);
}

#[test]
fn after_a_slow_batch_the_next_is_smaller_and_after_quick_ones_it_grows_again() {
    let (mut thread, mut peer) = connected();
    let (command, _answers) = commands();
    let (_tell, queue) = queue(std::iter::empty());
    let mut most_after = |took, size: usize| {
        thread.write((0..size).map(&command).collect());
        let pipeline = thread.pipeline.as_mut().expect("it is connected");
        pipeline.age(took);
        answer(&mut peer, size);
        thread.read(&queue);
        thread.most
    };
    // A machine that takes long itself finds a batch of one slow.
    let grows_to = |most, expected| assert!(most == expected || most == 1, "{most}");
    grows_to(most_after(Duration::ZERO, 1), BATCH_COMMANDS);
    assert_eq!(most_after(2 * BATCH_TAKES, 8), 4);
    grows_to(most_after(Duration::ZERO, 1), 8);
    assert_eq!(most_after(2 * BATCH_TAKES, 1), 1);
}

#[test]
fn a_publisher_that_nobody_can_reach_any_more_ends() {
    let (mut thread, _peer) = connected();
    let (tell, queue) = queue(std::iter::empty());
    drop(tell);
    thread.next_batch(&queue);
    assert!(thread.stops);
}

#[test]
fn what_nobody_waits_for_is_dropped_when_much_is_queued() {
    let (publisher, _next) = Publisher::without_thread(Connecting::to_nobody());
    publisher.fire_and_forget(&cmd("PING"));
    publisher.fire_and_forget(&cmd("PING"));
    assert_eq!(publisher.waiting(), 2);
    for _ in 0..UNANSWERED_BACKLOG {
        publisher.fire_and_forget(&cmd("PING"));
    }
    assert_eq!(publisher.waiting(), UNANSWERED_BACKLOG);
}

#[test]
fn a_caller_waits_no_longer_than_an_answer_may_take() {
    let (publisher, _next) = Publisher::without_thread(Connecting::to_nobody());
    let asked_long_ago = due() - ANSWER_WITHIN;
    let begun = Instant::now();
    let answer = publisher.call_by(asked_long_ago, &cmd("PING"));
    assert_eq!(answer, Err(BackplaneError::NoAnswer));
    assert!(begun.elapsed() < QUEUED_WITHIN, "{:?}", begun.elapsed());
}

#[test]
fn what_is_in_doubt_is_asked_for_until_there_is_an_answer() {
    let acknowledged = Arc::<Acknowledged>::default();
    let to = Connecting {
        acknowledged: Some(Arc::clone(&acknowledged)),
        ..Connecting::to_nobody()
    };
    let (millis, number) = (1, 0);
    acknowledged.note(&RoomName::lobby(), MessageId { millis, number });
    acknowledged.doubt();
    let questions = || to.look_for_acknowledged(&Share::All);
    for answer in [Err(BackplaneError::NoAnswer), pong()] {
        let mut asked = questions();
        let (_, on_answer) = asked.pop().expect("a question");
        assert!(asked.is_empty());
        on_answer(answer);
    }
    assert!(questions().is_empty());
}
