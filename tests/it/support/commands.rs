//! Commands to a server that may be down, frozen, or of another opinion.

use std::time::Duration;

/// How long a server may take for an answer. A frozen one gives none.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Runs a command, such as `&["CLUSTER", "INFO"]`.
pub(crate) fn ask<T: redis::FromRedisValue>(port: u16, words: &[&str]) -> redis::RedisResult<T> {
    ask_within(ANSWERS_WITHIN, port, words)
}

pub(crate) fn ask_within<T: redis::FromRedisValue>(
    limit: Duration,
    port: u16,
    words: &[&str],
) -> redis::RedisResult<T> {
    redis::cmd(words[0])
        .arg(&words[1..])
        .query(&mut connect(port, limit)?)
}

/// Runs commands, all at once; the error is that of the first one that failed.
pub(crate) fn ask_all(port: u16, commands: &[Vec<String>]) -> redis::RedisResult<()> {
    let mut pipe = redis::pipe();
    for words in commands {
        pipe.cmd(&words[0]).arg(&words[1..]).ignore();
    }
    pipe.exec(&mut connect(port, ANSWERS_WITHIN)?)
}

fn connect(port: u16, limit: Duration) -> redis::RedisResult<redis::Connection> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    let connection = client.get_connection_with_timeout(limit)?;
    connection.set_read_timeout(Some(limit))?;
    Ok(connection)
}
