//! A producer that fills topics as fast as the broker takes them.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

/// Sends messages and waits while the local queue is full.
pub struct Sender {
    producer: BaseProducer<DefaultProducerContext>,
    topic: String,
}

impl Sender {
    /// `linger_ms` is how long a message may wait for others to be sent with it.
    pub fn new(brokers: &str, topic: &str, linger_ms: u32) -> Result<Sender> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("linger.ms", linger_ms.to_string())
            .set("batch.num.messages", "10000")
            .set("queue.buffering.max.messages", "200000")
            .create()?;
        Ok(Sender {
            producer,
            topic: topic.to_string(),
        })
    }

    pub fn send(&self, partition: Option<i32>, payload: &[u8]) -> Result<()> {
        loop {
            let mut record = BaseRecord::<(), [u8]>::to(&self.topic).payload(payload);
            record.partition = partition;
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    self.producer.poll(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Serves delivery reports without waiting.
    pub fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Waits until the broker has everything.
    pub fn finish(self) -> Result<()> {
        self.producer
            .flush(Duration::from_secs(120))
            .map_err(|e| anyhow!("not delivered: {e}"))?;
        match self.producer.in_flight_count() {
            0 => Ok(()),
            left => bail!("{left} messages were not delivered"),
        }
    }
}
