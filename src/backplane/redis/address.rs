//! Addresses: what `--redis` says, and how one server is connected to.
//!
//! A server is only used once it has said that it is what the address asks for ([`RedisServer::connect`]).

use std::fmt;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    Client, Connection, ConnectionAddr, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisError,
    Value,
};

use super::COMMAND_TIMEOUT;
use super::nature::{Nature, hello, refusal};

/// The time-out of a TCP connection, and then of its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The time-out of the first question on a connection.
const HELLO_TIMEOUT: Duration = Duration::from_millis(300);

/// The port of a Sentinel whose address names none.
const SENTINEL_PORT: &str = "26379";

/// One value of `--redis`. It shows itself without passwords.
#[derive(Clone)]
pub struct RedisAddress(pub(super) Form);

/// What an address names.
#[derive(Clone)]
pub(super) enum Form {
    /// One server.
    Server(RedisServer),
    /// The master that these Sentinels know under a name.
    Sentinel {
        sentinels: Vec<RedisServer>,
        name: String,
        master: Login,
    },
    /// A cluster, by some of its nodes.
    Cluster {
        seeds: Vec<RedisServer>,
        nodes: Login,
    },
}

/// Everything of a server's URL but its host and port.
#[derive(Clone)]
pub(super) struct Login {
    scheme: String,
    /// With its `@`; empty without a login.
    user: String,
    /// With its `/`; empty for database 0.
    database: String,
    nature: Nature,
}

impl Login {
    /// The server at this `host:port`.
    pub(super) fn at(&self, place: &str) -> Result<RedisServer, String> {
        let Self {
            scheme,
            user,
            database,
            nature,
        } = self;
        RedisServer::parse(&format!("{scheme}://{user}{place}{database}"), *nature)
    }
}

impl RedisAddress {
    /// Reads one of these forms; `rediss` in place of `redis` means TLS:
    ///
    /// - `redis://[user][:password@]host[:port][/db]`, or `unix:` and a path
    /// - `redis+sentinel://[user][:password@]host[:port],…/name[/db][?sentinel_user=…&sentinel_password=…]`
    /// - `redis+cluster://[user][:password@]host:port,…`
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
        let form = match scheme.split_once('+') {
            Some((scheme, kind)) if kind.eq_ignore_ascii_case("sentinel") => {
                sentinel(scheme, rest)?
            }
            Some((scheme, kind)) if kind.eq_ignore_ascii_case("cluster") => cluster(scheme, rest)?,
            _ => Form::Server(RedisServer::parse(url, Nature::Alone)?),
        };
        Ok(Self(form))
    }

    /// Whether these can serve together; if not, why.
    pub fn check_together(addresses: &[Self]) -> Result<(), String> {
        let is_cluster = |address: &Self| matches!(address.0, Form::Cluster { .. });
        if addresses.len() > 1 && addresses.iter().any(is_cluster) {
            return Err("a cluster spreads the rooms by itself; give its --redis alone".to_owned());
        }
        for (index, address) in addresses.iter().enumerate() {
            let name = address.name();
            if addresses[..index].iter().any(|other| other.name() == name) {
                return Err(format!("--redis has {name} twice"));
            }
        }
        Ok(())
    }

    /// The short name, for the log and the metrics.
    pub(super) fn name(&self) -> String {
        match &self.0 {
            Form::Server(server) => server.name().to_owned(),
            Form::Sentinel { name, .. } => name.clone(),
            Form::Cluster { seeds, .. } => names(seeds),
        }
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Server(server) => f.write_str(server.name()),
            Form::Sentinel {
                sentinels, name, ..
            } => write!(f, "{name}, by Sentinel at {}", names(sentinels)),
            Form::Cluster { seeds, .. } => write!(f, "the cluster of {}", names(seeds)),
        }
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn names(servers: &[RedisServer]) -> String {
    let names: Vec<_> = servers.iter().map(RedisServer::name).collect();
    names.join(", ")
}

