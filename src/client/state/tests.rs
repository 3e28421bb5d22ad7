//! The client's state, tested without a socket; the tests hand it the time.

use super::*;

/// A connected client in the lobby that has seen one message.
fn in_the_lobby(now: Instant) -> ClientState {
    let mut state = ClientState::new();
    state.join(&RoomName::lobby(), None, None);
    state.connected();
    state.handle(entered(Some(id(1)), true, false), now);
    state
}

fn id(millis: u64) -> MessageId {
    MessageId { millis, number: 0 }
}

fn entered(last: Option<MessageId>, recovered: bool, anew: bool) -> Event {
    Event::Room {
        room: RoomName::lobby(),
        members: [].into(),
        alike: Vec::new(),
        messages: last.map(|last| message(last.millis)).into_iter().collect(),
        recovered,
        anew,
        last,
    }
}

fn message(millis: u64) -> Message {
    Message {
        id: id(millis),
        from: "bob".parse().expect("a name"),
        text: "hello".to_owned(),
        at: 0,
    }
}

/// Loses the connection and makes another, on which the server answers the join with this event.
fn comes_back(state: &mut ClientState, entered: Event, now: Instant) -> Actions {
    state.disconnected();
    state.connected();
    state.handle(entered, now)
}

fn refused(reference: &Ref, code: ErrorCode, retry: bool) -> Event {
    Event::Error {
        code,
        message: "not sent: no".to_owned(),
        reference: Some(reference.clone()),
        // A rejection of a whole frame names no room.
        room: None,
        retry,
        retry_after_ms: None,
    }
}

fn stored(reference: &Ref) -> Event {
    Event::Sent {
        reference: Some(reference.clone()),
        room: RoomName::lobby(),
        id: id(2),
        duplicate: false,
    }
}

/// Sends a text to the lobby.
fn send(state: &mut ClientState, text: &str, now: Instant) -> (Ref, Actions) {
    let reference = Ref::random();
    let actions = state.send(&RoomName::lobby(), text.to_owned(), reference.clone(), now);
    (reference, actions)
}

/// The texts among the commands.
fn texts(actions: &Actions) -> Vec<&str> {
    let sends = actions.commands.iter().filter_map(|command| match command {
        Command::Send { text, .. } => Some(text.as_str()),
        _ => None,
    });
    sends.collect()
}

/// Notes that all commands are written.
fn write(state: &mut ClientState, actions: &Actions, now: Instant) {
    for command in &actions.commands {
        state.writing(command, now);
    }
}

#[test]
fn a_line_typed_in_an_outage_longer_than_a_ref_lasts_is_sent_afterwards() {
    let now = Instant::now();
    let mut state = in_the_lobby(now);
    state.disconnected();
    let (first, actions) = send(&mut state, "one", now);
    write(&mut state, &actions, now);
    assert_eq!(texts(&actions), [""; 0], "there is no connection");
    let (second, _) = send(&mut state, "two", now);
    let later = now + Ref::LASTS + Duration::from_secs(60);
    state.connected();
    let actions = state.handle(entered(Some(id(1)), true, false), later);
    write(&mut state, &actions, later);
    assert_eq!(texts(&actions), ["one"], "{:?}", actions.events);
    let actions = state.handle(stored(&first), later);
    assert_eq!(texts(&actions), ["two"]);
    state.handle(stored(&second), later);
    assert!(state.outgoing.none_in(&RoomName::lobby()));
}

#[test]
fn an_answer_that_names_no_room_lets_the_next_line_go() {
    let now = Instant::now();
    let mut state = in_the_lobby(now);
    let (first, actions) = send(&mut state, "one", now);
    assert_eq!(texts(&actions), ["one"]);
    send(&mut state, "two", now);
    let actions = state.handle(refused(&first, ErrorCode::BadRequest, false), now);
    assert_eq!(texts(&actions), ["two"]);
}

#[test]
fn a_line_on_its_way_is_not_sent_again_beside_another_rooms() {
    let now = Instant::now();
    let mut state = in_the_lobby(now);
    let (first, actions) = send(&mut state, "one", now);
    assert_eq!(texts(&actions), ["one"]);
    // Another room's join is retried.
    assert_eq!(texts(&state.retry(now)), [""; 0]);
    let actions = state.handle(refused(&first, ErrorCode::TooFast, true), now);
    assert!(actions.retry.is_some());
    assert_eq!(texts(&state.retry(now)), ["one"]);
    // Nor does it go twice because the room is joined again before its answer.
    state.join(&RoomName::lobby(), None, None);
    let actions = state.handle(entered(Some(id(1)), true, false), now);
    assert_eq!(texts(&actions), [""; 0]);
}

#[test]
fn each_line_for_a_forbidden_room_fails_with_its_own_error() {
    let now = Instant::now();
    let mut state = in_the_lobby(now);
    state.disconnected();
    let (first, _) = send(&mut state, "one", now);
    state.connected();
    let closed = Event::Error {
        code: ErrorCode::Forbidden,
        message: "the token does not allow the room lobby".to_owned(),
        reference: None,
        room: Some(RoomName::lobby()),
        retry: false,
        retry_after_ms: None,
    };
    let actions = state.handle(closed, now);
    assert_eq!(failed(&actions), [first]);
    let (second, actions) = send(&mut state, "two", now);
    assert_eq!(failed(&actions), [second]);
}

