//! Writing to a real Redis, started here: values, users, outages. Needs `redis-server` installed.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use redis::Commands;
use ruslo_connector::redis::{
    RedisOp, RedisOptions, RedisWriter, SinkEncode, SinkFormat, SinkState,
};
use ruslo_repr::ErrorKind;

/// A server of the test's own, ended with it.
struct Server {
    port: u16,
    arguments: Vec<String>,
    _directory: tempfile::TempDir,
    child: Child,
}

impl Server {
    /// `extra` is more of redis-server's command line.
    fn start(extra: &str) -> Server {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_string_lossy().into_owned();
        let port_text = port.to_string();
        let fixed = ["--port", &port_text, "--bind", "127.0.0.1", "--dir", &path];
        let durable = [
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ];
        let extra: Vec<&str> = extra.split_whitespace().collect();
        let arguments = fixed.iter().chain(&durable).chain(&extra);
        let arguments: Vec<String> = arguments.map(|argument| argument.to_string()).collect();
        let child = spawn(port, &arguments);
        Server {
            port,
            arguments,
            _directory: directory,
            child,
        }
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = spawn(self.port, &self.arguments);
    }

    fn url(&self, user_info: &str) -> String {
        format!("redis://{user_info}127.0.0.1:{}", self.port)
    }

    fn client(&self, user_info: &str) -> redis::Connection {
        redis::Client::open(self.url(user_info))
            .unwrap()
            .get_connection()
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, arguments: &[String]) -> Child {
    let child = Command::new("redis-server")
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server must be installed for this test (apt-get install redis-server)");
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "redis-server did not come up");
        thread::sleep(Duration::from_millis(20));
    }
    child
}

fn options(url: &str) -> RedisOptions {
    let with = [("primary_key", "k"), ("redis.url", url)];
    let with = with.map(|(name, value)| (name.to_owned(), value.to_owned()));
    RedisOptions::parse(&with, SinkFormat::Upsert, SinkEncode::Json, &[]).unwrap()
}

fn set(key: impl ToString, value: impl ToString) -> RedisOp {
    let (key, value) = (key.to_string().into_bytes(), value.to_string().into_bytes());
    RedisOp::Set { key, value }
}

fn del(key: impl ToString) -> RedisOp {
    RedisOp::Del {
        key: key.to_string().into_bytes(),
    }
}

#[tokio::test]
async fn values_are_set_and_deleted_in_order() {
    let server = Server::start("");
    let mut writer = RedisWriter::connect(&options(&server.url("")))
        .await
        .unwrap();
    let many: Vec<RedisOp> = (0..5_000).map(|number| set(number, number * 2)).collect();
    writer.write(&many).await.unwrap();
    writer.write(&[]).await.unwrap();
    let ops = [
        set("a", 1),
        del("a"),
        set("a", 2),
        set("b", 1),
        del("b"),
        del("absent"),
    ];
    writer.write(&ops).await.unwrap();
    writer
        .write(&[set("binary", ""), set("7", "seven")])
        .await
        .unwrap();
    let bytes = RedisOp::Set {
        key: b"\0key\r\n".to_vec(),
        value: vec![0, 255, 13, 10],
    };
    writer.write(&[bytes]).await.unwrap();

    let mut client = server.client("");
    assert_eq!(client.get::<_, String>("4999").unwrap(), "9998");
    assert_eq!(client.get::<_, String>("a").unwrap(), "2");
    assert_eq!(client.get::<_, Option<String>>("b").unwrap(), None);
    assert_eq!(client.get::<_, String>("7").unwrap(), "seven");
    assert_eq!(
        client
            .get::<_, Option<String>>("binary")
            .unwrap()
            .as_deref(),
        Some("")
    );
    assert_eq!(
        client.get::<_, Vec<u8>>(b"\0key\r\n").unwrap(),
        [0, 255, 13, 10]
    );
    assert_eq!(
        redis::cmd("DBSIZE").query::<u64>(&mut client).unwrap(),
        5_003
    );
}

