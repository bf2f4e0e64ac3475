//! All the unsafe code of this crate but `waits`: taking messages from librdkafka in batches.
//!
//! The safe API of `rdkafka` hands out one message per call, which costs half of the throughput.
//! This file wraps the five objects that a batched reader needs, each freed by its `Drop`:
//!
//! ```text
//!   Consumer ── owns ──> client (BaseConsumer) and topic handle
//!      ^  ^
//!      │  └── Arc ── Queue ── Queue::take ──> Batch ── iter ──> Entry / Message<'_>
//! ```
//!
//! A queue keeps its client alive, and a batch is emptied before its queue goes away, because the
//! messages of a batch live in memory of the client.

use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka_sys as sys;

use super::client::Events;

/// A consumer of one topic whose partitions are started and stopped one by one.
///
/// This is librdkafka's simple consumer: no group, no rebalancing, no coordinator to wait for.
pub(super) struct Consumer {
    // Declared before the client, so that it is dropped first.
    topic: Topic,
    name: CString,
    client: BaseConsumer<Events>,
}

struct Topic(ptr::NonNull<sys::rd_kafka_topic_t>);

// SAFETY: librdkafka's objects may be used from any thread, and by several at once; the handle
// is only read through its functions.
unsafe impl Send for Topic {}
// SAFETY: as above.
unsafe impl Sync for Topic {}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: the handle came from rd_kafka_topic_new and is given back exactly once, while
        // its client still lives (field order in `Consumer`).
        unsafe { sys::rd_kafka_topic_destroy(self.0.as_ptr()) }
    }
}

impl Consumer {
    pub(super) fn new(config: &ClientConfig, events: Events, topic: &str) -> KafkaResult<Self> {
        let client: BaseConsumer<Events> = config.create_with_context(events)?;
        let name = CString::new(topic)?;
        // SAFETY: the client pointer is valid as long as `client` lives, the name is copied, and
        // a null configuration means the defaults of the client's own.
        let topic = unsafe {
            sys::rd_kafka_topic_new(client.client().native_ptr(), name.as_ptr(), ptr::null_mut())
        };
        let topic = ptr::NonNull::new(topic).ok_or_else(|| {
            KafkaError::Subscription(format!("topic handle refused: {}", last_error()))
        })?;
        Ok(Consumer {
            topic: Topic(topic),
            name,
            client,
        })
    }

    pub(super) fn client(&self) -> &BaseConsumer<Events> {
        &self.client
    }

    /// Begins (or begins anew) to fetch a partition at `offset` into `queue`. Does not block.
    pub(super) fn start(
        &self,
        partition: i32,
        offset: i64,
        queue: &Queue,
    ) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: topic and queue are valid while borrowed, and both belong to this client:
        // queues are only made by `Queue::new` for the consumer that starts them.
        let code = unsafe {
            sys::rd_kafka_consume_start_queue(
                self.topic.0.as_ptr(),
                partition,
                offset,
                queue.pointer.as_ptr(),
            )
        };
        if code == 0 { Ok(()) } else { Err(last_error()) }
    }

    /// Stops fetching a partition; waits for librdkafka's own thread, not for a broker.
    pub(super) fn stop(&self, partition: i32) {
        // SAFETY: the topic is valid while borrowed; an unknown partition is only an error code.
        unsafe { sys::rd_kafka_consume_stop(self.topic.0.as_ptr(), partition) };
    }

    /// The low and high watermark that came with the last fetch, without asking a broker.
    pub(super) fn cached_watermarks(&self, partition: i32) -> (Option<i64>, Option<i64>) {
        let (mut low, mut high) = (-1, -1);
        // SAFETY: client and name are valid while borrowed, low and high are written within the
        // call and not kept.
        unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.client.client().native_ptr(),
                self.name.as_ptr(),
                partition,
                &mut low,
                &mut high,
            )
        };
        let known = |offset: i64| (offset >= 0).then_some(offset);
        (known(low), known(high))
    }
}

impl Consumer {
    /// Asks a broker for the topic's id (two numbers, both zero where it has none); what it
    /// answered for the topic itself is the inner result.
    pub(super) fn topic_id(
        &self,
        timeout: Duration,
    ) -> Result<Result<(i64, i64), RDKafkaErrorCode>, RDKafkaErrorCode> {
        describe_topic(&self.client, &self.name, timeout)
    }
}

