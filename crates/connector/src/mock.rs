//! A Kafka broker inside this process, for demos and tests: nothing to install, real TCP.
//!
//! It is librdkafka's mock cluster, which keeps about 5 MB of each partition, forgets everything
//! at the end, cannot look offsets up by time and knows no security. It lives in a thread of its
//! own, because its handle may not move between threads.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use ruslo_repr::{Error, ErrorKind, Result};

/// A running broker; it ends when this is dropped.
pub struct MockBroker {
    bootstrap_servers: String,
    /// `None` only while being dropped.
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

enum Command {
    CreateTopic {
        name: String,
        partitions: i32,
        done: Sender<Result<()>>,
    },
    SetDown {
        down: bool,
        done: Sender<Result<()>>,
    },
}

impl MockBroker {
    /// Starts a broker on a free port of 127.0.0.1.
    pub fn start() -> Result<Self> {
        let (started, starting) = mpsc::channel();
        let (commands, received) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("mock kafka".to_owned())
            .spawn(move || serve(&started, &received))
            .map_err(|error| Error::internal(format!("cannot start a thread: {error}")))?;
        let bootstrap_servers = starting.recv().unwrap_or_else(|_| Err(gone()))?;
        Ok(MockBroker {
            bootstrap_servers,
            commands: Some(commands),
            thread: Some(thread),
        })
    }

    /// `host:port`, for `properties.bootstrap.server`.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        let name = name.to_owned();
        self.run(|done| Command::CreateTopic {
            name,
            partitions,
            done,
        })
    }

    /// Takes the broker down, with all connections, or up again with what it held.
    pub fn set_down(&self, down: bool) -> Result<()> {
        self.run(|done| Command::SetDown { down, done })
    }

    fn run(&self, command: impl FnOnce(Sender<Result<()>>) -> Command) -> Result<()> {
        let (done, waiting) = mpsc::channel();
        let commands = self.commands.as_ref().ok_or_else(gone)?;
        commands.send(command(done)).map_err(|_| gone())?;
        waiting.recv().map_err(|_| gone())?
    }
}

impl Drop for MockBroker {
    fn drop(&mut self) {
        // The thread ends when nobody can send it commands any more.
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(started: &Sender<Result<String>>, commands: &Receiver<Command>) {
    let cluster = match MockCluster::new(1) {
        Ok(cluster) => cluster,
        Err(error) => {
            let _ = started.send(Err(failed("start", &error.to_string())));
            return;
        }
    };
    if started.send(Ok(cluster.bootstrap_servers())).is_err() {
        return;
    }
    while let Ok(command) = commands.recv() {
        // A caller that went away needs no answer.
        let _ = match command {
            Command::CreateTopic {
                name,
                partitions,
                done,
            } => done.send(create_topic(&cluster, &name, partitions)),
            Command::SetDown { down, done } => done.send(set_down(&cluster, down)),
        };
    }
}

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn create_topic(cluster: &Cluster, name: &str, partitions: i32) -> Result<()> {
    let created = cluster.create_topic(name, partitions, 1);
    created.map_err(|error| failed(&format!("create topic {name}"), &error.to_string()))
}

fn set_down(cluster: &Cluster, down: bool) -> Result<()> {
    const ALL: i32 = -1;
    let done = if down {
        cluster.broker_down(ALL)
    } else {
        cluster.broker_up(ALL)
    };
    done.map_err(|error| failed("switch", &error.to_string()))
}

fn failed(what: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::External,
        format!("the embedded Kafka broker cannot {what}: {why}"),
    )
}

fn gone() -> Error {
    Error::new(ErrorKind::External, "the embedded Kafka broker has ended")
}
