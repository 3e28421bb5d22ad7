//! `hubbub join` on a terminal, as somebody sees it who sits there.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::hubbub::Hubbub;
use crate::support::redis::{Redis, free_port};
use crate::support::tmux::Window;
use crate::support::until;

/// Somebody at a terminal, who has entered the lobby.
fn join(user: &str, hubbub: &Hubbub) -> Window {
    let window = Window::running(&["join", user, "--url", &hubbub.url()]);
    until("the prompt is there, below who is online", || {
        let screen = window.screen();
        (screen.first()?.starts_with("* online: ") && screen.last()? == "lobby>").then_some(())
    });
    window
}

#[test]
fn what_comes_in_does_not_tear_the_line_that_is_being_typed() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    let alice = join("alice", &hubbub);
    assert_eq!(bob.hears(), "* alice joined");
    alice.types("half a li");
    alice.shows(&["lobby> half a li"]);
    bob.says("hello");
    bob.says("are you there?");
    alice.shows(&[
        "* online: alice, bob",
        "bob: hello",
        "bob: are you there?",
        "lobby> half a li",
    ]);
    alice.enters("ne");
    assert_eq!(bob.hears(), "alice: half a line");
    alice.shows(&["bob: are you there?", "lobby> half a line", "lobby>"]);
    alice.presses("Up");
    alice.shows(&["lobby> half a line", "lobby> half a line"]);
}

#[test]
fn many_lines_at_once_and_a_window_of_another_size_do_not_tear_it_either() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    let alice = join("alice", &hubbub);
    assert_eq!(bob.hears(), "* alice joined");
    alice.types("日本語 and a long line that does not fit into a narrow window");
    for n in 0..500 {
        bob.says(&format!("line {n} \u{1f600}"));
    }
    alice.resize(40, 10);
    bob.says("the last");
    let row = "lobby> <es not fit into a narrow window";
    alice.shows(&["bob: line 499 \u{1f600}", "bob: the last", row]);
    let torn = |line: &String| !line.starts_with("bob: ") && line != row;
    assert_eq!(alice.screen().into_iter().find(torn), None);
    alice.resize(60, 10);
    bob.says("wide again");
    alice.shows(&[
        "bob: the last",
        "bob: wide again",
        "lobby> < a long line that does not fit into a narrow window",
    ]);
    alice.presses("Enter");
    assert_eq!(
        bob.hears(),
        "alice: 日本語 and a long line that does not fit into a narrow window"
    );
}

#[test]
fn join_leaves_the_room_and_enters_the_other() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    let mut dora = hubbub.join_room("dora", "den");
    let alice = join("alice", &hubbub);
    assert_eq!(bob.hears(), "* alice joined");
    // In one go: what is behind /join is meant for the new room.
    for line in ["in the lobby", "/join den", "in the den", "/who"] {
        alice.enters(line);
    }
    assert_eq!(bob.hears(), "alice: in the lobby");
    assert_eq!(bob.hears(), "* alice left");
    assert_eq!(dora.hears(), "* alice joined");
    assert_eq!(dora.hears(), "alice: in the den");
    until("who is there was answered, too", || {
        let screen = alice.screen();
        let online = screen
            .iter()
            .filter(|line| *line == "* online: alice, dora");
        (online.count() == 2).then_some(())
    });
    bob.says("not for the den");
    dora.says("welcome");
    alice.shows(&["* online: alice, dora", "dora: welcome", "den>"]);
    let screen = alice.screen().join("\n");
    assert!(
        screen.contains("* this is den\n* online: alice, dora"),
        "{screen}"
    );
    assert!(!screen.contains("not for the den"), "{screen}");
}

#[test]
fn what_was_meant_for_a_room_that_cannot_be_entered_is_said_nowhere() {
    let hubbub = Hubbub::with(&["--rooms-per-connection", "1"]);
    let mut bob = hubbub.join("bob");
    // A command is typed at a terminal; what is printed may go into a pipe.
    let alice = Window::running(&["join", "alice", "--url", &hubbub.url(), "|", "cat"]);
    assert_eq!(bob.hears(), "* alice joined");
    alice.types("one\n/join den\nsecret\n");
    assert_eq!(bob.hears(), "alice: one");
    assert_eq!(bob.hears(), "* alice left");
    alice.ends();
}

#[test]
fn a_command_that_is_none_is_told_what_there_is() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    let alice = join("alice", &hubbub);
    assert_eq!(bob.hears(), "* alice joined");
    alice.enters("/exit");
    alice.shows(&[
        "lobby> /exit",
        "! there is no /exit; there are /who, /history, /rooms,",
        "  /join, /times, /quit and /help, and //text says a line",
        "  that begins with a slash",
        "lobby>",
    ]);
    alice.enters("//exit");
    assert_eq!(bob.hears(), "alice: /exit");
    alice.enters("/help");
    until("help tells of the terminal's commands", || {
        let screen = alice.screen().join("\n");
        (screen.contains("* /join ROOM") && screen.contains("* /quit")).then_some(())
    });
}

