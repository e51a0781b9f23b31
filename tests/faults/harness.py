"""Real workers, started, frozen and killed by a test; what they leave behind is what is looked at."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psycopg
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from lovelace_streams.errors import EXIT_DEPLOYMENT

ROOT = Path(__file__).parents[2]


DEADLINE = 240.0
"""How long a condition is waited for at most, in seconds: far beyond what it takes, on a busy machine too."""


WAY = "items" if os.environ.get("COLUMNAR") == "off" else "columns"
"""How messages pass a flow of our own steps."""


def eventually(condition: Callable[[], bool], seconds: float = DEADLINE, pause: float = 0.1) -> None:
    """Wait for a condition; fail when the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(pause)


class Worker:
    """One process of a flow, its log in a file."""

    def __init__(self, module: str, environment: dict[str, str], log: Path, folder: Path = ROOT) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bytewax.run", module],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "LOG_FORMAT": "json", "METRICS_PORT": "0", **environment},
                stdout=file,
                stderr=file,
            )

    def terminate(self, seconds: float = DEADLINE) -> tuple[int, float]:
        """SIGTERM; answers the exit code and how long it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds), time.monotonic() - began

    def stopped(self) -> str:
        """Wait until it has stopped for a reason (exit code 78); answers its last line."""
        assert self.process.wait(DEADLINE) == EXIT_DEPLOYMENT, self.log.read_text()[-3000:]
        return self.log.read_text().strip().splitlines()[-1]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def events(self, name: str) -> list[dict]:
        """The log's lines of one event."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [
            entry
            for line in lines
            if line.startswith("{")
            for entry in [json.loads(line)]
            if entry.get("event") == name
        ]


class Fleet:
    """Workers of one flow, all of which are gone when the test is over."""

    def __init__(self, module: str, environment: dict[str, str], folder: Path) -> None:
        self.module = module
        self.environment = environment
        self.folder = folder
        self.workers: list[Worker] = []

    def start(self, **changes: str) -> Worker:
        worker = Worker(self.module, self.environment | changes, self.folder / f"worker{len(self.workers)}.log")
        self.workers.append(worker)
        return worker

    def ways(self) -> set[str]:
        """The ways that the workers' plans give their messages: `columns`, `items`."""
        return {plan["way"] for worker in self.workers for plan in worker.events("plan")}

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()
        for worker in self.workers:  # pytest shows it where the test failed
            print(f"--- {worker.log.name}", worker.log.read_text(errors="replace")[-5000:], sep="\n")


class Group:
    """A consumer group as the broker knows it."""

    def __init__(self, brokers: str, name: str) -> None:
        self.brokers = brokers
        self.name = name

    def committed(self, topic: str, partitions: int = 3) -> list[int]:
        """The committed offset of each partition, 0 where there is none."""
        consumer = Consumer({"bootstrap.servers": self.brokers, "group.id": self.name})
        wanted = [TopicPartition(topic, p) for p in range(partitions)]
        try:
            while True:
                try:
                    return [max(0, p.offset) for p in consumer.committed(wanted, 10)]
                except KafkaException as error:
                    if not error.args[0].retriable() and error.args[0].code() != KafkaError.NOT_COORDINATOR:
                        raise
        finally:
            consumer.close()


def ends(brokers: str, topic: str, partitions: int = 3) -> list[int]:
    """The end of each partition."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "ends"})
    try:
        return [consumer.get_watermark_offsets(TopicPartition(topic, p), 10)[1] for p in range(partitions)]
    finally:
        consumer.close()


def send(brokers: str, topic: str, messages: Iterable[tuple[bytes, bytes]], headers=None, **settings) -> int:
    """Produce (key, value) pairs and wait for every acknowledgement.

    Idempotent, so that they lie in the order given: a broker that has just begun refuses first batches, and without it
    librdkafka sends those again behind later ones.
    """
    ours = {"bootstrap.servers": brokers, "message.max.bytes": 67_108_864, "linger.ms": 5, "enable.idempotence": True}
    producer = Producer({**ours, **settings})
    count = 0
    for key, value in messages:
        producer.produce(topic, value, key, headers=headers or [])
        producer.poll(0)
        count += 1
    assert producer.flush(30) == 0
    return count


def read_all(brokers: str, topic: str, seconds: float = DEADLINE) -> list:
    """Every message of a topic up to now, holes or not."""
    config = {"bootstrap.servers": brokers, "group.id": "reader", "fetch.message.max.bytes": 67_108_864}
    consumer = Consumer(config | {"enable.partition.eof": True, "auto.offset.reset": "earliest"})
    try:
        if topic not in consumer.list_topics(timeout=10).topics:
            return []
        unread = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in unread])
        found: list = []
        end = time.monotonic() + seconds
        while unread:
            assert time.monotonic() < end, f"{topic} was not read to its end within {seconds} s"
            for message in consumer.consume(500, 0.2):
                if message.error() is None:
                    found.append(message)
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
        return found
    finally:
        consumer.close()


def query(dsn: str, text: str, *parameters: object) -> list[tuple]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(text, parameters or None)
        return cursor.fetchall() if cursor.description else []