#[tokio::test]
async fn users_and_their_passwords() {
    let server = Server::start("--user ann on >s@crit-word ~* +@all --user default off");
    let mut writer = RedisWriter::connect(&options(&server.url("ann:s%40crit-word@")))
        .await
        .unwrap();
    writer.write(&[set("k", "v")]).await.unwrap();
    let mut client = server.client("ann:s%40crit-word@");
    assert_eq!(client.get::<_, String>("k").unwrap(), "v");

    for user_info in ["ann:wr%40ng-word@", "bob:wr%40ng-word@", ""] {
        let refused = RedisWriter::connect(&options(&server.url(user_info))).await;
        let error = refused.err().expect("a wrong user must be refused");
        assert_eq!(error.kind, ErrorKind::External);
        let text = format!("{error} {error:?}");
        assert!(
            text.contains(&format!("127.0.0.1:{}", server.port)),
            "{text}"
        );
        assert!(
            !text.contains("wr@ng-word") && !text.contains("wr%40ng-word"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_user_with_few_rights_can_write() {
    let server = Server::start("--user few on >few-word ~* -@all +set +del +ping +auth");
    let mut writer = RedisWriter::connect(&options(&server.url("few:few-word@")))
        .await
        .unwrap();
    writer.write(&[set("k", "v")]).await.unwrap();
    assert_eq!(server.client("").get::<_, String>("k").unwrap(), "v");
}

#[tokio::test]
async fn nobody_there_fails_the_statement() {
    let error = RedisWriter::connect(&options("redis://ann:s3cret-word@127.0.0.1:1")).await;
    let error = error.err().expect("nobody listens on port 1");
    assert!(
        error
            .message
            .starts_with("cannot write to Redis at 127.0.0.1:1: "),
        "{error}"
    );
    assert!(error.message.contains("refused"), "{error}");
    assert!(!format!("{error:?}").contains("s3cret-word"));
}

#[tokio::test]
async fn an_outage_and_a_restart_end_with_the_last_values() {
    let mut server = Server::start("");
    let mut writer = RedisWriter::connect(&options(&server.url("")))
        .await
        .unwrap();
    writer
        .write(&[set("kept", 1), set("gone", 1)])
        .await
        .unwrap();
    server.stop();
    assert!(writer.write(&[set("kept", 2)]).await.unwrap_err().retry);

    let states = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&states);
    let writing = tokio::spawn(async move {
        let batch = [set("kept", 3), del("gone"), set("new", 1)];
        let mut on_state = |state| seen.lock().unwrap().push(state);
        writer
            .write_with_retry(&batch, &mut on_state)
            .await
            .unwrap();
        writer
            .write_with_retry(&[set("new", 2)], &mut on_state)
            .await
            .unwrap();
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!writing.is_finished());
    server.start_again();
    tokio::time::timeout(Duration::from_secs(20), writing)
        .await
        .unwrap()
        .unwrap();

    let states = states.lock().unwrap();
    assert!(
        matches!(states[0], SinkState::Retrying { attempt: 1, .. }),
        "{states:?}"
    );
    assert_eq!(states.last(), Some(&SinkState::Running));
    let mut client = server.client("");
    assert_eq!(client.get::<_, String>("kept").unwrap(), "3");
    assert_eq!(client.get::<_, Option<String>>("gone").unwrap(), None);
    assert_eq!(client.get::<_, String>("new").unwrap(), "2");
}

#[tokio::test]
async fn a_dropped_connection_is_replaced() {
    let server = Server::start("");
    let mut writer = RedisWriter::connect(&options(&server.url("")))
        .await
        .unwrap();
    writer.write(&[set("k", 1)]).await.unwrap();
    let mut client = server.client("");
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL")
        .arg("TYPE")
        .arg("normal")
        .arg("SKIPME")
        .arg("yes");
    assert_eq!(kill.query::<u64>(&mut client).unwrap(), 1);
    let mut tries = 0;
    writer
        .write_with_retry(&[set("k", 2)], &mut |_| tries += 1)
        .await
        .unwrap();
    assert!(tries <= 4, "{tries}");
    assert_eq!(client.get::<_, String>("k").unwrap(), "2");
}
