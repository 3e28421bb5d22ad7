//! An outbox has two roads to its socket: whoever pushes writes at once, or the writer's thread does,
//! which is started for the first frame that has to wait. Whatever the two of them do to each other,
//! frames stay whole and in order.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use hubbub::hub::outbox::{Collected, Outbox, Pushed, Queue, StartWriter, outbox};
use hubbub::protocol::{Encoding, Priority};
use hubbub::stream::Stream;
use hubbub::websocket::code;
use hubbub::websocket::frame::{self, Frame};
use socket2::SockRef;

use crate::support::{DEADLINE, until};

const PUSHERS: usize = 4;
const FRAMES: usize = 3_000;
const BUDGET: usize = 1 << 20;

/// Two ends of a connection whose kernel buffers hold little, so that frames often go in part.
fn narrow_pair() -> (Arc<Stream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let far = TcpStream::connect(listener.local_addr().expect("its address")).expect("one end");
    let (near, _) = listener.accept().expect("the other end");
    SockRef::from(&near)
        .set_send_buffer_size(32 * 1024)
        .expect("a small buffer");
    SockRef::from(&far)
        .set_recv_buffer_size(32 * 1024)
        .expect("a small buffer");
    far.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    (Arc::new(Stream::plain(near)), far)
}

/// Who pushed it, its number, and as many bytes of filling as it says.
fn frame(pusher: usize, number: usize) -> Frame {
    let filling = number * 7919 % 700;
    let mut bytes = vec![pusher as u8];
    bytes.extend_from_slice(&(number as u32).to_be_bytes());
    bytes.extend_from_slice(&(filling as u16).to_be_bytes());
    bytes.resize(bytes.len() + filling, pusher as u8);
    bytes.into()
}

/// The writers of one outbox: at most one of them runs at a time.
struct Writers {
    near: Arc<Stream>,
    /// A writer ends when nothing was queued for this time.
    rest: Duration,
    started: AtomicUsize,
    written: AtomicUsize,
    running: AtomicUsize,
}

impl Writers {
    fn new(near: &Arc<Stream>, rest: Duration) -> Arc<Self> {
        Arc::new(Self {
            near: Arc::clone(near),
            rest,
            started: AtomicUsize::new(0),
            written: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
        })
    }
}

/// What the writer's thread does. At the last frame it tells how much was written.
fn write(writers: &Arc<Writers>, mut queue: Queue, last: &mpsc::Sender<usize>) {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let Some(collected) = queue.collect_by(Instant::now() + writers.rest, &mut bytes) else {
            let again = queue.rest(|queue| {
                writers.running.fetch_sub(1, Ordering::SeqCst);
                starter(writers, queue, last.clone())
            });
            match again {
                Some(busy) => queue = busy,
                None => return,
            }
            continue;
        };
        writers.near.socket().write_all(&bytes).expect("it is read");
        writers.written.fetch_add(bytes.len(), Ordering::SeqCst);
        if collected == Collected::Last {
            writers
                .near
                .socket()
                .shutdown(Shutdown::Write)
                .expect("an end");
            let _ = last.send(writers.written.load(Ordering::SeqCst));
            return;
        }
        queue.written();
    }
}

fn starter(writers: &Arc<Writers>, queue: Queue, last: mpsc::Sender<usize>) -> StartWriter {
    let writers = Arc::clone(writers);
    Box::new(move || {
        assert_eq!(writers.running.fetch_add(1, Ordering::SeqCst), 0);
        writers.started.fetch_add(1, Ordering::SeqCst);
        thread::spawn(move || write(&writers, queue, &last));
        true
    })
}

/// Lets the outbox start its writer, when it needs one.
fn starts_writer(outbox: &Outbox, near: &Arc<Stream>, queue: Queue) -> Receiver<usize> {
    let (last, written) = mpsc::channel();
    let writers = Writers::new(near, DEADLINE);
    outbox.start_writer_with(starter(&writers, queue, last));
    written
}

