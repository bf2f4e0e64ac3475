//! The demo's pipelines: their topics, statements, and what is shown of them.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use ruslo_connector::generate::EventKind;

use super::Topics;

/// One pipeline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Example {
    /// The article's: events counted by kind, into Redis.
    Events,
    /// Events joined with profiles, counted by country and plan, then by plan from that view.
    Join,
}

impl Example {
    pub(super) fn named(name: &str) -> Result<Self> {
        match name {
            "events" | "" => Ok(Example::Events),
            "join" => Ok(Example::Join),
            other => bail!("there is no example \"{other}\"; there are events and join"),
        }
    }

    /// The topics it reads. On a Kafka that outlives the demo they are new ones each time, so
    /// that nobody else's events are counted.
    pub(super) fn topics(self, embedded: bool) -> Topics {
        let suffix = match embedded {
            true => String::new(),
            false => {
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                format!("-demo-{}", now.as_secs())
            }
        };
        let events = (EventKind::UserEvents, format!("test{suffix}"));
        match self {
            Example::Events => vec![events],
            Example::Join => {
                vec![
                    events,
                    (EventKind::UserProfiles, format!("profiles{suffix}")),
                ]
            }
        }
    }

    /// What to execute, in order; `topics` in the order of [`Example::topics`].
    pub(super) fn statements(self, brokers: &str, topics: &[&str], redis: &str) -> Vec<String> {
        let [brokers, redis] = [brokers, redis].map(|text| text.replace('\'', "''"));
        let events = events_source(&brokers, topics[0]);
        match self {
            Example::Events => vec![
                events,
                "CREATE MATERIALIZED VIEW IF NOT EXISTS events_statisics_mv AS\n\
                 SELECT event, COUNT(*)\n\
                 FROM\n    user_events\n\
                 GROUP BY event;"
                    .to_string(),
                sink("events_statisics_mv", "event", &redis),
            ],
            Example::Join => vec![
                events,
                profiles_source(&brokers, topics[1]),
                "CREATE MATERIALIZED VIEW IF NOT EXISTS events_by_country AS\n\
                 SELECT p.country, p.plan, COUNT(*) AS count\n\
                 FROM user_events e JOIN user_profiles p ON e.user = p.user\n\
                 GROUP BY p.country, p.plan;"
                    .to_string(),
                "CREATE MATERIALIZED VIEW IF NOT EXISTS events_by_plan AS\n\
                 SELECT plan, SUM(count)::BIGINT AS count\n\
                 FROM events_by_country\n\
                 GROUP BY plan;"
                    .to_string(),
                sink("events_by_plan", "plan", &redis),
            ],
        }
    }

    /// The view whose rows are shown, and the column it is counted by.
    pub(super) fn view(self) -> (&'static str, &'static str) {
        match self {
            Example::Events => ("events_statisics_mv", "event"),
            Example::Join => ("events_by_plan", "plan"),
        }
    }

    /// Whether the view counts by what the generator counts its own events by.
    pub(super) fn counts_as_generated(self) -> bool {
        self == Example::Events
    }
}

fn events_source(brokers: &str, topic: &str) -> String {
    format!(
        "CREATE SOURCE IF NOT EXISTS user_events (\n    \
         event_timestamp TIMESTAMP,\n    user VARCHAR,\n    page VARCHAR,\n    event VARCHAR\n\
         ) WITH (\n    connector='kafka',\n    topic='{topic}',\n    \
         properties.bootstrap.server='{brokers}',\n    scan.startup.mode='latest'\n\
         ) FORMAT PLAIN ENCODE JSON;"
    )
}

fn profiles_source(brokers: &str, topic: &str) -> String {
    format!(
        "CREATE SOURCE IF NOT EXISTS user_profiles (\n    \
         user VARCHAR,\n    country VARCHAR,\n    plan VARCHAR\n\
         ) WITH (\n    connector='kafka',\n    topic='{topic}',\n    \
         properties.bootstrap.server='{brokers}',\n    scan.startup.mode='earliest'\n\
         ) FORMAT PLAIN ENCODE JSON;"
    )
}

fn sink(view: &str, key: &str, redis: &str) -> String {
    format!(
        "CREATE SINK IF NOT EXISTS redis_sink\nFROM {view} WITH (\n    \
         connector = 'redis',\n    primary_key = '{key}',\n    redis.url= '{redis}'\n\
         ) FORMAT PLAIN ENCODE TEMPLATE (\n    force_append_only='true',\n    \
         key_format = '{{{key}}}',\n    value_format = '{{count}}'\n);"
    )
}