#[test]
fn whoever_leaves_says_goodbye_and_gives_the_terminal_back() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    for (how, code) in [("/quit", 0), ("C-d", 0), ("C-c", 130), ("SIGTERM", 143)] {
        let alice = join("alice", &hubbub);
        assert_eq!(bob.hears(), "* alice joined");
        match how {
            "SIGTERM" => {
                let process = Pid::from_raw(alice.process());
                kill(process, Signal::SIGTERM).expect("a signal");
            }
            "/quit" => {
                alice.enters("/quit");
            }
            key => alice.presses(key),
        }
        assert_eq!(alice.ends(), code, "{how}");
        assert_eq!(bob.hears(), "* alice left", "{how}");
    }
}

#[test]
fn ctrl_c_clears_the_line_that_is_begun_and_then_leaves() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    let alice = join("alice", &hubbub);
    assert_eq!(bob.hears(), "* alice joined");
    alice.types("rather not");
    alice.shows(&["lobby> rather not"]);
    alice.presses("C-c");
    alice.shows(&["* online: alice, bob", "lobby>"]);
    alice.enters("hello");
    assert_eq!(bob.hears(), "alice: hello");
    alice.presses("C-c");
    assert_eq!(alice.ends(), 130);
}

#[test]
fn a_long_line_is_wrapped_between_its_words_also_in_a_window_of_another_size() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    let alice = join("alice", &hubbub);
    assert_eq!(bob.hears(), "* alice joined");
    let long = "a line of many words, 日本語 among them, that does not fit into the window";
    bob.says(long);
    alice.shows(&[
        "bob: a line of many words, 日本語 among them, that does not",
        "  fit into the window",
        "lobby>",
    ]);
    alice.resize(30, 20);
    bob.says(long);
    bob.says(&"0123456789".repeat(4));
    alice.shows(&[
        "bob: a line of many words,",
        "  日本語 among them, that does",
        "  not fit into the window",
        "bob: 0123456789012345678901234",
        "  567890123456789",
        "lobby>",
    ]);
    alice.enters("and one of my own, which is as long");
    alice.shows(&[
        "lobby> and one of my own,",
        "       which is as long",
        "lobby>",
    ]);
}

#[test]
fn the_past_is_shown_with_its_times_and_all_else_on_request() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    bob.says("before");
    bob.says("/who");
    assert_eq!(bob.hears(), "* online: bob");
    let alice = Window::running(&["join", "alice", "--url", &hubbub.url(), "--history", "1"]);
    assert_eq!(bob.hears(), "* alice joined");
    let shows = |last: &[&str]| {
        let digits_are_zeros = |line: String| line.replace(|c: char| c.is_ascii_digit(), "0");
        alice.shows_seen_as(digits_are_zeros, last);
    };
    shows(&[
        "* online: alice, bob",
        "* 0000-00-00 (UTC)",
        "00:00 bob: before",
        "lobby>",
    ]);
    bob.says("now");
    shows(&["00:00 bob: before", "bob: now", "lobby>"]);
    alice.enters("/times");
    alice.shows(&["* messages are shown with their times", "lobby>"]);
    bob.says("then");
    shows(&[
        "* messages are shown with their times",
        "00:00 bob: then",
        "lobby>",
    ]);
    alice.enters("/times");
    alice.shows(&["* messages are shown without their times", "lobby>"]);
    bob.says("the end");
    shows(&[
        "* messages are shown without their times",
        "bob: the end",
        "lobby>",
    ]);
}

#[test]
fn say_takes_what_is_typed_up_to_ctrl_d() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    let ci = Window::running(&["say", "ci", "-", "--url", &hubbub.url()]);
    ci.enters("one");
    ci.enters("two");
    ci.presses("C-d");
    assert_eq!(bob.hears(), "ci: one");
    assert_eq!(bob.hears(), "ci: two");
    assert_eq!(ci.ends(), 0);
}

#[test]
fn there_are_colours_unless_they_are_not_wanted() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    let url = hubbub.url();
    let mut colours = |variables: &str, color: &str| {
        let window = Window::in_environment(
            variables,
            &["join", "alice", "--url", &url, "--color", color],
        );
        window.shows(&["* online: alice, bob", "lobby>"]);
        bob.says("hello");
        window.shows(&["bob: hello", "lobby>"]);
        let line = window
            .colours()
            .into_iter()
            .find(|line| line.contains("hello"));
        let line = line.expect("what bob said");
        window.presses("C-d");
        assert_eq!(window.ends(), 0);
        assert_eq!(bob.hears(), "* alice joined");
        assert_eq!(bob.hears(), "* alice left");
        line
    };
    let coloured = colours("", "auto");
    assert!(
        coloured.contains("\u{1b}[38;5;") && coloured.ends_with(" hello"),
        "{coloured:?}"
    );
    assert_eq!(colours("NO_COLOR=1", "auto"), "bob: hello");
    assert_eq!(colours("", "never"), "bob: hello");
    assert!(colours("NO_COLOR=1", "always").contains("\u{1b}[38;5;"));
}

