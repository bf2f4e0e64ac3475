//! Which topic it is: a name may come to stand for another one.
//!
//! Kafka gives every topic an id at its creation. Offsets of a topic that was deleted and created
//! again stand for other messages, so a source remembers the id and its readers ask for it.

use std::ffi::CString;
use std::fmt;
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::RDKafkaErrorCode;

use super::client::Events;
use super::ffi::{self, Consumer};

/// A topic's id, unlike those of all topics before it that had its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicId(i64, i64);

impl TopicId {
    /// Takes apart what `to_string` made.
    pub fn parse(text: &str) -> Option<TopicId> {
        let (high, low) = text.split_once('-')?;
        let part = |hex| u64::from_str_radix(hex, 16).ok().map(|part| part as i64);
        Some(TopicId(part(high)?, part(low)?))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.0, self.1)
    }
}

/// What a broker says about a topic's id.
#[derive(Debug, PartialEq)]
pub(super) enum Identity {
    Known(TopicId),
    /// A broker without ids, or one that does not tell us.
    Untold,
    /// To be asked again: the question, or the topic, got lost.
    NoAnswer(RDKafkaErrorCode),
}

/// Asks for the topic that `consumer` reads.
pub(super) fn ask(consumer: &Consumer, timeout: Duration) -> Identity {
    identity(consumer.topic_id(timeout))
}

/// Asks for a topic by its name.
pub(super) fn ask_by_name(
    client: &BaseConsumer<Events>,
    topic: &str,
    timeout: Duration,
) -> Identity {
    match CString::new(topic) {
        Ok(name) => identity(ffi::describe_topic(client, &name, timeout)),
        Err(_) => Identity::Untold,
    }
}

fn identity(answer: Result<Result<(i64, i64), RDKafkaErrorCode>, RDKafkaErrorCode>) -> Identity {
    use RDKafkaErrorCode::{
        AllBrokersDown, BrokerTransportFailure, LeaderNotAvailable, OperationTimedOut,
        RequestTimedOut, UnknownTopic, UnknownTopicOrPartition,
    };
    match answer {
        Ok(Ok((0, 0))) => Identity::Untold,
        Ok(Ok((high, low))) => Identity::Known(TopicId(high, low)),
        Ok(Err(code)) | Err(code) => match code {
            AllBrokersDown
            | BrokerTransportFailure
            | LeaderNotAvailable
            | OperationTimedOut
            | RequestTimedOut
            | UnknownTopic
            | UnknownTopicOrPartition => Identity::NoAnswer(code),
            _ => Identity::Untold,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_id_that_was_told_counts() {
        let refused = RDKafkaErrorCode::TopicAuthorizationFailed;
        assert_eq!(identity(Ok(Ok((0, 0)))), Identity::Untold);
        assert_eq!(identity(Ok(Err(refused))), Identity::Untold);
        assert_eq!(identity(Ok(Ok((0, 7)))), Identity::Known(TopicId(0, 7)));
        let lost = RDKafkaErrorCode::OperationTimedOut;
        assert_eq!(identity(Err(lost)), Identity::NoAnswer(lost));
    }

    #[test]
    fn an_id_can_be_written_down() {
        let id = TopicId(-1, i64::MAX);
        assert_eq!(TopicId::parse(&id.to_string()), Some(id));
        assert_eq!(TopicId::parse("7"), None);
    }
}