fn sentinel(scheme: &str, rest: &str) -> Result<Form, String> {
    const LOOKS: &str = "it should look like redis+sentinel://127.0.0.1:26379,127.0.0.1:26380/name, \
                         with the name that the Sentinels have for the master";
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (user, rest) = split_login(rest);
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (name, database) = path.split_once('/').unwrap_or((path, ""));
    if hosts.is_empty() || name.is_empty() {
        return Err(LOOKS.to_owned());
    }
    let (mut sentinel_user, mut sentinel_password) = ("", "");
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("sentinel_user", value)) => sentinel_user = value,
            Some(("sentinel_password", value)) => sentinel_password = value,
            _ => {
                return Err(
                    "its only parameters are sentinel_user and sentinel_password".to_owned(),
                );
            }
        }
    }
    let login = match (sentinel_user, sentinel_password) {
        ("", "") => String::new(),
        (_, "") => return Err("sentinel_user needs a sentinel_password".to_owned()),
        (user, password) => format!("{user}:{password}@"),
    };
    let sentinels = Login {
        scheme: scheme.to_owned(),
        user: login,
        database: String::new(),
        nature: Nature::Sentinel,
    };
    let places = hosts.split(',').map(|host| {
        // An IPv6 address has colons inside its brackets.
        match host.rsplit(']').next().is_some_and(|end| end.contains(':')) {
            true => host.to_owned(),
            false => format!("{host}:{SENTINEL_PORT}"),
        }
    });
    let sentinels: Result<_, _> = places.map(|place| sentinels.at(&place)).collect();
    let database = match database.parse::<u32>() {
        Ok(number) => format!("/{number}"),
        Err(_) if database.is_empty() => String::new(),
        Err(_) => return Err("behind the name stands the number of a database".to_owned()),
    };
    let master = Login {
        scheme: scheme.to_owned(),
        user,
        database,
        nature: Nature::Alone,
    };
    // So that a wrong login or database is found now, and not when the master is known.
    master.at("127.0.0.1:6379")?;
    Ok(Form::Sentinel {
        sentinels: sentinels?,
        name: name.to_owned(),
        master,
    })
}

fn cluster(scheme: &str, rest: &str) -> Result<Form, String> {
    let (user, rest) = split_login(rest);
    let (hosts, path) = rest.split_once(['/', '?']).unwrap_or((rest, ""));
    if hosts.is_empty() {
        return Err(
            "it should look like redis+cluster://127.0.0.1:7001,127.0.0.1:7002, with some of the \
             cluster's nodes"
                .to_owned(),
        );
    }
    if !matches!(path, "" | "0") {
        return Err(
            "a cluster has no databases and no parameters: leave out what stands behind \
                    the nodes"
                .to_owned(),
        );
    }
    let nodes = Login {
        scheme: scheme.to_owned(),
        user,
        database: String::new(),
        nature: Nature::OfCluster,
    };
    let seeds: Result<_, _> = hosts.split(',').map(|place| nodes.at(place)).collect();
    Ok(Form::Cluster {
        seeds: seeds?,
        nodes,
    })
}

/// The login with its `@`, and the rest.
fn split_login(rest: &str) -> (String, &str) {
    match rest.rsplit_once('@') {
        Some((user, rest)) => (format!("{user}@"), rest),
        None => (String::new(), rest),
    }
}

/// One server, and how to log in there.
#[derive(Clone)]
pub(super) struct RedisServer {
    client: Client,
    name: String,
    /// The time-out of each step of connecting.
    step: Duration,
    nature: Nature,
}

