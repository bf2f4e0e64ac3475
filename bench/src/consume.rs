//! A topic read once from beginning to end, in batches, with librdkafka's C interface.

use std::ptr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const BATCH_MESSAGES_MAX: usize = 8192;
const BATCH_WAIT_MS: i32 = 50;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Calls `each` with every payload that the topic holds now (empty for a message without one)
/// and returns how many there were.
///
/// `properties` are librdkafka's, beside what reading a topic once needs.
pub fn read_topic(
    brokers: &str,
    topic: &str,
    properties: &[(String, String)],
    mut each: impl FnMut(&[u8]),
) -> Result<u64> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("group.id", "ruslo-bench")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed");
    for (key, value) in properties {
        config.set(key, value);
    }
    let consumer: BaseConsumer = config.create()?;
    let total = assign_everything(&consumer, topic)?;

    // SAFETY: the consumer lives until the queue is destroyed at the end of this function.
    let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
    let mut batch = vec![ptr::null_mut(); BATCH_MESSAGES_MAX];
    let mut seen = 0;
    let mut failure = None;
    while seen < total && failure.is_none() {
        // SAFETY: `batch` has room for as many pointers as are asked for.
        let taken = unsafe {
            sys::rd_kafka_consume_batch_queue(queue, BATCH_WAIT_MS, batch.as_mut_ptr(), batch.len())
        };
        for &message in &batch[..usize::try_from(taken).unwrap_or(0)] {
            // SAFETY: librdkafka hands over `taken` messages that are ours until destroyed.
            unsafe {
                match payload(&*message) {
                    Ok(bytes) => {
                        each(bytes);
                        seen += 1;
                    }
                    Err(error) => failure = Some(error),
                }
                sys::rd_kafka_message_destroy(message);
            }
        }
    }
    // SAFETY: taken above, and used no more.
    unsafe { sys::rd_kafka_queue_destroy(queue) };
    match failure {
        Some(error) => Err(error),
        None => Ok(seen),
    }
}

/// # Safety
/// `message` is one that librdkafka filled; the bytes live as long as it does.
unsafe fn payload(message: &sys::rd_kafka_message_t) -> Result<&[u8]> {
    if message.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        bail!("the broker reports error {:?}", message.err);
    }
    if message.payload.is_null() {
        return Ok(&[]);
    }
    // SAFETY: the payload is `len` bytes long.
    Ok(unsafe { std::slice::from_raw_parts(message.payload.cast::<u8>(), message.len) })
}

/// Assigns all partitions from their beginning; how many messages they hold.
fn assign_everything(consumer: &BaseConsumer, topic: &str) -> Result<u64> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let topic_metadata = metadata
        .topics()
        .first()
        .context("the broker names no topic")?;
    if topic_metadata.partitions().is_empty() {
        bail!("topic {topic} not found");
    }
    let mut assignment = TopicPartitionList::new();
    let mut total = 0;
    for partition in topic_metadata.partitions() {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), TIMEOUT)?;
        total += u64::try_from(high - low)?;
        assignment.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    Ok(total)
}
