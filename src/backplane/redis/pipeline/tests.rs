//! Batches, with the test in Redis's place at the other end of a socket.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use redis::{Client, IntoConnectionInfo, RedisConnectionInfo, cmd};

use super::*;

impl Pipeline {
    /// A pipeline, and the other end of its connection.
    pub(in crate::backplane::redis) fn to_test() -> (Self, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("redis://{}", listener.local_addr().expect("its address"));
        let silent = RedisConnectionInfo::default().set_skip_set_lib_name();
        let info = url.into_connection_info().expect("an address");
        let client = Client::open(info.set_redis_settings(silent)).expect("an address");
        let pipeline = Self {
            connection: client.get_connection().expect("a connection"),
            in_flight: VecDeque::new(),
            refused: None,
        };
        let (peer, _) = listener.accept().expect("the connection");
        (pipeline, peer)
    }

    /// As if the oldest batch had been written so long ago.
    pub(in crate::backplane::redis) fn age(&mut self, by: Duration) {
        self.in_flight.front_mut().expect("a batch").begun -= by;
    }
}

/// What the commands of a test were answered, with the name of each, in the order of the answers.
type Answers = mpsc::Receiver<(String, Result<Value, BackplaneError>)>;

/// Makes commands whose answers are told.
fn commands() -> (impl Fn(&str, Instant) -> PendingCommand, Answers) {
    let (tell, answers) = mpsc::channel();
    let command = move |name: &str, due| {
        let (tell, told) = (tell.clone(), name.to_owned());
        let on_answer = move |answer| tell.send((told, answer)).expect("the test waits");
        PendingCommand::new(&cmd(name), due, Box::new(on_answer))
    };
    (command, answers)
}

fn give(answers: Vec<Answered>) {
    for answered in answers {
        (answered.on_answer)(answered.answer);
    }
}

fn soon() -> Instant {
    Instant::now() + COMMAND_TIMEOUT
}

#[test]
fn what_comes_too_late_is_refused_in_its_place_and_not_written() {
    let (mut pipeline, mut peer) = Pipeline::to_test();
    let (command, answers) = commands();
    let batch = vec![command("A", Instant::now()), command("B", soon())];
    pipeline.write(batch).expect("it is written");
    pipeline.age(COMMAND_TIMEOUT);
    // Now the first batch keeps its time-out, and there is no time left for another one.
    pipeline
        .write(vec![command("C", soon())])
        .expect("nothing is written");
    let written = cmd("B").get_packed_command();
    let mut heard = vec![0; written.len()];
    peer.read_exact(&mut heard).expect("a command");
    assert_eq!(heard, written);
    give(pipeline.abandon());
    assert_eq!(
        answers.try_iter().collect::<Vec<_>>(),
        [
            ("A".to_owned(), Err(BackplaneError::Unavailable)),
            ("B".to_owned(), Err(BackplaneError::NoAnswer)),
            ("C".to_owned(), Err(BackplaneError::Unavailable)),
        ]
    );
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).expect("the end");
    assert_eq!(rest, b"", "and nothing else was written");
}

#[test]
fn a_command_whose_slot_has_moved_goes_there_unless_it_has_to_stay() {
    let (mut pipeline, mut peer) = Pipeline::to_test();
    let (command, answers) = commands();
    let mut batch: Vec<_> = ["MOVES", "STAYS", "ASKS", "WAITS", "NOWHERE", "DONE"]
        .map(|name| command(name, soon()))
        .into();
    batch[1].stays = true;
    pipeline.write(batch).expect("it is written");
    let replies = "-MOVED 3999 127.0.0.1:6381\r\n-MOVED 3999 127.0.0.1:6381\r\n\
                   -ASK 3999 127.0.0.1:6381\r\n-TRYAGAIN later\r\n-CLUSTERDOWN it is\r\n+OK\r\n";
    peer.write_all(replies.as_bytes()).expect("it reads");
    let outcome = pipeline.read();
    assert!(outcome.is_stale);
    let moved = outcome.moved.iter().map(|(slot, to, _)| (*slot, &**to));
    assert_eq!(moved.collect::<Vec<_>>(), [(3999, "127.0.0.1:6381")]);
    give(outcome.answers);
    let refused = |name: &str| (name.to_owned(), Err(BackplaneError::Unavailable));
    assert_eq!(
        answers.try_iter().collect::<Vec<_>>(),
        [
            refused("STAYS"),
            refused("ASKS"),
            refused("WAITS"),
            refused("NOWHERE"),
            ("DONE".to_owned(), Ok(Value::Okay)),
        ]
    );
    give(refuse(
        outcome
            .moved
            .into_iter()
            .map(|(.., command)| command)
            .collect(),
    ));
    assert_eq!(answers.recv().expect("an answer"), refused("MOVES"));
}

#[test]
fn a_peer_that_takes_nothing_is_given_up_in_time() {
    let (mut pipeline, _peer) = Pipeline::to_test();
    let (command, _answers) = commands();
    pipeline
        .write(vec![command("A", soon())])
        .expect("it is written");
    let left = COMMAND_TIMEOUT / 3;
    pipeline.age(COMMAND_TIMEOUT - left);
    let mut large = command("B", soon());
    // More than the kernel takes.
    large.command = vec![b'x'; 64 << 20];
    let begun = Instant::now();
    pipeline.write(vec![large]).expect_err("nobody reads it");
    assert!(begun.elapsed() < 3 * left, "{:?}", begun.elapsed());
}