/// One DescribeTopics question; blocks up to `timeout`.
pub(super) fn describe_topic(
    client: &BaseConsumer<Events>,
    name: &CStr,
    timeout: Duration,
) -> Result<Result<(i64, i64), RDKafkaErrorCode>, RDKafkaErrorCode> {
    let client = client.client().native_ptr();
    let timeout_ms = timeout.as_millis().clamp(1, 60_000) as i32;
    let mut names = [name.as_ptr()];
    // SAFETY: the client outlives the call; names are copied; each object made here is destroyed
    // here once, after its last use; results are read before their event is destroyed. The text of
    // a refusal is written within the call, into a buffer of the length that is given.
    unsafe {
        let queue = sys::rd_kafka_queue_new(client);
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options = sys::rd_kafka_AdminOptions_new(
            client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        );
        let mut refused = [0; 256];
        sys::rd_kafka_AdminOptions_set_request_timeout(
            options,
            timeout_ms,
            refused.as_mut_ptr(),
            refused.len(),
        );
        sys::rd_kafka_DescribeTopics(client, topics, options, queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(topics);
        let event = sys::rd_kafka_queue_poll(queue, timeout_ms);
        let answer = described(event);
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        answer
    }
}

/// # Safety
/// `event` is null or a valid event of a DescribeTopics question for one topic.
unsafe fn described(
    event: *mut sys::rd_kafka_event_t,
) -> Result<Result<(i64, i64), RDKafkaErrorCode>, RDKafkaErrorCode> {
    const NONE: sys::rd_kafka_resp_err_t = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    if event.is_null() {
        return Err(RDKafkaErrorCode::OperationTimedOut);
    }
    // SAFETY: the event is valid by contract, and what is read of it belongs to it.
    unsafe {
        let code = sys::rd_kafka_event_error(event);
        if code != NONE {
            return Err(code.into());
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if count == 0 || topics.is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        let topic = *topics;
        let code = sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(topic));
        if code != NONE {
            return Ok(Err(code.into()));
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        Ok(Ok(match id.is_null() {
            true => (0, 0),
            false => (
                sys::rd_kafka_Uuid_most_significant_bits(id),
                sys::rd_kafka_Uuid_least_significant_bits(id),
            ),
        }))
    }
}

fn last_error() -> RDKafkaErrorCode {
    // SAFETY: reads a thread-local number.
    unsafe { sys::rd_kafka_last_error() }.into()
}

/// A queue of our own, into which librdkafka puts the messages of the partitions started on it.
pub(super) struct Queue {
    pointer: ptr::NonNull<sys::rd_kafka_queue_t>,
    /// Keeps the client alive for as long as the queue.
    _consumer: Arc<Consumer>,
}

// SAFETY: librdkafka locks its queues; any thread may take from, yield or destroy one.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the pointer came from rd_kafka_queue_new and is given back exactly once, while
        // `_consumer` still holds the client.
        unsafe { sys::rd_kafka_queue_destroy(self.pointer.as_ptr()) }
    }
}

impl Queue {
    pub(super) fn new(consumer: &Arc<Consumer>) -> KafkaResult<Queue> {
        // SAFETY: the client pointer is valid while `consumer` lives, which the queue ensures.
        let pointer = unsafe { sys::rd_kafka_queue_new(consumer.client.client().native_ptr()) };
        let pointer = ptr::NonNull::new(pointer).ok_or(KafkaError::Canceled)?;
        Ok(Queue {
            pointer,
            _consumer: Arc::clone(consumer),
        })
    }

    /// Empties `batch` and takes up to `max` entries, waiting up to `timeout` for the first.
    ///
    /// librdkafka's own call waits until the batch is full or the time is over. Taking one entry
    /// with the timeout and the rest without keeps a slow trickle from being late.
    pub(super) fn take(&self, batch: &mut Batch, max: usize, timeout: Duration) {
        batch.clear();
        batch.reserve(max);
        self.take_more(batch, max, 0);
        if batch.filled == 0 && !timeout.is_zero() {
            let timeout_ms = timeout.as_millis().clamp(1, 60_000) as i32;
            self.take_more(batch, 1.min(max), timeout_ms);
            if batch.filled > 0 {
                self.take_more(batch, max - batch.filled, 0);
            }
        }
    }

    fn take_more(&self, batch: &mut Batch, count: usize, timeout_ms: i32) {
        let free = &mut batch.slots[batch.filled..batch.filled + count];
        // SAFETY: the queue is valid while borrowed; `free` is valid for `free.len()` pointers,
        // of which the call fills as many as it returns, each a message that we now own.
        let taken = unsafe {
            sys::rd_kafka_consume_batch_queue(
                self.pointer.as_ptr(),
                timeout_ms,
                free.as_mut_ptr(),
                free.len(),
            )
        };
        batch.filled += usize::try_from(taken).unwrap_or(0);
    }

    /// How many entries wait to be taken.
    pub(super) fn len(&self) -> usize {
        // SAFETY: the queue is valid while borrowed; the call only reads a number.
        unsafe { sys::rd_kafka_queue_length(self.pointer.as_ptr()) }
    }

    /// Makes a waiting [`take`](Self::take), or else the next one, return early.
    pub(super) fn interrupt(&self) {
        // SAFETY: the queue is valid while borrowed; yielding only sets a flag and wakes waiters.
        unsafe { sys::rd_kafka_queue_yield(self.pointer.as_ptr()) }
    }
}

/// Messages taken from a queue, freed when the batch is cleared or dropped.
pub(super) struct Batch {
    /// Null but for the first `filled` ones, which are owned.
    slots: Vec<*mut sys::rd_kafka_message_t>,
    filled: usize,
}

