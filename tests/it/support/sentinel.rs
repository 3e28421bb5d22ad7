//! A master, a replica, and three sentinels, on this machine.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::commands;
use super::redis::Redis;
use super::until;

/// The name by which the sentinels know the master.
const NAME: &str = "mymaster";

/// A failover that did not happen by then was given up. Longer than the sentinels' own time for it, and less than a
/// deadline.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(7);

pub(crate) struct Sentinels {
    servers: [Redis; 2],
    sentinels: [Redis; 3],
    /// The server that is down.
    killed: Option<usize>,
}

impl Sentinels {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Servers that are told this as well, such as `&["--appendonly", "yes"]`.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let arguments = [&["--repl-diskless-sync-delay", "0"], arguments].concat();
        let master = Redis::start_with(&arguments);
        let port = master.port();
        // Sentinel changes this file after a failover; an argument would be true for ever.
        let replica = Redis::start_from(&format!("replicaof 127.0.0.1 {port}\n"), &arguments);
        let config = format!(
            "sentinel monitor {NAME} 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds {NAME} 1000\n\
             sentinel failover-timeout {NAME} 5000\n\
             sentinel parallel-syncs {NAME} 1\n"
        );
        let sentinels = Self {
            servers: [master, replica],
            sentinels: std::array::from_fn(|_| Redis::start_from(&config, &["--sentinel"])),
            killed: None,
        };
        sentinels.wait_until_whole();
        sentinels
    }

    /// Waits until all five are up and know each other, and the replica has what the master has.
    pub(crate) fn wait_until_whole(&self) {
        until("the sentinels know the servers and each other", || {
            let first = self.named_by(0)?;
            for number in 0..self.sentinels.len() {
                let master: BTreeMap<String, String> = self.ask(number, &["MASTER", NAME])?;
                let replicas: Vec<BTreeMap<String, String>> =
                    self.ask(number, &["REPLICAS", NAME])?;
                let [replica] = &replicas[..] else {
                    return None;
                };
                let whole = self.named_by(number)? == first
                    && master["flags"] == "master"
                    && master["num-other-sentinels"] == "2"
                    && replica["flags"] == "slave";
                whole.then_some(())?;
            }
            // The sentinels themselves look at this every ten seconds only.
            let [master, replica] = [first, 1 - first].map(|number| {
                let info = commands::ask(self.servers[number].port(), &["INFO", "replication"]);
                info.unwrap_or_else(|_| String::new())
            });
            let whole = master.contains("state=online") && replica.contains("link_status:up");
            whole.then_some(())
        });
    }

    pub(crate) fn url(&self) -> String {
        let hosts = self.sentinels.iter();
        let hosts: Vec<_> = hosts
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port()))
            .collect();
        format!("redis+sentinel://{}/{NAME}", hosts.join(","))
    }

    /// `None` if this sentinel is down, frozen, or refuses.
    fn ask<T: redis::FromRedisValue>(&self, number: usize, words: &[&str]) -> Option<T> {
        let words = [&["SENTINEL"], words].concat();
        commands::ask(self.sentinels[number].port(), &words).ok()
    }

    /// The number of the server that this sentinel names, if it answers.
    fn named_by(&self, number: usize) -> Option<usize> {
        let (_, port): (String, u16) = self.ask(number, &["GET-MASTER-ADDR-BY-NAME", NAME])?;
        self.servers.iter().position(|server| server.port() == port)
    }

    fn named(&self) -> usize {
        until("a sentinel names the master", || {
            (0..self.sentinels.len()).find_map(|number| self.named_by(number))
        })
    }

    /// The server that the sentinels name as the master. It may be down.
    pub(crate) fn master(&self) -> &Redis {
        &self.servers[self.named()]
    }

    /// The server that is not [`Sentinels::master`].
    pub(crate) fn other(&self) -> &Redis {
        &self.servers[1 - self.named()]
    }

    pub(crate) fn sentinel(&self, number: usize) -> &Redis {
        &self.sentinels[number]
    }

    pub(crate) fn sentinel_mut(&mut self, number: usize) -> &mut Redis {
        &mut self.sentinels[number]
    }

    /// Kills the master, and does not wait for what the sentinels do.
    pub(crate) fn kill_master(&mut self) {
        let master = self.named();
        self.servers[master].kill();
        self.killed = Some(master);
    }

    /// Starts the killed server again: as a master, until the sentinels tell it otherwise. It is empty unless it
    /// was told to remember.
    pub(crate) fn restart_killed(&mut self) {
        let killed = self.killed.take().expect("one was killed");
        self.servers[killed].start_again();
    }

    /// A planned failover. Returns once all sentinels name the other server.
    pub(crate) fn fail_over(&self) {
        let old = self.master().port();
        let ask = || {
            (0..self.sentinels.len()).find_map(|number| self.ask::<()>(number, &["FAILOVER", NAME]))
        };
        until("the sentinels begin a failover", ask);
        // They may give one up, while a server is slow to answer.
        let mut asked = Instant::now();
        until("all sentinels name the new master", || {
            let named = self.named_by_all();
            if asked.elapsed() > GIVEN_UP_AFTER && named.iter().all(|&port| port == old) {
                asked = Instant::now();
                ask();
            }
            (!named.is_empty() && !named.contains(&old)).then_some(())
        });
    }

    /// The ports that the sentinels name that answer.
    fn named_by_all(&self) -> Vec<u16> {
        let named = (0..self.sentinels.len()).filter_map(|number| self.named_by(number));
        named.map(|number| self.servers[number].port()).collect()
    }

    /// Waits until all sentinels that answer name another server than the one on this port.
    pub(crate) fn wait_until_named_other_than(&self, port: u16) {
        until("all sentinels name the new master", || {
            let named = self.named_by_all();
            (!named.is_empty() && !named.contains(&port)).then_some(())
        });
    }
}
