//! All connections of the meter, on one thread: made, read in rounds, and written to.
//!
//! Lanes are numbered: the senders first, one for each room, then the members, dealt out to the
//! rooms in turn. No socket ever blocks.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::BenchError;
use super::target::{Target, agreed};
use super::wire::{CLOSE, CONTINUATION, PING, TEXT, cut};
use crate::websocket::client::{ClientFrame, masked};

/// How many handshakes may be under way: fewer than any server's backlog of connections.
const HANDSHAKES: usize = 64;

/// How long a handshake's answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How often those that are late are looked for.
const GLANCE: Duration = Duration::from_millis(10);

/// Between two looks at the handshakes when all of them are under way, so that one look finds several
/// answers: the meter shares the machine with the server, and a look at each answer would cost as much
/// as the answer.
const ANSWERS_GATHER: Duration = Duration::from_millis(1);

/// What is read at once; also the longest frame that is taken.
const READ_BYTES: usize = 256 * 1024;

/// Between two looks at all sockets, so long for each of them: a look costs some 50 ns a socket, and
/// without a pause the meter would do little else while a message is on its way to a thousand
/// members. It is also by how much a measured time may be too long.
const PAUSE_PER_SOCKET: Duration = Duration::from_nanos(500);

/// So few sockets cost nothing to look at.
const FEW: usize = 64;

/// Whose connections, and how many.
#[derive(Debug, Clone)]
pub(super) struct Guests {
    /// What the names of users and rooms begin with.
    pub(super) prefix: String,
    /// Tells this crowd's rooms from those of an earlier one.
    pub(super) run: u32,
    pub(super) senders: usize,
    pub(super) members: usize,
    pub(super) rooms: usize,
    /// How many connect in a second, at most; 0 for no limit.
    pub(super) ramp: f64,
}

impl Guests {
    pub(super) fn count(&self) -> usize {
        self.senders + self.members
    }

    /// The room of a lane.
    pub(super) fn room(&self, lane: usize) -> usize {
        match lane.checked_sub(self.senders) {
            None => lane,
            Some(member) => member % self.rooms,
        }
    }

    fn names(&self, lane: usize) -> (String, String) {
        let Self { prefix, run, .. } = self;
        let user = match lane.checked_sub(self.senders) {
            None => format!("{prefix}-sender-{lane}"),
            Some(member) => format!("{prefix}-{member}"),
        };
        (user, format!("{prefix}-{run:x}-{}", self.room(lane)))
    }
}

/// One connection's bytes.
#[derive(Debug, Default)]
struct Lane {
    /// The beginning of a frame whose end is to come.
    begun: Vec<u8>,
    /// What the socket did not take yet.
    out: Vec<u8>,
    /// Why it ended, once it has.
    ended: Option<String>,
}

/// Whoever wants to know what is heard.
pub(super) trait Listener {
    /// A text message came on a lane.
    fn hears(&mut self, lane: usize, payload: &[u8], now: Instant);

    /// A lane's connection ended.
    fn loses(&mut self, _lane: usize) {}

    /// Between the readings of a round, so that sending is not kept waiting by them.
    fn meanwhile(&mut self, _now: Instant, _mouth: &mut Mouth<'_>) {}
}

/// The writing side of a crowd.
pub(super) struct Mouth<'a> {
    sockets: &'a [TcpStream],
    lanes: &'a mut [Lane],
}

impl Mouth<'_> {
    /// Whether the lane has taken all that was said on it.
    pub(super) fn is_free(&self, lane: usize) -> bool {
        self.lanes[lane].out.is_empty()
    }

    /// Says ready-made frames on a lane.
    pub(super) fn say(&mut self, lane: usize, frames: &[u8]) {
        self.lanes[lane].out.extend_from_slice(frames);
        self.flush(lane);
    }

    fn flush(&mut self, lane: usize) {
        let state = &mut self.lanes[lane];
        while !state.out.is_empty() && state.ended.is_none() {
            match (&self.sockets[lane]).write(&state.out) {
                Ok(count) => drop(state.out.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => state.ended = Some(error.to_string()),
            }
        }
    }
}

