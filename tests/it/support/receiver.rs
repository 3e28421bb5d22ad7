//! A receiver of webhooks: an HTTP server of a test's own, which answers as the test says.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Sender, unbounded};
use serde_json::Value;

use super::DEADLINE;

/// What was posted.
pub(crate) struct Post {
    /// When it was read.
    pub(crate) at: Instant,
    pub(crate) target: String,
    head: String,
    pub(crate) body: String,
}

impl Post {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(found, _)| *found == name).map(|(_, v)| v)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    pub(crate) fn text(&self) -> String {
        self.json()["text"].as_str().expect("a text").to_owned()
    }
}

#[derive(Default)]
struct Answers {
    /// The next ones.
    first: VecDeque<String>,
    /// All others; nothing to be silent.
    then: String,
}

pub(crate) struct Receiver {
    port: u16,
    posts: crossbeam_channel::Receiver<Post>,
    answers: Arc<Mutex<Answers>>,
}

impl Receiver {
    /// One that takes everything.
    pub(crate) fn start() -> Self {
        Self::on(0)
    }

    pub(crate) fn on(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (tell, posts) = unbounded();
        let answers = Arc::new(Mutex::new(Answers::default()));
        let receiver = Self {
            port,
            posts,
            answers: Arc::clone(&answers),
        };
        receiver.answers_all("200 OK");
        thread::spawn(move || serve(&listener, &answers, &tell));
        receiver
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The next ones get these answers: each a status, and perhaps fields.
    pub(crate) fn answers_next(&self, answers: &[&str]) {
        let answers = answers.iter().map(|&answer| answer.to_owned());
        self.answers.lock().expect("a lock").first = answers.collect();
    }

    /// All others get this answer; with nothing, the receiver is silent.
    pub(crate) fn answers_all(&self, answer: &str) {
        self.answers.lock().expect("a lock").then = answer.to_owned();
    }

    /// The next post.
    pub(crate) fn gets(&self) -> Post {
        self.posts.recv_timeout(DEADLINE).expect("a post")
    }

    /// The text of the next message.
    pub(crate) fn reads(&self) -> String {
        self.gets().text()
    }
}

fn serve(listener: &TcpListener, answers: &Mutex<Answers>, tell: &Sender<Post>) {
    let mut silent = Vec::new();
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        let Some(post) = read(&stream) else {
            continue;
        };
        let answer = {
            let mut answers = answers.lock().expect("a lock");
            let first = answers.first.pop_front();
            first.unwrap_or_else(|| answers.then.clone())
        };
        // The test that is over does not listen.
        if tell.send(post).is_err() {
            return;
        }
        if answer.is_empty() {
            silent.push(stream);
        } else {
            let _ = write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
        }
    }
}

fn read(stream: &TcpStream) -> Option<Post> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut post = Post {
        at: Instant::now(),
        target: head.split(' ').nth(1)?.to_owned(),
        head,
        body: String::new(),
    };
    let length = post.field("Content-Length")?.parse().ok()?;
    reader.take(length).read_to_string(&mut post.body).ok()?;
    Some(post)
}
