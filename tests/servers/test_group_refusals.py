"""A worker that its group does not let in: it stops with the reason, and nothing looks well until then."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from lovelace_streams.kafka import end_offsets, faults, topic_ids
from lovelace_streams.kafka.client import KafkaClients
from lovelace_streams.kafka.consumer import GroupConsumer
from lovelace_streams.runtime.in_flight import Assignment
from lovelace_streams.runtime.worker import WorkerContext
from lovelace_streams.settings import KafkaSettings
from tests.faults.harness import Fleet, eventually, query, send


class Member:
    """A worker's consumer in this process, and the context that it notes its faults at."""

    def __init__(self, brokers: str, topic: str, **extra: str) -> None:
        named = {name.replace("_", "."): value for name, value in extra.items()}
        settings = KafkaSettings(brokers, group=topic, extra={"session.timeout.ms": "6000", **named})
        self.context = WorkerContext(settings, [topic], KafkaClients())
        self.reader = GroupConsumer(self.context)
        self.read = 0

    def round(self) -> None:
        """One round of the worker's loop."""
        if self.reader.is_open or self.reader.open():
            self.reader.confirm()
            self.read += len(self.reader.read(100, 0.05))

    @property
    def assignment(self) -> Assignment:
        """Its partition of the topic; it holds the one of the replay topic, too."""
        return next(a for a in self.context.in_flight.current.values() if a.topic in self.context.topics)

    def reads(self) -> bool:
        self.round()
        return self.reader.can_read and bool(self.context.in_flight.current)

    def stopped(self) -> bool:
        self.round()
        return self.context.fault is not None


@pytest.fixture
def topic(make_topic) -> str:
    return make_topic("refused", partitions=1)


@pytest.fixture
def eager(brokers: str, topic: str) -> Iterator[Consumer]:
    """A member of the group that shares partitions out eagerly, as a worker of another library would."""
    with_range = {"partition.assignment.strategy": "range", "session.timeout.ms": 6000, "log_level": 0}
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": topic, **with_range})
    consumer.subscribe([topic])
    eventually(lambda: consumer.poll(0.1) is None and bool(consumer.assignment()))
    yield consumer
    consumer.close()


def test_a_worker_whose_place_another_took_stops_and_names_the_setting(
    brokers: str, topic: str, database: str, tmp_path: Path
) -> None:
    query(database, "create table key_value (key bigint primary key, value bigint not null)")
    environment = {"KAFKA_BROKERS": brokers, "TOPIC": topic, "FLOW": topic, "PROGRESS_API_URL": ""}
    environment |= {"KAFKA_GROUP_INSTANCE_ID": "one", "KAFKA_SESSION_TIMEOUT_MS": "6000", "POSTGRES_DSN": database}
    with Fleet("tests.faults.keyvalue", environment, tmp_path) as fleet:
        first = fleet.start()
        eventually(lambda: bool(first.events("assigned")))
        second = Member(brokers, topic, group_instance_id="one")
        eventually(second.reads)
        second.reader.close()  # it leaves again: nobody reads

        line = first.stopped()

    assert "FENCED_INSTANCE_ID" in line
    assert "KAFKA_GROUP_INSTANCE_ID" in line


def test_a_member_with_another_strategy_is_waited_for_while_a_deployment_rolls(
    brokers: str, topic: str, eager: Consumer
) -> None:
    ours = Member(brokers, topic)
    eventually(lambda: not ours.reads() and ours.reader._refusals.suspected is not None)

    assert not ours.reader.can_read
    eager.close()

    eventually(ours.reads)
    assert ours.context.fault is None
    ours.reader.close()


def test_a_member_with_another_strategy_that_stays_stops_the_worker(
    brokers: str, topic: str, eager: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "GROUP_SECONDS", 3.0)
    ours = Member(brokers, topic)

    eventually(ours.stopped)

    assert "INCONSISTENT_GROUP_PROTOCOL" in str(ours.context.fault)
    assert "cooperative-sticky" in str(ours.context.fault)
    ours.reader.close()


def test_a_session_that_the_broker_does_not_take_stops_the_worker(
    brokers: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "GROUP_SECONDS", 3.0)
    ours = Member(brokers, topic, session_timeout_ms="3500000", max_poll_interval_ms="3500000")

    eventually(ours.stopped)

    assert "INVALID_SESSION_TIMEOUT" in str(ours.context.fault)
    assert "KAFKA_SESSION_TIMEOUT_MS" in str(ours.context.fault)
    ours.reader.close()


def test_what_a_consumer_does_not_fetch_shows_in_the_lag(
    brokers: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end_offsets, "ASK_SECONDS", 0.2)
    ours = Member(brokers, topic)
    eventually(ours.reads)
    assignment = ours.assignment
    assert ours.reader._consumer is not None
    ours.reader._consumer.pause(ours.reader._consumer.assignment())  # it stands, and says nothing of it
    send(brokers, topic, [(b"k", b"v")] * 7)

    def shown() -> bool:
        ours.round()
        return ours.reader.known_end(assignment) == assignment.next + 7

    eventually(shown)
    assert ours.read == 0
    ours.reader.close()


def test_a_broker_that_is_away_leaves_the_lag_unknown_and_the_worker_unready(
    kafka_server, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_ids, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(topic_ids, "REQUEST_SECONDS", 1.0)
    ours = Member(kafka_server.brokers, topic)
    eventually(ours.reads)
    assignment = ours.assignment
    eventually(lambda: ours.reads() and ours.reader.known_end(assignment) == 0)
    kafka_server.freeze()
    try:
        eventually(lambda: not ours.reads())
        assert ours.reader.known_end(assignment) is None
    finally:
        kafka_server.thaw()

    eventually(ours.reads)
    assert ours.context.fault is None
    ours.reader.close()