// SAFETY: the owned messages are plain memory with a thread-safe reference to their buffer.
unsafe impl Send for Batch {}

impl Drop for Batch {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Batch {
    pub(super) fn new() -> Self {
        Batch {
            slots: Vec::new(),
            filled: 0,
        }
    }

    fn reserve(&mut self, max: usize) {
        if self.slots.len() < max {
            self.slots.resize(max, ptr::null_mut());
        }
    }

    pub(super) fn clear(&mut self) {
        let filled = std::mem::take(&mut self.filled);
        for message in &mut self.slots[..filled] {
            // SAFETY: the first `filled` pointers are messages we own; each is freed once, since
            // `filled` was set to zero and the slot is nulled.
            unsafe { sys::rd_kafka_message_destroy(std::mem::replace(message, ptr::null_mut())) }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.filled
    }

    /// The entry at `index`, which must be below [`len`](Self::len).
    pub(super) fn entry(&self, index: usize) -> Entry<'_> {
        let pointer = self.slots[..self.filled][index];
        // SAFETY: the first `filled` pointers are valid messages that live until the batch is
        // cleared, which needs it mutably and so ends the borrow of `self`. The code is read as
        // a number, because a broker may send one that the enum of this library does not have.
        let code = unsafe { ptr::addr_of!((*pointer).err).cast::<i32>().read() };
        if code == 0 {
            // SAFETY: as above, and the enum field is known to hold one of its values.
            let raw = unsafe { &*pointer };
            return Entry::Message(Message {
                raw,
                _batch: PhantomData,
            });
        }
        // SAFETY: as above; plain numbers are read.
        let (partition, offset) = unsafe { ((*pointer).partition, (*pointer).offset) };
        let reason = Reason {
            message: pointer,
            _batch: PhantomData,
        };
        Entry::Error {
            partition,
            offset,
            code: Code(code),
            reason,
        }
    }
}

/// What a queue holds: messages, and what went wrong or is worth knowing about a partition.
pub(super) enum Entry<'a> {
    Message(Message<'a>),
    Error {
        partition: i32,
        offset: i64,
        code: Code,
        reason: Reason<'a>,
    },
}

/// An error code of librdkafka (negative) or of a broker (positive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(i32);

impl Code {
    /// All there is has been handed out; the entry's offset is the next position.
    pub(super) const END_OF_PARTITION: Code =
        Code(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF as i32);
    /// The position is not in the log, and fetching has stopped until told where to go on.
    pub(super) const NO_SUCH_OFFSET: Code =
        Code(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET as i32);
    /// Messages that failed their checksum and were skipped.
    pub(super) const BAD_MESSAGE: Code =
        Code(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__BAD_MSG as i32);
    /// Messages in a format or compression that this library cannot read; also skipped.
    pub(super) const NOT_IMPLEMENTED: Code =
        Code(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED as i32);
    /// The client cannot go on at all.
    pub(super) const FATAL: Code = Code(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__FATAL as i32);
}

/// The words of an error entry, made only when somebody wants them.
pub(super) struct Reason<'a> {
    message: *const sys::rd_kafka_message_t,
    _batch: PhantomData<&'a Batch>,
}

impl Reason<'_> {
    pub(super) fn text(&self) -> String {
        // SAFETY: the message is valid for the lifetime of the batch's borrow; the text is null
        // or ends with a zero byte and lives as long as the message.
        unsafe {
            let text = sys::rd_kafka_message_errstr(self.message);
            if text.is_null() {
                return String::new();
            }
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }
}

/// One Kafka message, in the client's own memory and only as long as the poll that gave it.
pub struct Message<'a> {
    raw: &'a sys::rd_kafka_message_t,
    _batch: PhantomData<&'a Batch>,
}

impl<'a> Message<'a> {
    pub fn partition(&self) -> i32 {
        self.raw.partition
    }

    pub fn offset(&self) -> i64 {
        self.raw.offset
    }

    /// The value, `None` for a tombstone.
    pub fn payload(&self) -> Option<&'a [u8]> {
        // SAFETY: payload and len describe one buffer that lives as long as the message.
        unsafe { bytes(self.raw.payload.cast(), self.raw.len) }
    }

    pub fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: key and key_len describe one buffer that lives as long as the message.
        unsafe { bytes(self.raw.key.cast(), self.raw.key_len) }
    }

    /// When it was created or appended, as the topic is set, in milliseconds since 1970.
    pub fn timestamp_ms(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid while borrowed, and `kind` is written within the call.
        let millis = unsafe { sys::rd_kafka_message_timestamp(self.raw, &mut kind) };
        (millis >= 0).then_some(millis)
    }
}

/// # Safety
/// `start` is null or points to `length` bytes that live for `'a` and are not written to.
unsafe fn bytes<'a>(start: *const u8, length: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: promised by the caller.
    Some(unsafe { std::slice::from_raw_parts(start, length) })
}
