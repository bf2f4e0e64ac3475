//! Questions asked before a source exists: is the topic there, and where does it begin and end?

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use ruslo_repr::{Error, ErrorKind, Result};

use super::client::{Complaint, Events, complaint, preflight, topic_error};
use super::identity::{self, Identity};
use super::{KafkaOptions, StartOffsets, StartPosition, TopicId};

/// What there is to know of a topic when a source is created on it.
#[derive(Clone, Debug)]
pub struct Probed {
    /// Where each partition begins.
    pub start: StartOffsets,
    /// None where the brokers have no ids.
    pub topic_id: Option<TopicId>,
}

/// Connects, checks that the topic exists and resolves the start position, once and for all.
///
/// Blocks for up to `properties.sync.call.timeout`. Fails with [`ErrorKind::UndefinedObject`]
/// when there is no such topic and with [`ErrorKind::External`] and the broker's reason when it
/// cannot be reached, refuses the credentials or does not pass for itself (TLS).
pub fn probe(options: &KafkaOptions) -> Result<Probed> {
    let topic = Connected::new(options)?;
    // Asked for before the offsets: those of a later topic then belong to an id that is gone.
    let topic_id = topic.id();
    let start = start_offsets(&topic, options)?;
    Ok(Probed { start, topic_id })
}

fn start_offsets(topic: &Connected<'_>, options: &KafkaOptions) -> Result<StartOffsets> {
    match options.start_position() {
        StartPosition::Earliest => topic.offsets(Offset::Beginning),
        StartPosition::Latest => topic.offsets(Offset::End),
        StartPosition::Timestamp(millis) => {
            // The end is asked for first: what arrives between the two questions is not skipped.
            let end = topic.offsets(Offset::End)?;
            let mut start = topic.offsets(Offset::Offset(millis))?;
            for (partition, offset) in &mut start {
                if *offset < 0 {
                    *offset = end.get(partition).copied().unwrap_or(0);
                }
            }
            Ok(start)
        }
    }
}

/// The offsets `(low, high)` between which each of `partitions` can be read; blocks as
/// [`probe`] does. With no partitions named it answers for all.
pub fn watermarks(options: &KafkaOptions, partitions: &[i32]) -> Result<BTreeMap<i32, (i64, i64)>> {
    let mut topic = Connected::new(options)?;
    if !partitions.is_empty() {
        topic.partitions = partitions.to_vec();
    }
    let low = topic.offsets(Offset::Beginning)?;
    let high = topic.offsets(Offset::End)?;
    let pair = |(partition, low)| {
        (
            partition,
            (low, high.get(&partition).copied().unwrap_or(low)),
        )
    };
    Ok(low.into_iter().map(pair).collect())
}

/// A client that has seen the topic.
struct Connected<'a> {
    options: &'a KafkaOptions,
    consumer: std::sync::Arc<BaseConsumer<Events>>,
    partitions: Vec<i32>,
    deadline: Instant,
}

impl<'a> Connected<'a> {
    fn new(options: &'a KafkaOptions) -> Result<Self> {
        options.check_files()?;
        let deadline = Instant::now() + options.call_timeout();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let events = Events::new(options.topic());
            let config = options.client_config();
            let (consumer, metadata) = preflight(&config, events, options.topic(), left)
                .map_err(|complaint| external(complaint, options))?;
            let found = metadata
                .topics()
                .iter()
                .find(|topic| topic.name() == options.topic());
            let partitions = match found.map(|topic| (topic, topic_error(topic.error()))) {
                Some((topic, None)) => topic.partitions().iter().map(|p| p.id()).collect(),
                None | Some((_, Some(RDKafkaErrorCode::UnknownTopicOrPartition))) => Vec::new(),
                // A topic that is being created right now.
                Some((_, Some(RDKafkaErrorCode::LeaderNotAvailable)))
                    if Instant::now() + Duration::from_millis(100) < deadline =>
                {
                    thread::sleep(Duration::from_millis(100));
                    continue;
                }
                Some((_, Some(code))) => {
                    let reason = format!("topic {}: {code}", options.topic());
                    return Err(external(Complaint { code, reason }, options));
                }
            };
            if partitions.is_empty() {
                return Err(topic_not_found(options));
            }
            return Ok(Connected {
                options,
                consumer,
                partitions,
                deadline,
            });
        }
    }

    /// None also when nobody answers in time: the source is then read without this check. The
    /// other half of the time is for what must be known.
    fn id(&self) -> Option<TopicId> {
        let half = self.deadline.saturating_duration_since(Instant::now()) / 2;
        let deadline = Instant::now() + half;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match identity::ask_by_name(&self.consumer, self.options.topic(), left) {
                Identity::Known(id) => return Some(id),
                Identity::Untold => return None,
                Identity::NoAnswer(_) if left.is_zero() => return None,
                Identity::NoAnswer(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Asks all leaders at once. A partition without an answer to a timestamp gives -1.
    fn offsets(&self, position: Offset) -> Result<StartOffsets> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let asked = list_offsets(
                &self.consumer,
                self.options.topic(),
                &self.partitions,
                position,
                left.max(Duration::from_millis(1)),
            );
            match asked {
                Ok(offsets) => return Ok(offsets),
                // Leaders move and connections break: what passes is asked again.
                Err(_) if Instant::now() + Duration::from_millis(100) < self.deadline => {
                    thread::sleep(Duration::from_millis(100));
                }
                Err(error) => return Err(external(complaint(&error), self.options)),
            }
        }
    }
}

/// One ListOffsets question for all of `partitions`, which takes logical offsets and times.
pub(super) fn list_offsets(
    consumer: &BaseConsumer<Events>,
    topic: &str,
    partitions: &[i32],
    position: Offset,
    timeout: Duration,
) -> KafkaResult<StartOffsets> {
    let mut question = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        question.add_partition_offset(topic, *partition, position)?;
    }
    let answer = consumer.offsets_for_times(question, timeout)?;
    let mut offsets = StartOffsets::new();
    for element in answer.elements() {
        element.error()?;
        let offset = match element.offset() {
            Offset::Offset(offset) => offset,
            _ => -1,
        };
        offsets.insert(element.partition(), offset);
    }
    Ok(offsets)
}

pub(super) fn external(complaint: Complaint, options: &KafkaOptions) -> Error {
    let reason = options.scrub(&complaint.reason);
    Complaint {
        reason,
        ..complaint
    }
    .into_error(options.bootstrap_servers())
}

pub(super) fn topic_not_found(options: &KafkaOptions) -> Error {
    let message = format!("topic {} not found", options.topic());
    Error::new(ErrorKind::UndefinedObject, message).with_hint(
        "Create the topic first, or check its name, the broker's address and that the user may \
         see it.",
    )
}
