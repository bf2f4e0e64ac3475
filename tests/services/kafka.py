"""One Apache Kafka node: broker and KRaft controller in one JVM, four ways to connect."""

import base64
import json
import os
import pathlib
import shutil
import subprocess
import uuid

from .process import Server, accepts, cache_dir, free_port, wait_until
from .tls import Authority

USERNAME = "ruslo"
PASSWORD = "kafka-secret-7Qx"


class Kafka(Server):
    """Ports and data outlive `stop`, so that `start` brings the same broker back.

    `heap_mb` and `fast_start` are the test suite's; a benchmark wants the JVM's best code.
    """

    name = "kafka"
    start_timeout_s = 120
    username = USERNAME
    password = PASSWORD

    def __init__(
        self,
        directory: pathlib.Path,
        authority: Authority,
        heap_mb: int = 512,
        fast_start: bool = True,
    ):
        super().__init__(directory)
        self.authority = authority
        self.heap_mb = heap_mb
        self.fast_start = fast_start
        listeners = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL", "CONTROLLER"]
        self.ports = {listener: free_port() for listener in listeners}
        self.data = directory / "data"
        self.properties = directory / "server.properties"
        self.properties.write_text(self._configuration())
        self._format()

    def address(self, listener: str = "PLAINTEXT") -> str:
        return f"127.0.0.1:{self.ports[listener]}"

    def _configuration(self) -> str:
        clients = [name for name in self.ports if name != "CONTROLLER"]
        protocols = {name: name for name in clients} | {"CONTROLLER": "PLAINTEXT"}
        login = (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'user_{USERNAME}="{PASSWORD}";'
        )
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{self.address('CONTROLLER')}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": ",".join(f"{name}://{self.address(name)}" for name in self.ports),
            "advertised.listeners": ",".join(f"{n}://{self.address(n)}" for n in clients),
            "listener.security.protocol.map": ",".join(
                f"{name}:{protocol}" for name, protocol in protocols.items()
            ),
            "log.dirs": self.data,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.authority.keystore,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.authority.ca,
            "listener.name.sasl_ssl.sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN",
            "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": scram,
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": scram,
            "listener.name.sasl_ssl.plain.sasl.jaas.config": login,
            "listener.name.sasl_plaintext.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": login,
            # A topic that nobody created must stay unknown, and internal ones small.
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # A killed broker may come back only when the controller has given its old self up.
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "3000",
            "num.network.threads": "1",
            "num.io.threads": "2",
            "log.cleaner.enable": "false",
            # A deleted topic leaves the disk soon, and not a minute later beside another step.
            "log.segment.delete.delay.ms": "1000",
        }
        return "".join(f"{key}={value}\n" for key, value in settings.items())

    def _java(self, *arguments: str) -> list[str]:
        jars = cache_dir() / "jars"
        if not jars.is_dir():
            raise RuntimeError(f"{jars} is missing: run scripts/setup")
        return [
            "java",
            f"-Xmx{self.heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:-UsePerfData",
            *(["-XX:TieredStopAtLevel=1"] if self.fast_start else []),
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
            f"{jars}/*",
            *arguments,
        ]

    def _format(self):
        if self.data.exists():
            shutil.rmtree(self.data)
        # A dash in front would pass for an option.
        cluster = "k" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        scram = [
            argument
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for argument in (
                "--add-scram",
                f"{mechanism}=[name={USERNAME},password={PASSWORD}]",
            )
        ]
        done = subprocess.run(
            self._java(
                "kafka.tools.StorageTool", "format", "--config", str(self.properties),
                "--cluster-id", cluster, *scram,
            ),  # fmt: skip
            capture_output=True,
            text=True,
            env=self.environment(),
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"Kafka's storage was not formatted:\n{done.stdout}{done.stderr}")

    def environment(self):
        # Options meant for other JVMs of this machine would change the broker.
        unwanted = ("JAVA_TOOL_OPTIONS", "KAFKA_OPTS")
        return {key: value for key, value in os.environ.items() if key not in unwanted}

    def command(self):
        return self._java("kafka.Kafka", str(self.properties))

    def ready(self):
        if not accepts(self.ports["PLAINTEXT"]):
            return False
        admin = self.admin()
        try:
            admin.list_topics()
            return True
        finally:
            admin.close()

    # Topics -----------------------------------------------------------------------------------

    def admin(self):
        from kafka import KafkaAdminClient

        return KafkaAdminClient(bootstrap_servers=[self.address()])

    def create_topic(self, name: str, partitions: int = 1, **config: str) -> str:
        from kafka.admin import NewTopic

        topic = NewTopic(name, partitions, 1, topic_configs=config)
        self._as_admin(lambda admin: admin.create_topics([topic]))
        wait_until(lambda: self.partitions(name) == partitions, 30, f"topic {name}")
        return name

    def delete_topic(self, name: str):
        self._as_admin(lambda admin: admin.delete_topics([name]))

    def add_partitions(self, topic: str, total: int):
        from kafka.admin import NewPartitions

        self._as_admin(lambda admin: admin.create_partitions({topic: NewPartitions(total)}))
        wait_until(lambda: self.partitions(topic) == total, 30, f"partitions of {topic}")

    def delete_records(self, topic: str, before: dict[int, int]):
        """Lets retention run over the offsets below `before`, a partition → offset map."""
        from kafka import TopicPartition

        offsets = {TopicPartition(topic, partition): o for partition, o in before.items()}
        self._as_admin(lambda admin: admin.delete_records(offsets))

    def partitions(self, topic: str) -> int:
        described = self._as_admin(lambda admin: admin.describe_topics([topic]))
        return len(described[0]["partitions"])

    def login(self, mechanism: str = "SCRAM-SHA-256", protocol: str = "SASL_SSL") -> dict:
        """The client settings, by librdkafka's names, that this broker accepts."""
        return {
            "security.protocol": protocol,
            "sasl.mechanism": mechanism,
            "sasl.username": self.username,
            "sasl.password": self.password,
        }

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Partition → the offset that its next message will get."""
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=[self.address()])
        try:
            partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
            return {tp.partition: end for tp, end in consumer.end_offsets(partitions).items()}
        finally:
            consumer.close()

    def _as_admin(self, act):
        admin = self.admin()
        try:
            return act(admin)
        finally:
            admin.close()

    # Messages ---------------------------------------------------------------------------------

    def produce(self, topic: str, messages, partition: int | None = None):
        """Sends bytes, str or anything that JSON can hold; returns when all are acknowledged.

        A `None` becomes a message without payload, a tombstone.
        """
        from kafka import KafkaProducer

        producer = KafkaProducer(bootstrap_servers=[self.address()], linger_ms=5)
        try:
            sent = [
                # A message without payload must have a key.
                producer.send(
                    topic,
                    key=b"key" if message is None else None,
                    value=_payload(message),
                    partition=partition,
                )
                for message in messages
            ]
            for future in sent:
                future.get(timeout=30)
        finally:
            producer.close()


    def payloads(self, topic: str, start: dict[int, int] | None = None) -> list[bytes | None]:
        """What the topic holds from the offsets `start` (its beginning) to its end now."""
        from kafka import KafkaConsumer, TopicPartition

        ends = {TopicPartition(topic, p): end for p, end in self.end_offsets(topic).items()}
        starts = {partition: (start or {}).get(partition.partition, 0) for partition in ends}
        wanted = sum(end - starts[partition] for partition, end in ends.items())
        found = {}
        consumer = KafkaConsumer(
            bootstrap_servers=[self.address()],
            auto_offset_reset="earliest",
            max_poll_records=10_000,
        )

        def read_everything():
            for partition, messages in consumer.poll(1000).items():
                for m in messages:
                    if starts[partition] <= m.offset < ends[partition]:
                        found[partition, m.offset] = m.value
            return len(found) == wanted

        try:
            consumer.assign(list(ends))
            for partition, offset in starts.items():
                consumer.seek(partition, offset)
            wait_until(read_everything, 60, f"{wanted} messages of {topic}")
        finally:
            consumer.close()
        return list(found.values())


def _payload(message) -> bytes | None:
    if message is None or isinstance(message, bytes):
        return message
    return (message if isinstance(message, str) else json.dumps(message)).encode()