/// Pushes its frames in bursts and one by one, so that the writer is now busy and now idle.
fn push(outbox: &Outbox, pusher: usize, read: &AtomicUsize, pushed: &AtomicUsize) {
    let deadline = Instant::now() + DEADLINE;
    for number in 0..FRAMES {
        let frame = frame(pusher, number);
        // An outbox that is full gives its owner up, which is not the question here.
        while pushed.load(Ordering::SeqCst) - read.load(Ordering::SeqCst) > BUDGET / 2 {
            assert!(Instant::now() < deadline, "nothing is read any more");
            thread::yield_now();
        }
        pushed.fetch_add(frame.len(), Ordering::SeqCst);
        outbox.push(frame, Priority::High);
        if number % 50 < 20 {
            thread::yield_now();
        }
        if number % 50 == 0 {
            thread::sleep(Duration::from_millis(2)); // lets the writer become idle
        }
    }
}

/// Reads everything, and checks that each pusher's frames are whole, in order, and all there.
fn check(mut far: TcpStream, read: &AtomicUsize) {
    let mut next = [0_u32; PUSHERS];
    let mut head = [0; 7];
    let mut filling = [0; 700];
    while next.iter().any(|&number| number < FRAMES as u32) {
        far.read_exact(&mut head).expect("a head");
        let pusher = usize::from(head[0]);
        assert!(pusher < PUSHERS, "a frame was torn");
        let number = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        assert_eq!(number, next[pusher], "pusher {pusher}");
        next[pusher] += 1;
        let filling = &mut filling[..usize::from(u16::from_be_bytes([head[5], head[6]]))];
        far.read_exact(filling).expect("its filling");
        assert!(
            filling.iter().all(|&byte| byte == head[0]),
            "a frame was torn"
        );
        let total = read.fetch_add(7 + filling.len(), Ordering::SeqCst);
        if total / 200_000 != (total + 7 + filling.len()) / 200_000 {
            thread::sleep(Duration::from_millis(5)); // lets the kernel's buffers fill
        }
    }
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).expect("the end");
    assert_eq!(rest[..1], [0x88], "a close frame, and nothing else");
    assert_eq!(rest.len(), 4);
}

/// Returns how many writers were started.
fn frames_stay_whole_and_in_order(rest: Duration) -> usize {
    let (near, far) = narrow_pair();
    let (outbox, queue) = outbox(Encoding::Text, 4 * BUDGET, Some(Arc::clone(&near)));
    let writers = Writers::new(&near, rest);
    outbox.start_writer_with(starter(&writers, queue, mpsc::channel().0));
    let (read, pushed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| check(far, &read));
        thread::scope(|scope| {
            for pusher in 0..PUSHERS {
                let (outbox, read, pushed) = (&outbox, &read, &pushed);
                scope.spawn(move || push(outbox, pusher, read, pushed));
            }
        });
        outbox.close(code::NORMAL, "");
    });
    let pushed = pushed.into_inner();
    let by_writer = writers.written.load(Ordering::SeqCst);
    assert!(
        by_writer > pushed / 100,
        "the writer's road was used: {by_writer} of {pushed}"
    );
    assert!(
        by_writer < pushed * 99 / 100,
        "and the other one: {by_writer} of {pushed}"
    );
    writers.started.load(Ordering::SeqCst)
}

#[test]
fn frames_stay_whole_and_in_order_on_both_roads() {
    assert_eq!(frames_stay_whole_and_in_order(DEADLINE), 1);
}

#[test]
fn frames_stay_whole_and_in_order_while_writers_end_and_are_started_again() {
    let started = frames_stay_whole_and_in_order(Duration::ZERO);
    assert!(started > 1, "{started} writers");
}