#[test]
fn a_line_that_was_written_before_its_room_was_closed_is_not_called_unsent() {
    let now = Instant::now();
    let mut state = in_the_lobby(now);
    let (_, actions) = send(&mut state, "one", now);
    state.writing(&actions.commands[0], now);
    send(&mut state, "two", now);
    let closed = Event::Error {
        code: ErrorCode::Forbidden,
        message: "the room is closed".to_owned(),
        reference: None,
        room: Some(RoomName::lobby()),
        retry: false,
        retry_after_ms: None,
    };
    let actions = comes_back(&mut state, closed, now);
    let told = actions.events.iter().filter_map(|event| match event {
        Event::Error {
            message,
            reference: Some(_),
            ..
        } => Some(message.as_str()),
        _ => None,
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            "not confirmed: it may have been sent or not: the room is closed",
            "not sent: the room is closed"
        ]
    );
}

/// The refs of the sends that the user hears have failed.
fn failed(actions: &Actions) -> Vec<Ref> {
    let told = actions.events.iter().filter_map(|event| match event {
        Event::Error { reference, .. } => reference.clone(),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_log_that_began_anew_is_not_reported_as_a_gap() {
    let now = Instant::now();
    let mut state = in_the_lobby(now);
    // A clock that was set back gives lower ids than those seen before.
    state.handle(heard(9), now);
    let actions = comes_back(&mut state, entered(Some(id(3)), false, true), now);
    let [Event::Room { anew, messages, .. }] = &actions.events[..] else {
        panic!("{:?}", actions.events);
    };
    assert!(anew);
    assert_eq!(*messages, [message(3)]);
    assert_eq!(state.handle(heard(3), now).events, [], "once");
    assert_eq!(state.handle(heard(4), now).events, [heard(4)]);
}

#[test]
fn an_empty_log_that_began_anew_is_resumed_from_its_beginning() {
    let now = Instant::now();
    let mut state = in_the_lobby(now);
    comes_back(&mut state, entered(None, false, true), now);
    state.disconnected();
    let actions = state.connected();
    let [Command::Join { since, .. }] = &actions.commands[..] else {
        panic!("{:?}", actions.commands);
    };
    assert_eq!(*since, Some(MessageId::ZERO));
    // A shared log that was lost is resumed likewise, and is a gap.
    let mut state = in_the_lobby(now);
    let actions = comes_back(&mut state, entered(None, false, false), now);
    let [Event::Gap { .. }, Event::Room { anew: false, .. }] = &actions.events[..] else {
        panic!("{:?}", actions.events);
    };
    state.disconnected();
    let actions = state.connected();
    let [Command::Join { since, .. }] = &actions.commands[..] else {
        panic!("{:?}", actions.commands);
    };
    assert_eq!(*since, Some(MessageId::ZERO));
}

#[test]
fn a_user_who_saw_nothing_before_is_not_told_that_the_log_began_anew() {
    let now = Instant::now();
    let mut state = ClientState::new();
    state.join(&RoomName::lobby(), None, None);
    state.connected();
    let actions = state.handle(entered(None, false, true), now);
    let [Event::Room { anew: false, .. }] = &actions.events[..] else {
        panic!("{:?}", actions.events);
    };
}

fn heard(millis: u64) -> Event {
    Event::Message {
        room: RoomName::lobby(),
        message: message(millis),
        looks_like: None,
        via: None,
    }
}

#[test]
fn a_join_that_is_refused_for_its_rate_is_asked_for_again_and_not_too_early() {
    let now = Instant::now();
    let mut state = in_the_lobby(now);
    let too_fast = Event::Error {
        code: ErrorCode::TooFast,
        message: "cannot join lobby: too fast".to_owned(),
        reference: None,
        room: Some(RoomName::lobby()),
        retry: true,
        retry_after_ms: Some(700),
    };
    let actions = comes_back(&mut state, too_fast, now);
    assert!(actions.events.is_empty() && actions.commands.is_empty());
    let retry = actions.retry.expect("a retry");
    assert_eq!(retry.after, Duration::from_millis(700));
    let again = state.retry(now).commands;
    assert!(matches!(again[..], [Command::Join { .. }]), "{again:?}");
}

#[test]
fn a_room_that_the_server_takes_us_out_of_is_not_joined_again() {
    let now = Instant::now();
    let mut state = in_the_lobby(now);
    let (first, sent) = send(&mut state, "on its way", now);
    write(&mut state, &sent, now);
    let parted = Event::Parted {
        room: RoomName::lobby(),
        reason: Some("it is closed".to_owned()),
    };
    let actions = state.handle(parted, now);
    let [Event::Parted { .. }, Event::Error { reference, .. }] = &actions.events[..] else {
        panic!("{:?}", actions.events)
    };
    assert_eq!(reference.as_ref(), Some(&first));
    state.disconnected();
    assert!(state.connected().commands.is_empty());
}