impl RedisServer {
    fn parse(url: &str, nature: Nature) -> Result<Self, String> {
        if asks_for_tls(url) && !cfg!(feature = "tls") {
            return Err("this hubbub was built without TLS for Redis; \
                        cargo install --path . --features tls builds one with it"
                .to_owned());
        }
        let info = url.into_connection_info().map_err(|error| {
            let why = error.detail().unwrap_or("this is not the URL of a Redis");
            format!("{why}; it should look like redis://127.0.0.1:6379")
        })?;
        if let ConnectionAddr::TcpTls { insecure: true, .. } = info.addr() {
            return Err(
                "a certificate is always checked here; leave #insecure out, and name the file of \
                 your own authority in SSL_CERT_FILE"
                    .to_owned(),
            );
        }
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(5));
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(keepalive)
            .set_user_timeout(Duration::from_secs(10));
        let login = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3)
            // Each reply in a handshake has a time-out of its own, and nobody needs these two.
            .set_skip_set_lib_name();
        let (step, name) = match login.db() {
            0 => (CONNECT_TIMEOUT, info.addr().to_string()),
            // It is one more reply in the handshake.
            database => (CONNECT_TIMEOUT / 2, format!("{}/{database}", info.addr())),
        };
        let step = match nature {
            // There are others to ask.
            Nature::Sentinel => HELLO_TIMEOUT,
            Nature::Alone | Nature::OfCluster | Nature::Node => step,
        };
        let info = info.set_tcp_settings(tcp).set_redis_settings(login);
        let client = Client::open(info).map_err(|error| error.to_string())?;
        Ok(Self {
            client,
            name,
            step,
            nature,
        })
    }

    /// `host:port`, and the database if it is not 0.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Connects, and asks the server what it is. The error is a sentence.
    pub(super) fn connect(&self) -> Result<Connection, String> {
        self.connect_as(self.nature, self.step)
    }

    /// Connects to a node of a cluster, master or replica, for short questions. The error is a sentence.
    pub(super) fn connect_to_ask(&self) -> Result<Connection, String> {
        let connection = self.connect_as(Nature::Node, HELLO_TIMEOUT)?;
        let set = connection.set_read_timeout(Some(HELLO_TIMEOUT));
        set.map_err(|error| describe(&error))?;
        Ok(connection)
    }

    fn connect_as(&self, nature: Nature, step: Duration) -> Result<Connection, String> {
        let opened = self.client.get_connection_with_timeout(step);
        let mut connection = opened.map_err(|error| describe(&error))?;
        let mut ask = || {
            connection.set_write_timeout(Some(COMMAND_TIMEOUT))?;
            connection.set_read_timeout(Some(HELLO_TIMEOUT))?;
            let hello = hello().query::<Value>(&mut connection)?;
            connection.set_read_timeout(Some(COMMAND_TIMEOUT))?;
            Ok(hello)
        };
        let hello = ask().map_err(|error: RedisError| describe(&error))?;
        match refusal(&hello, nature) {
            None => Ok(connection),
            Some(why) => Err(why),
        }
    }
}

fn asks_for_tls(url: &str) -> bool {
    let scheme = url.split(':').next().unwrap_or_default();
    ["rediss", "valkeys"]
        .iter()
        .any(|tls| scheme.eq_ignore_ascii_case(tls))
}