/// A frame that went in part is finished before anything else, also when its owner is given up.
#[test]
fn a_frame_that_went_in_part_is_finished_before_the_close_frame() {
    let (near, mut far) = narrow_pair();
    let (outbox, queue) = outbox(Encoding::Text, 1000, Some(Arc::clone(&near)));
    let large: Frame = vec![b'x'; 1 << 20].into();
    outbox.push(Arc::clone(&large), Priority::High);
    outbox.push(vec![b'y'; 600].into(), Priority::High);
    outbox.push(vec![b'z'; 600].into(), Priority::High);
    assert!(outbox.is_discarding(), "nobody reads");
    let received = thread::scope(|scope| {
        scope.spawn(|| write(&Writers::new(&near, DEADLINE), queue, &mpsc::channel().0));
        let mut received = Vec::new();
        far.read_to_end(&mut received).expect("all of it");
        received
    });
    assert_eq!(received[..large.len()], large[..]);
    let rest = &received[large.len()..];
    assert_eq!(rest[0], 0x88, "what was queued behind it is dropped");
    assert_eq!(rest[2..4], code::TRY_AGAIN_LATER.to_be_bytes());
}

#[test]
fn what_goes_at_once_needs_no_writer_and_neither_does_the_answer_to_a_goodbye() {
    let (near, mut far) = narrow_pair();
    let (outbox, queue) = outbox(Encoding::Text, 1000, Some(Arc::clone(&near)));
    let writer = starts_writer(&outbox, &near, queue);
    outbox.push(Frame::from(*b"hello"), Priority::High);
    outbox.close_in_reply(Frame::from(*b"bye"), "");
    outbox.push(Frame::from(*b"too late"), Priority::High);
    assert!(writer.recv().is_err(), "what would start it is dropped");
    assert_eq!(Arc::strong_count(&outbox), 1, "and with it the queue");
    near.socket().shutdown(Shutdown::Write).expect("an end");
    let mut received = Vec::new();
    far.read_to_end(&mut received).expect("all of it");
    assert_eq!(received, b"hellobye");
}

#[test]
fn the_answer_to_a_goodbye_comes_behind_what_waits() {
    let (near, mut far) = narrow_pair();
    let (outbox, queue) = outbox(Encoding::Text, BUDGET, Some(Arc::clone(&near)));
    let writer = starts_writer(&outbox, &near, queue);
    let large: Frame = vec![b'x'; BUDGET].into();
    outbox.push(Arc::clone(&large), Priority::High);
    outbox.close_in_reply(Frame::from(*b"bye"), "");
    let mut received = Vec::new();
    far.read_to_end(&mut received).expect("all of it");
    assert!(received.starts_with(&large));
    assert_eq!(&received[large.len()..], b"bye");
    assert!(writer.recv().expect("it was started") > 0);
}

/// A goodbye that is larger than what the kernel takes at once goes in part, and is not said twice.
#[test]
fn a_goodbye_that_goes_in_part_is_finished_by_the_writer() {
    let (near, mut far) = narrow_pair();
    let (outbox, queue) = outbox(Encoding::Text, BUDGET, Some(Arc::clone(&near)));
    let writer = starts_writer(&outbox, &near, queue);
    let large: Frame = vec![b'x'; BUDGET].into();
    outbox.close_in_reply(Arc::clone(&large), "");
    let mut received = Vec::new();
    far.read_to_end(&mut received).expect("all of it");
    assert_eq!(received.len(), large.len());
    assert!(writer.recv().expect("it was started") < large.len());
}

#[test]
fn a_frame_of_which_nothing_goes_at_once_takes_its_part_of_the_budget() {
    let (near, _far) = narrow_pair();
    let fills = || (&mut near.socket()).write(&[b'x'; 1024]).is_ok();
    near.socket().set_nonblocking(true).expect("a mode");
    // The kernel may take a little more once it has passed some on.
    while (0..100).any(|_| fills()) {
        thread::yield_now();
    }
    let (outbox, _queue) = outbox(Encoding::Text, 100, Some(Arc::clone(&near)));
    let pushed = |bytes| outbox.push(vec![b'x'; bytes].into(), Priority::Low);
    assert_eq!(pushed(60), Pushed::Shed);
    assert_eq!(pushed(50), Pushed::Taken);
}