/// The connections.
pub(super) struct Crowd {
    pub(super) guests: Guests,
    sockets: Vec<TcpStream>,
    lanes: Vec<Lane>,
    scratch: Vec<u8>,
    /// The lanes that are open.
    open: Vec<usize>,
}

impl Crowd {
    /// Connects everybody. The senders first: they hear nothing of the rush.
    pub(super) fn gather(
        target: &Target,
        guests: Guests,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self, BenchError> {
        let unreachable = |error| BenchError::Unreachable(target.to_string(), error);
        let to = target.address().map_err(unreachable)?;
        let begin = Instant::now();
        let count = guests.count();
        let mut crowd = Self {
            guests,
            sockets: Vec::with_capacity(count),
            lanes: Vec::with_capacity(count),
            scratch: vec![0; READ_BYTES],
            open: (0..count).collect(),
        };
        let mut waiting = VecDeque::new();
        while crowd.sockets.len() < count || !waiting.is_empty() {
            let lane = crowd.sockets.len();
            let due = match crowd.guests.ramp {
                0.0 => begin,
                ramp => begin + Duration::from_secs_f64(lane as f64 / ramp),
            };
            let may_call = lane < count && waiting.len() < HANDSHAKES;
            if may_call && Instant::now() >= due {
                let (user, room) = crowd.guests.names(lane);
                let socket = target.call(to, &user, &room).map_err(unreachable)?;
                crowd.sockets.push(socket);
                crowd.lanes.push(Lane::default());
                waiting.push_back((lane, Instant::now() + ANSWER_WITHIN));
                // While there are more to call, answers are only glanced at.
                if waiting.len() < HANDSHAKES {
                    continue;
                }
            }
            let glance = match may_call {
                true => due.saturating_duration_since(Instant::now()).min(GLANCE),
                false => GLANCE,
            };
            if waiting.len() == HANDSHAKES {
                thread::sleep(ANSWERS_GATHER);
            }
            crowd.take_answers(target, &mut waiting, glance)?;
            progress(crowd.sockets.len() - waiting.len());
        }
        Ok(crowd)
    }

    fn take_answers(
        &mut self,
        target: &Target,
        waiting: &mut VecDeque<(usize, Instant)>,
        glance: Duration,
    ) -> Result<(), BenchError> {
        let mut fds: Vec<_> = waiting
            .iter()
            .map(|&(lane, _)| PollFd::new(self.sockets[lane].as_fd(), PollFlags::POLLIN))
            .collect();
        look(&mut fds, glance)?;
        let ready: Vec<_> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        let refused = |why| BenchError::Refused(target.to_string(), why);
        let mut still = VecDeque::new();
        for (&(lane, deadline), ready) in waiting.iter().zip(ready) {
            if !ready {
                if Instant::now() > deadline {
                    return Err(refused("nothing, to a WebSocket handshake".to_owned()));
                }
                still.push_back((lane, deadline));
                continue;
            }
            let begun = &mut self.lanes[lane].begun;
            match (&self.sockets[lane]).read(&mut self.scratch) {
                Ok(0) => return Err(refused("by closing the connection".to_owned())),
                Ok(count) => begun.extend_from_slice(&self.scratch[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(refused(error.to_string())),
            }
            if begun.len() > READ_BYTES / 2 {
                return Err(refused("more than a handshake".to_owned()));
            }
            match agreed(begun).map_err(refused)? {
                Some(end) => drop(begun.drain(..end)),
                None => still.push_back((lane, deadline)),
            }
        }
        *waiting = still;
        Ok(())
    }

    /// Why a lane ended, if it has.
    pub(super) fn ended(&self, lane: usize) -> Option<&str> {
        self.lanes[lane].ended.as_deref()
    }

    /// How many members are gone, and why one of them is.
    pub(super) fn gone(&self) -> (usize, Option<&str>) {
        let members = &self.lanes[self.guests.senders..];
        let mut gone = members.iter().filter_map(|lane| lane.ended.as_deref());
        let first = gone.next();
        (gone.count() + usize::from(first.is_some()), first)
    }

    /// The writing side.
    pub(super) fn mouth(&mut self) -> Mouth<'_> {
        Mouth {
            sockets: &self.sockets,
            lanes: &mut self.lanes,
        }
    }

    /// Reads whatever has come until `until`; at least one look is taken.
    pub(super) fn listen(
        &mut self,
        listener: &mut impl Listener,
        until: Instant,
    ) -> Result<(), BenchError> {
        let pause = match self.sockets.len() {
            0..FEW => Duration::ZERO,
            count => PAUSE_PER_SOCKET * count as u32,
        };
        let Self {
            guests,
            sockets,
            lanes,
            scratch,
            open,
        } = self;
        let mut fds: Vec<_> = open
            .iter()
            .map(|&lane| PollFd::new(sockets[lane].as_fd(), PollFlags::POLLIN))
            .collect();
        let mut ending = false;
        loop {
            // The senders come first.
            for (fd, &lane) in fds.iter_mut().zip(&*open).take(guests.senders) {
                let mut events = PollFlags::POLLIN;
                events.set(PollFlags::POLLOUT, !lanes[lane].out.is_empty());
                fd.set_events(events);
            }
            look(&mut fds, until.saturating_duration_since(Instant::now()))?;
            let mut now = Instant::now();
            for (fd, &lane) in fds.iter().zip(&*open) {
                if fd.any() != Some(true) {
                    continue;
                }
                now = Instant::now();
                let heard = hear(&sockets[lane], &mut lanes[lane], scratch, |payload| {
                    listener.hears(lane, payload, now);
                });
                if let Err(why) = heard {
                    lanes[lane].ended = Some(why);
                    listener.loses(lane);
                    ending = true;
                }
                let mut mouth = Mouth { sockets, lanes };
                mouth.flush(lane);
                listener.meanwhile(now, &mut mouth);
            }
            listener.meanwhile(now, &mut Mouth { sockets, lanes });
            if ending || now >= until {
                break;
            }
            thread::sleep(pause.min(until.saturating_duration_since(now)));
        }
        drop(fds);
        if ending {
            open.retain(|&lane| lanes[lane].ended.is_none());
        }
        Ok(())
    }
}

impl Drop for Crowd {
    /// Everybody says goodbye, so that nobody waits for them to come back.
    fn drop(&mut self) {
        let goodbye = masked(ClientFrame::Goodbye);
        let mut mouth = self.mouth();
        for lane in 0..mouth.lanes.len() {
            mouth.say(lane, &goodbye);
        }
    }
}

/// Waits until one of them is ready, or the time is up.
fn look(fds: &mut [PollFd<'_>], within: Duration) -> Result<(), BenchError> {
    match ppoll(fds, Some(TimeSpec::from_duration(within)), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(BenchError::Machine(errno.into())),
    }
}

/// Reads once, and takes what is whole. An error is the end of the connection.
fn hear(
    mut socket: &TcpStream,
    lane: &mut Lane,
    scratch: &mut [u8],
    mut text: impl FnMut(&[u8]),
) -> Result<(), String> {
    let begun = lane.begun.len();
    scratch[..begun].copy_from_slice(&lane.begun);
    let count = match socket.read(&mut scratch[begun..]) {
        Ok(0) => return Err("it closed the connection".to_owned()),
        Ok(count) => count,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error.to_string()),
    };
    let bytes = &scratch[..begun + count];
    let mut at = 0;
    while let Some(frame) = cut(&bytes[at..]).map_err(|masked| masked.to_string())? {
        match frame.opcode {
            TEXT | CONTINUATION => text(frame.payload),
            PING => {
                let pong = masked(ClientFrame::Pong(frame.payload));
                lane.out.extend_from_slice(&pong);
            }
            CLOSE => return Err(goodbye(frame.payload)),
            _ => {}
        }
        at += frame.length;
    }
    if bytes.len() - at >= scratch.len() / 2 {
        return Err("it sent a frame that is too long for this meter".to_owned());
    }
    lane.begun.clear();
    lane.begun.extend_from_slice(&bytes[at..]);
    Ok(())
}

fn goodbye(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let reason = String::from_utf8_lossy(reason);
            format!("it closed the connection: {code} {reason}")
                .trim_end()
                .to_owned()
        }
        _ => "it closed the connection".to_owned(),
    }
}
