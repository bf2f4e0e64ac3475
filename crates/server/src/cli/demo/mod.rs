//! `ruslo demo`: a whole pipeline in one process, to look at.
//!
//! ```text
//!   generator ─> Kafka (embedded) ─> ruslo ─> view ─> Redis (a child process)
//!       │ acknowledged                         │ psql      │ GET
//!       └──────────── the check at the end compares all three ──────┘
//! ```
//!
//! A user's Kafka (`--kafka`) and Redis (`--redis`) take the place of ours. With `--seconds` the
//! demo ends by itself: it stops the generator, waits until view and Redis have everything, and
//! fails if they don't within [`SETTLE`].

mod check;
mod examples;
mod generator;
mod live;
mod own_redis;
mod resp;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use ruslo_connector::generate::EventKind;
use ruslo_connector::mock::MockBroker;
use ruslo_engine::{Engine, Outcome};

use super::serve::{Running, stop_signal};
use super::settings::{HTTP, LISTEN, ServerArgs};
use examples::Example;
use generator::Generator;
use live::Live;
use own_redis::OwnRedis;
use resp::RedisReader;

/// How long view and Redis may take to have everything once the generator has stopped.
const SETTLE: Duration = Duration::from_secs(30);
const REFRESH: Duration = Duration::from_secs(1);
const USERS: usize = 1000;
const PARTITIONS: i32 = 2;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ruslo demo                           run until Ctrl-C
  ruslo demo --seconds 20              end by itself after a check that all counts agree
  ruslo demo --example join            join two topics, and a view on a view
  ruslo demo --kafka localhost:9092 --redis redis://localhost:6379")]
pub(super) struct DemoArgs {
    /// A Kafka of your own instead of the embedded one
    #[arg(long, env = "KAFKA", value_name = "HOST:PORT")]
    kafka: Option<String>,

    /// A Redis of your own instead of a redis-server that lives as long as the demo
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    redis: Option<String>,

    /// End after so many seconds, with a check
    #[arg(long, env = "SECONDS_TO_RUN", value_name = "N")]
    seconds: Option<String>,

    /// Which pipeline: events (the article's) or join
    #[arg(long, env = "EXAMPLE", default_value = "events", value_name = "NAME")]
    example: String,

    /// Events per second
    #[arg(long, default_value_t = 300.0, value_name = "N")]
    rate: f64,

    #[command(flatten)]
    pub(super) server: ServerArgs,
}

impl DemoArgs {
    /// Logs only what is wrong unless asked for more: the live table needs the screen.
    pub(super) fn with_quiet_log(mut self) -> Self {
        self.server.log.get_or_insert_with(|| "warn".into());
        self.server
            .listen
            .get_or_insert_with(|| free_or_any(LISTEN));
        self.server.http.get_or_insert_with(|| free_or_any(HTTP));
        self
    }

    fn seconds(&self) -> Result<Option<Duration>> {
        match self.seconds.as_deref().map(str::trim) {
            None | Some("") => Ok(None),
            Some(text) => {
                let seconds = text.parse().context("--seconds must be a whole number")?;
                Ok(Some(Duration::from_secs(seconds)))
            }
        }
    }
}

/// The default address if it is free, else any free port.
fn free_or_any(address: &str) -> String {
    match std::net::TcpListener::bind(address) {
        Ok(_) => address.to_string(),
        Err(_) => "127.0.0.1:0".to_string(),
    }
}

/// Everything that a demo starts, ended in the order of the fields by [`Demo::end`].
struct Demo {
    generator: Generator,
    running: Running,
    /// Our own Redis and Kafka, if the user gave none.
    _redis: Option<OwnRedis>,
    _kafka: Option<MockBroker>,
}

/// Runs the demo until Ctrl-C or the end of its time.
pub(super) async fn demo(args: DemoArgs) -> Result<()> {
    let seconds = args.seconds()?;
    let example = Example::named(&args.example)?;
    let settings = args.server.settings(false)?;
    let stop = stop_signal()?;
    tokio::pin!(stop);

    let given = |option: &Option<String>| option.clone().filter(|text| !text.is_empty());
    let (kafka, brokers) = match given(&args.kafka) {
        Some(brokers) => (None, brokers),
        None => {
            let broker = MockBroker::start()?;
            let address = broker.bootstrap_servers().to_string();
            (Some(broker), address)
        }
    };
    let (redis, redis_url) = match given(&args.redis) {
        Some(url) => (None, url),
        None => {
            let server = OwnRedis::start().await?;
            let url = server.url();
            (Some(server), url)
        }
    };
    let mut reader = RedisReader::new(&redis_url)?;
    let topics = example.topics(kafka.is_some());
    for (kind, topic) in &topics {
        match &kafka {
            Some(broker) => broker.create_topic(topic, PARTITIONS)?,
            None => generator::ensure_topic(*kind, &brokers, topic).await?,
        }
    }

    let running = Running::start(&settings).await?;
    let names: Vec<&str> = topics.iter().map(|(_, topic)| topic.as_str()).collect();
    for statement in example.statements(&brokers, &names, &redis_url) {
        execute(&running.engine, &statement).await?;
    }
    let generator = Generator::start(&brokers, &topics, args.rate);
    let mut demo = Demo {
        generator,
        running,
        _redis: redis,
        _kafka: kafka,
    };
    let mut live = Live::connect(demo.running.sql, &example).await?;
    live.greet(&demo.running.psql_line(), &brokers, reader.address());

    let end = async {
        match seconds {
            Some(seconds) => tokio::time::sleep(seconds).await,
            None => std::future::pending().await,
        }
    };
    let watched = tokio::select! {
        failed = watch(&mut live, &mut reader, &demo.generator) => failed,
        () = end => check::all_agree(&mut demo.generator, &mut live, &mut reader, SETTLE).await,
        () = &mut stop => Ok(()),
        error = demo.running.failed() => Err(error),
    };
    demo.end().await;
    watched
}

/// Shows the table every second; ends only by failing.
async fn watch(live: &mut Live, redis: &mut RedisReader, generator: &Generator) -> Result<()> {
    let mut ticks = tokio::time::interval(REFRESH);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(trouble) = generator.failure() {
            bail!("the generator failed: {trouble}");
        }
        live.show(redis, generator).await?;
    }
}

impl Demo {
    async fn end(mut self) {
        self.generator.stop();
        self.running.stop().await;
    }
}

/// Executes one of the example's statements as a user would.
async fn execute(engine: &Engine, sql: &str) -> Result<()> {
    let mut session = engine.session("root", "dev");
    for statement in session.parse(sql)? {
        let outcome = session.execute(&statement, &[], &[]).await;
        let outcome = outcome.with_context(|| format!("in the demo's statement\n{sql}"))?;
        if let Outcome::Done { tag } = outcome {
            tracing::debug!(tag, "executed");
        }
    }
    Ok(())
}

/// What the generator is to make for which topic.
type Topics = Vec<(EventKind, String)>;