/// A sentence for people; the crate's own text where it says it best.
pub(super) fn describe(error: &RedisError) -> String {
    if error.is_timeout() {
        return "it accepts connections but does not answer".to_owned();
    }
    if error.is_connection_refusal() {
        return "nothing listens there (connection refused)".to_owned();
    }
    // A TLS error comes as the text of an I/O error.
    let text = error.to_string();
    if text.contains("CertificateRequired") {
        return "it wants a certificate of ours, and there is none (tls-auth-clients no)"
            .to_owned();
    }
    if text.contains("certificate") {
        return format!(
            "its certificate is not trusted; SSL_CERT_FILE may name the file of your own authority ({text})"
        );
    }
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS" | "NOAUTH")) => {
            let why = error.detail().unwrap_or("wrong user or password");
            format!("it refuses the login: {why}")
        }
        (ErrorKind::Parse, _) => "what answers there does not speak the Redis protocol".to_owned(),
        (ErrorKind::RESP3NotSupported, _) => {
            "it is too old; Redis 6.2 or newer is needed".to_owned()
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses(url: &str, word: &str) {
        let why = RedisAddress::parse(url).expect_err(url);
        assert!(why.contains(word), "{url}: {why}");
    }

    #[test]
    fn every_form_is_read_and_shown_without_its_passwords() {
        for (url, shown) in [
            ("redis://h", "h:6379"),
            ("redis://u:secret@h:1/2", "h:1/2"),
            ("unix:/run/redis", "/run/redis"),
            (
                "redis+sentinel://u:secret@h,i:2/chat/3?sentinel_user=s&sentinel_password=secret",
                "chat, by Sentinel at h:26379, i:2",
            ),
            (
                "redis+sentinel://[::1],[::1]:2/chat",
                "chat, by Sentinel at ::1:26379, ::1:2",
            ),
            ("redis+cluster://:secret@h:1,i:2", "the cluster of h:1, i:2"),
        ] {
            let address = RedisAddress::parse(url).expect(url);
            assert_eq!(address.to_string(), shown);
            assert_eq!(format!("{address:?}"), shown);
        }
    }

    #[test]
    fn each_mistake_in_an_address_has_a_sentence() {
        refuses("http://h", "redis://");
        refuses("redis+other://h:1", "redis://");
        refuses("redis+sentinel://h:1", "name");
        refuses("redis+sentinel:///chat", "name");
        refuses("redis+sentinel://h/chat/x", "database");
        refuses(
            "redis+sentinel://h/chat?sentinel_user=s",
            "sentinel_password",
        );
        refuses("redis+sentinel://h/chat?db=1", "parameters");
        refuses("redis+sentinel://h:x/chat", "redis://");
        refuses("redis+cluster://", "nodes");
        refuses("redis+cluster://h:1/1", "databases");
        refuses("redis+cluster://h:1,:2", "redis://");
        refuses("ftp+cluster://h:1", "redis");
        #[cfg(not(feature = "tls"))]
        for url in [
            "rediss://h",
            "rediss+cluster://h:1",
            "rediss+sentinel://h/m",
        ] {
            refuses(url, "--features tls");
        }
    }

    #[test]
    fn addresses_that_cannot_serve_together_are_refused() {
        let check = |urls: &[&str]| {
            let addresses: Result<Vec<_>, _> =
                urls.iter().map(|url| RedisAddress::parse(url)).collect();
            RedisAddress::check_together(&addresses.expect("addresses"))
        };
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(
            check(&["redis://h:1", "redis://h:2", "redis://h:1/1"]),
            Ok(())
        );
        assert_eq!(
            check(&["redis+sentinel://h/a", "redis+sentinel://h/b"]),
            Ok(())
        );
        let twice = check(&["redis://h:1", "redis://u:p@h:1/0"]);
        assert!(twice.is_err_and(|why| why.contains("twice")));
        let more = check(&["redis+cluster://h:1", "redis://h:2"]);
        assert!(more.is_err_and(|why| why.contains("alone")));
    }

    #[test]
    fn only_the_schemes_of_tls_ask_for_it() {
        for (url, asks) in [
            ("rediss://h", true),
            ("VALKEYS://h", true),
            ("redis://h", false),
            ("unix:/run/rediss", false),
        ] {
            assert_eq!(asks_for_tls(url), asks, "{url}");
        }
    }

    #[test]
    fn each_step_of_a_handshake_with_one_more_reply_is_shorter() {
        let step = |url| RedisServer::parse(url, Nature::Alone).expect(url).step;
        assert_eq!(step("redis://h"), CONNECT_TIMEOUT);
        assert_eq!(step("redis://h/1"), CONNECT_TIMEOUT / 2);
    }

    #[test]
    fn what_is_no_redis_is_told_from_one_that_is_too_old() {
        let why = |kind| describe(&RedisError::from((kind, "said the crate")));
        assert!(why(ErrorKind::Parse).contains("does not speak the Redis protocol"));
        assert!(why(ErrorKind::RESP3NotSupported).contains("6.2 or newer"));
    }
}
