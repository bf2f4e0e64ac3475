//! Reads values from Redis to show them: the few lines of its protocol that this takes.
//!
//! The sink writes through a real client; this reads the way `redis-cli GET` would, on a connection
//! of its own, so that what is shown is what any other program sees.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_PORT: u16 = 6379;
/// Longer values than this are none of ours.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// Where to read, with a connection once there is one.
pub(super) struct RedisReader {
    address: String,
    login: Vec<String>,
    database: String,
    connection: Option<BufStream<TcpStream>>,
}

impl RedisReader {
    /// Takes `redis://[user[:password]@]host[:port][/database]`; connects when first asked.
    pub(super) fn new(url: &str) -> Result<Self> {
        let Some(rest) = url.strip_prefix("redis://") else {
            // The URL is not repeated: it may hold a password.
            bail!("the demo reads from Redis without TLS only: give a URL like redis://host:6379");
        };
        let rest = rest.split(['?', '#']).next().unwrap_or(rest);
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (login, host),
            None => ("", authority),
        };
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = match has_port {
            true => host.to_string(),
            false => format!("{host}:{DEFAULT_PORT}"),
        };
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let login = [user, password].into_iter().filter(|part| !part.is_empty());
        Ok(RedisReader {
            address,
            login: login.map(unescape).collect(),
            database: database.to_string(),
            connection: None,
        })
    }

    /// `host:port`, without what is secret.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The value of each key, `None` where there is none.
    pub(super) async fn get(&mut self, keys: &[String]) -> Result<Vec<Option<String>>> {
        if keys.is_empty() {
            return Ok(vec![]);
        }
        let got = tokio::time::timeout(TIMEOUT, self.try_get(keys)).await;
        let got = got.unwrap_or_else(|_| Err(anyhow!("Redis at {} is silent", self.address)));
        if got.is_err() {
            // Half an answer may still be under way.
            self.connection = None;
        }
        got
    }

    async fn try_get(&mut self, keys: &[String]) -> Result<Vec<Option<String>>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let connected = self.connect().await?;
                self.connection.insert(connected)
            }
        };
        let mut words = vec!["MGET"];
        words.extend(keys.iter().map(String::as_str));
        send(connection, &words).await?;
        let count = number(&line(connection).await?, '*')?;
        if count != keys.len() as i64 {
            bail!("Redis answered with {count} values for {} keys", keys.len());
        }
        let mut values = Vec::with_capacity(keys.len());
        for _ in keys {
            values.push(bulk(connection).await?);
        }
        Ok(values)
    }

    async fn connect(&self) -> Result<BufStream<TcpStream>> {
        let stream = TcpStream::connect(&self.address).await;
        let stream = stream.with_context(|| format!("cannot reach Redis at {}", self.address))?;
        let mut connection = BufStream::new(stream);
        if !self.login.is_empty() {
            let login = self.login.iter().map(String::as_str);
            let words: Vec<&str> = std::iter::once("AUTH").chain(login).collect();
            send(&mut connection, &words).await?;
            line(&mut connection).await?;
        }
        if !self.database.is_empty() {
            send(&mut connection, &["SELECT", &self.database]).await?;
            line(&mut connection).await?;
        }
        Ok(connection)
    }
}

async fn send(connection: &mut BufStream<TcpStream>, words: &[&str]) -> Result<()> {
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    connection.write_all(command.as_bytes()).await?;
    Ok(connection.flush().await?)
}

/// A line of the answer without its end; an error answer is an error.
async fn line(connection: &mut BufStream<TcpStream>) -> Result<String> {
    let mut text = String::new();
    if connection.read_line(&mut text).await? == 0 {
        bail!("Redis closed the connection");
    }
    let text = text.trim_end().to_string();
    match text.strip_prefix('-') {
        Some(error) => bail!("Redis refused: {error}"),
        None => Ok(text),
    }
}

fn number(line: &str, kind: char) -> Result<i64> {
    let digits = line
        .strip_prefix(kind)
        .and_then(|digits| digits.parse().ok());
    digits.ok_or_else(|| anyhow!("Redis answered with something unexpected"))
}

async fn bulk(connection: &mut BufStream<TcpStream>) -> Result<Option<String>> {
    let length = number(&line(connection).await?, '$')?;
    let Ok(length) = usize::try_from(length) else {
        return Ok(None);
    };
    if length > VALUE_BYTES_MAX {
        bail!("a value in Redis is too long to be shown");
    }
    let mut bytes = vec![0; length + 2];
    connection.read_exact(&mut bytes).await?;
    bytes.truncate(length);
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Undoes `%40` and the like.
fn unescape(text: &str) -> String {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).and_then(|digits| hex::decode(digits).ok());
        match (first, escaped.as_deref()) {
            (b'%', Some([byte])) => {
                bytes.push(*byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let reader = RedisReader::new("redis://me:p%40ss@host/2?protocol=3").unwrap();
        assert_eq!(reader.address(), "host:6379");
        assert_eq!(reader.login, ["me", "p@ss"]);
        assert_eq!(reader.database, "2");
        let reader = RedisReader::new("redis://:secret@127.0.0.1:1").unwrap();
        assert_eq!(
            (reader.address(), &reader.login[..]),
            ("127.0.0.1:1", &["secret".into()][..])
        );
        let error = RedisReader::new("rediss://:secret@host").err().unwrap();
        assert!(!error.to_string().contains("secret"));
    }
}
