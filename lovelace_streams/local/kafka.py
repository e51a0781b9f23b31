"""A real Kafka broker: one KRaft node that is its own controller, on the loopback."""

import base64
import contextlib
import secrets
import shutil
from pathlib import Path

from lovelace_streams.local import java
from lovelace_streams.local.processes import HOST, ManagedServer, free_port, listens

PROGRAM = "org.apache.kafka:kafka_2.13:4.1.0+org.slf4j:slf4j-simple:1.7.36"
MESSAGE_BYTES = 64 * 1024 * 1024
"""The largest message: room for a 30 MB one and its dead letter."""

OPTIONS = (
    "-Xmx512m",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
)


class Kafka(ManagedServer):
    """It makes no topic unasked (`auto.create.topics.enable=false`), and accepts messages of 64 MiB."""

    name = "kafka"
    variable = "KAFKA_BROKERS"

    @property
    def brokers(self) -> str:
        """The value of `bootstrap.servers`."""
        return self.address

    def prepare(self) -> None:
        """Download the broker; format its data folder under a temporary name, so that the final name means whole."""
        java.classpath(PROGRAM)
        if (self.data / "data").is_dir():
            return
        half = self.data / "data.part"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        config = self._configure("format.properties", half, broker=19092, controller=19093)
        cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=").replace("-", "A")
        arguments = ("format", "-t", cluster, "-c", str(config))
        options = [*OPTIONS, java.SHORT_LIVED]
        self.run("format", java.command(PROGRAM, "kafka.tools.StorageTool", *arguments, options=options))
        half.rename(self.data / "data")

    def before_launch(self) -> None:
        """Write the configuration for this start's ports."""
        self._configure("server.properties", self.data / "data", broker=self.port or 0, controller=free_port())

    def command(self) -> list[str]:
        """Give the command of the broker."""
        return java.command(PROGRAM, "kafka.Kafka", str(self.data / "server.properties"), options=OPTIONS)

    def answers(self) -> bool:
        """Whether it answers a request for metadata."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        if not listens(self.port):
            return False
        with contextlib.suppress(KafkaException):
            client = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
            return bool(client.list_topics(timeout=2).brokers)
        return False

    def _configure(self, name: str, data: Path, *, broker: int, controller: int) -> Path:
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "listeners": f"PLAINTEXT://{HOST}:{broker},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{broker}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": data,
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,  # 50 are for clusters
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            "group.initial.rebalance.delay.ms": 0,  # the default of 3 s is for clusters that start slowly
            "log.cleaner.backoff.ms": 500,  # compact a topic at once, not 15 s later
            "broker.session.timeout.ms": 3000,  # a killed broker may come back only when its session has ended
            "broker.heartbeat.interval.ms": 500,
            "message.max.bytes": MESSAGE_BYTES,
            "replica.fetch.max.bytes": MESSAGE_BYTES,
            "socket.request.max.bytes": 2 * MESSAGE_BYTES,
            "group.min.session.timeout.ms": 1000,  # tests lose members quickly
        }
        path = self.data / name
        path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        return path