#[test]
fn a_peer_that_is_gone_costs_no_thread() {
    let (near, far) = narrow_pair();
    let (outbox, queue) = outbox(Encoding::Text, BUDGET, Some(Arc::clone(&near)));
    let writer = starts_writer(&outbox, &near, queue);
    SockRef::from(&far)
        .set_linger(Some(Duration::ZERO))
        .expect("a reset");
    drop(far);
    until("it is noticed", || {
        outbox.push(Frame::from(*b"hello"), Priority::High);
        (!outbox.is_open()).then_some(())
    });
    assert!(writer.recv().is_err(), "what would start it is dropped");
    assert_eq!(Arc::strong_count(&outbox), 1, "and with it the queue");
    assert_eq!(near.read(&mut [0]).expect("an end"), 0);
}

/// An outbox that no writer can be started for, and both ends of its socket.
fn without_a_writer() -> (Arc<Outbox>, Arc<Stream>, TcpStream) {
    let (near, far) = narrow_pair();
    let (outbox, _) = outbox(Encoding::Text, BUDGET, Some(Arc::clone(&near)));
    outbox.start_writer_with(Box::new(|| false));
    near.socket()
        .set_read_timeout(Some(DEADLINE))
        .expect("a time-out");
    (outbox, near, far)
}

/// What the reader does, once it is woken.
fn read_and_say_goodbye(outbox: &Outbox, near: &Stream) {
    assert_eq!(near.read(&mut [0]).expect("the end"), 0, "it is woken");
    assert!(!outbox.wait_for_space(|| false));
    let unsaid = outbox.take_unsaid().expect("a goodbye");
    near.socket().write_all(&unsaid).expect("it is read");
    near.socket().shutdown(Shutdown::Write).expect("an end");
}

#[test]
fn without_a_thread_to_write_with_a_goodbye_is_said_at_once() {
    let (outbox, _near, mut far) = without_a_writer();
    outbox.close(code::RESTART, "");
    assert_eq!(outbox.take_unsaid(), None);
    let mut received = Vec::new();
    far.read_to_end(&mut received).expect("the end");
    assert_eq!(received, *frame::close(code::RESTART, ""));
}

#[test]
fn a_goodbye_that_does_not_go_at_once_is_said_by_the_reader() {
    let (outbox, near, mut far) = without_a_writer();
    near.socket().set_nonblocking(true).expect("a mode");
    let mut filled = 0;
    while let Ok(count) = near.socket().write(&[0; 1000]) {
        filled += count;
    }
    near.socket().set_nonblocking(false).expect("a mode");
    outbox.close(code::RESTART, "");
    assert!(!outbox.is_discarding(), "it is no slow consumer");
    thread::scope(|scope| {
        scope.spawn(|| read_and_say_goodbye(&outbox, &near));
        let mut received = Vec::new();
        far.read_to_end(&mut received).expect("all of it");
        assert_eq!(received[filled..], *frame::close(code::RESTART, ""));
    });
}

/// The frame that went in part is finished before it. The peer comes back and resumes.
#[test]
fn without_a_thread_to_write_with_a_user_is_let_go_with_1013() {
    let (outbox, near, mut far) = without_a_writer();
    let large: Frame = vec![b'x'; BUDGET].into();
    outbox.push(Arc::clone(&large), Priority::High);
    assert!(!outbox.is_open());
    outbox.push(Arc::clone(&large), Priority::High);
    outbox.close(code::RESTART, "");
    thread::scope(|scope| {
        scope.spawn(|| read_and_say_goodbye(&outbox, &near));
        let mut received = Vec::new();
        far.read_to_end(&mut received).expect("all of it");
        assert!(received.starts_with(&large));
        let goodbye = &received[large.len()..];
        assert!(frame::is_close(goodbye));
        assert_eq!(goodbye[2..4], code::TRY_AGAIN_LATER.to_be_bytes());
        assert_eq!(Some(&goodbye[4..]), outbox.why().map(str::as_bytes));
    });
}