#[test]
fn a_hostile_message_moves_nothing_on_the_screen() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    let alice = join("alice", &hubbub);
    assert_eq!(bob.hears(), "* alice joined");
    alice.types("half");
    bob.says("first");
    bob.says("\u{1b}[2J\u{1b}[H\u{9b}2J\rlobby> \u{202e}evil\u{8}\u{7}\u{1b}]0;title\u{7}");
    bob.says("one\r\n\u{1b}[Atwo");
    let r = '\u{fffd}';
    alice.shows(&[
        "* online: alice, bob",
        "bob: first",
        &format!("bob: {r}[2J{r}[H{r}2J{r}lobby> {r}evil{r}{r}{r}]0;title{r}"),
        "bob: one",
        &format!("bob: {r}[Atwo"),
        "lobby> half",
    ]);
}

#[test]
fn what_is_pasted_is_one_message_of_several_lines() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    let alice = join("alice", &hubbub);
    assert_eq!(bob.hears(), "* alice joined");
    alice.shows(&["lobby>"]);
    alice.pastes("one\ntwo\n/quit\n");
    alice.shows(&["lobby> one\u{23ce}two\u{23ce}/quit"]);
    alice.presses("Enter");
    for line in ["alice: one", "alice: two", "alice: /quit"] {
        assert_eq!(bob.hears(), line);
    }
    alice.shows(&["lobby> one", "       two", "       /quit", "lobby>"]);
}

#[test]
fn a_line_typed_while_the_server_is_away_arrives_once_when_it_is_back() {
    let redis = Redis::that_remembers();
    let listen = format!("127.0.0.1:{}", free_port());
    let at_the_same_place = ["--listen", &*listen];
    let mut here = Hubbub::on_with(&redis, &at_the_same_place);
    let there = Hubbub::on(&redis);
    let mut bob = there.join("bob");
    let alice = join("alice", &here);
    assert_eq!(bob.hears(), "* alice joined");
    alice.types("half");
    here.kill();
    alice.shows(&["lobby (away)> half"]);
    let told = |line: &String| line.starts_with("* ") && line.ends_with("; trying again");
    assert!(alice.screen().iter().any(told), "{:?}", alice.screen());
    bob.says("where are you?");
    alice.enters(" a line");
    alice.shows(&[
        "lobby (away)> half a line",
        "* not sent yet; it will be once the server is back",
        "lobby (away)>",
    ]);
    let _here = Hubbub::on_with(&redis, &at_the_same_place);
    until("what was missed is shown, and when it was said", || {
        let screen = alice.screen();
        let [.., back, online, day, missed, prompt] = &*screen else {
            return None;
        };
        assert_ne!(missed, "bob: where are you?");
        let whole = [back, online, prompt] == ["* back again", "* online: alice, bob", "lobby>"];
        let told = day.ends_with(" (UTC)") && missed.ends_with(" bob: where are you?");
        (whole && told).then_some(())
    });
    alice.enters("the end");
    let mut said = bob.hears_until("the end");
    said.retain(|line| line.starts_with("alice: "));
    assert_eq!(said, ["alice: half a line", "alice: the end"]);
}

#[test]
fn a_line_that_cannot_be_stored_yet_is_told_of_and_arrives_once() {
    let mut redis = Redis::that_remembers();
    let hubbub = Hubbub::on(&redis);
    let mut bob = hubbub.join("bob");
    let alice = join("alice", &hubbub);
    assert_eq!(bob.hears(), "* alice joined");
    redis.kill();
    alice.enters("patience");
    alice.shows(&[
        "lobby> patience",
        "* not sent yet; it is tried again until it is",
        "lobby>",
    ]);
    redis.start_again();
    alice.enters("the end");
    let mut said = bob.hears_until("the end");
    said.retain(|line| line.starts_with("alice: "));
    assert_eq!(said, ["alice: patience", "alice: the end"]);
}

#[test]
fn whoever_leaves_while_the_server_is_away_may_wait_or_not() {
    let mut hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    let alice = join("alice", &hubbub);
    assert_eq!(bob.hears(), "* alice joined");
    hubbub.kill();
    alice.shows(&["lobby (away)>"]);
    for line in ["/who", "lost", "/quit"] {
        alice.enters(line);
    }
    alice.shows(&[
        "lobby (away)> /who",
        "* the server is away; ask again when it is back",
        "lobby (away)> lost",
        "* not sent yet; it will be once the server is back",
        "lobby (away)> /quit",
        "* waiting for the server, to send what was typed; Ctrl-C",
        "  leaves without",
        "lobby (away)>",
    ]);
    alice.presses("C-c");
    assert_eq!(alice.ends(), 1);
    let screen = alice.screen();
    assert_eq!(screen[screen.len() - 3], "hubbub: a line was not sent");
}
