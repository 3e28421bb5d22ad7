//! Sentinel: which server is the master now (<https://redis.io/docs/latest/develop/reference/sentinel-clients/>).
//!
//! A watcher asks every half second, since an old master goes on saying that it is one, and acknowledges what
//! is then thrown away. When the answer changes, the [generation](SentinelWatch::generation) grows, and those
//! that are connected to the old master end their connection.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::{info, warn};
use redis::cmd;

use super::address::{Login, RedisServer, describe};
use crate::threads;
use crate::threads::lock;

/// The pause between two questions.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// The time that a Sentinel has to answer, before the next one is asked.
const ANSWERS_WITHIN: Duration = Duration::from_millis(300);

/// An answer that is older than this is not connected to.
const ANSWER_LASTS: Duration = Duration::from_secs(3);

/// The handle of the watcher. Dropping it ends the thread.
pub(super) struct SentinelWatch {
    shared: Arc<Watched>,
    stop: Sender<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Watched {
    known: Mutex<Known>,
    generation: AtomicU64,
    /// Whether the master that was named could not be used.
    doubted: AtomicBool,
}

/// What the Sentinels said last.
struct Known {
    /// The master's `host:port`.
    place: String,
    server: RedisServer,
    at: Instant,
}

impl SentinelWatch {
    /// Asks for the master, and starts the thread. The error is a sentence.
    pub(super) fn start(
        sentinels: &[RedisServer],
        name: &str,
        master: &Login,
    ) -> Result<io::Result<Self>, String> {
        let mut asked = Asked {
            sentinels: sentinels.to_vec(),
            name: name.to_owned(),
        };
        let place = asked.master()?;
        let known = Known {
            server: master.at(&place)?,
            place,
            at: Instant::now(),
        };
        Ok(Self::begin(known, asked, master))
    }

    /// Starts the thread, from what is known.
    fn begin(known: Known, asked: Asked, master: &Login) -> io::Result<Self> {
        let shared = Arc::new(Watched {
            known: Mutex::new(known),
            generation: AtomicU64::new(0),
            doubted: AtomicBool::new(false),
        });
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let thread = threads::spawn_vital("sentinel", {
            let (shared, master) = (Arc::clone(&shared), master.clone());
            move || watch(&shared, asked, &master, &stopped)
        })?;
        Ok(Self {
            shared,
            stop,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The master. The error is a sentence.
    pub(super) fn master(&self) -> Result<RedisServer, String> {
        let known = lock(&self.shared.known);
        if known.at.elapsed() > ANSWER_LASTS {
            return Err("no Sentinel says which server is the master".to_owned());
        }
        Ok(known.server.clone())
    }

    /// The master could not be used: another Sentinel is asked next.
    pub(super) fn doubt(&self) {
        self.shared.doubted.store(true, Ordering::Release);
    }

    /// Grows when another server becomes the master.
    pub(super) fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }
}

impl Drop for SentinelWatch {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

fn watch(shared: &Watched, mut asked: Asked, master: &Login, stopped: &Receiver<()>) {
    let mut silent = false;
    while stopped.recv_timeout(WATCH_EVERY) == Err(RecvTimeoutError::Timeout) {
        if shared.doubted.swap(false, Ordering::AcqRel) {
            asked.sentinels.rotate_left(1);
        }
        let answer = asked
            .master()
            .and_then(|place| Ok((master.at(&place)?, place)));
        match answer {
            Ok((server, place)) => {
                silent = false;
                let mut known = lock(&shared.known);
                known.at = Instant::now();
                if known.place != place {
                    info!(
                        "Sentinel: {} is {place} now, after {}",
                        asked.name, known.place
                    );
                    known.place = place;
                    known.server = server;
                    shared.generation.fetch_add(1, Ordering::AcqRel);
                }
            }
            Err(why) => {
                if !std::mem::replace(&mut silent, true) {
                    warn!("Sentinel: {why}");
                }
            }
        }
    }
}

/// The Sentinels, and what they are asked for.
struct Asked {
    /// The one that answered last stands first.
    sentinels: Vec<RedisServer>,
    name: String,
}

impl Asked {
    /// Asks one Sentinel after the other where the master is. The error is a sentence.
    fn master(&mut self) -> Result<String, String> {
        let mut trouble = Vec::new();
        for index in 0..self.sentinels.len() {
            match self.ask(&self.sentinels[index]) {
                Ok(place) => {
                    self.sentinels[..=index].rotate_right(1);
                    return Ok(place);
                }
                Err(why) => trouble.push(format!("{}: {why}", self.sentinels[index].name())),
            }
        }
        Err(format!(
            "no Sentinel names the master ({})",
            trouble.join("; ")
        ))
    }

    fn ask(&self, sentinel: &RedisServer) -> Result<String, String> {
        let mut connection = sentinel.connect()?;
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
        let answer = connection
            .set_read_timeout(Some(ANSWERS_WITHIN))
            .and_then(|()| question.query::<Option<(String, u16)>>(&mut connection));
        match answer.map_err(|error| describe(&error))? {
            Some((host, port)) => Ok(place(&host, port)),
            None => Err(format!("it knows no master {:?}", self.name)),
        }
    }
}

/// `host:port`, with an IPv6 address in brackets.
pub(super) fn place(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::redis::address::{Form, RedisAddress};
    use crate::backplane::redis::source::Source;

    /// A watch that was just told of a master at which nobody listens, and whose thread knows no Sentinel.
    fn watch_of_nothing() -> SentinelWatch {
        let address = RedisAddress::parse("redis+sentinel://127.0.0.1:2/mine").expect("an address");
        let Form::Sentinel { name, master, .. } = address.0 else {
            panic!("a Sentinel")
        };
        let place = "127.0.0.1:1".to_owned();
        let known = Known {
            server: master.at(&place).expect("a server"),
            place,
            at: Instant::now(),
        };
        let sentinels = Vec::new();
        SentinelWatch::begin(known, Asked { sentinels, name }, &master).expect("a thread")
    }

    #[test]
    fn an_old_answer_is_not_connected_to() {
        let watch = watch_of_nothing();
        assert!(watch.master().is_ok());
        let old = Instant::now().checked_sub(2 * ANSWER_LASTS);
        lock(&watch.shared.known).at = old.expect("the machine runs for longer");
        assert!(watch.master().is_err());
    }

    #[test]
    fn the_thread_ends_with_its_handle_and_a_master_that_refuses_is_doubted() {
        let watch = watch_of_nothing();
        let shared = Arc::clone(&watch.shared);
        drop(watch);
        assert_eq!(Arc::strong_count(&shared), 1, "the thread has ended");
        let (stop, _) = crossbeam_channel::bounded(1);
        let watch = Arc::new(SentinelWatch {
            shared,
            stop,
            thread: Mutex::default(),
        });
        assert!(Source::Sentinel(Arc::clone(&watch)).connect().is_err());
        let doubted = &watch.shared.doubted;
        assert!(doubted.load(Ordering::Acquire), "another Sentinel is asked");
    }
}
