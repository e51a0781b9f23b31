"""Whatever a topic of ours is set to, or a broker sets by default: letters arrive and stay, or the worker stops."""

import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lovelace_streams.dead_letters.sender import DeadLetterSender
from lovelace_streams.kafka.admin import topic_config
from lovelace_streams.records import DeadLetter, Outcome, Reason, Record
from lovelace_streams.settings import KafkaSettings
from lovelace_streams.sources.kafka import KafkaSource
from tests.examples import examples
from tests.faults.harness import eventually, read_all

LONGEST = str(2**63 - 1)
CLOCKS = st.sampled_from(["0", "1", "60000", "3600000", LONGEST])
TOPIC_SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "cleanup.policy": st.sampled_from(["delete", "compact", "compact,delete", "delete,compact"]),
        "message.timestamp.type": st.sampled_from(["CreateTime", "LogAppendTime"]),
        "message.timestamp.before.max.ms": CLOCKS,
        "message.timestamp.after.max.ms": CLOCKS,
        "max.message.bytes": st.sampled_from(["1", "1000", "70000", "1048588", "8000000"]),
        "segment.bytes": st.sampled_from(["1048576", "1073741824"]),
        "compression.type": st.sampled_from(["producer", "uncompressed", "gzip", "lz4", "snappy", "zstd"]),
        "min.insync.replicas": st.sampled_from(["1", "2"]),
        "retention.ms": st.sampled_from(["-1", "86400000"]),
    },
)
BROKER_DEFAULTS = st.fixed_dictionaries(
    {},
    optional={
        "log.cleanup.policy": st.sampled_from(["delete", "compact", "compact,delete"]),
        "log.message.timestamp.type": st.sampled_from(["CreateTime", "LogAppendTime"]),
        "log.message.timestamp.before.max.ms": CLOCKS,
        "log.message.timestamp.after.max.ms": CLOCKS,
        "message.max.bytes": st.sampled_from(["1000", "1048588"]),
        "log.segment.bytes": st.sampled_from(["1048576", "1073741824"]),
        "compression.type": st.sampled_from(["producer", "uncompressed", "gzip", "zstd"]),
        "log.retention.ms": st.sampled_from(["1000", "86400000"]),
    },
)
KEYS = st.lists(st.sampled_from([None, b"", b"a", b"b"]), min_size=1, max_size=6)
SIZES = st.sampled_from([10, 5_000, 200_000])


class Letters:
    """A worker whose every message fails, and the topic of its letters."""

    def __init__(self, brokers: str, source: str, erasable: timedelta | None = None) -> None:
        self.name = f"letters-{uuid.uuid4().hex}"
        self.source = KafkaSource(KafkaSettings(brokers, dead_letter_topic=self.name), topics=[source])
        self.source.pipeline = "letters"
        self.source.in_flight.assign(source, "T-1", 0, 0)
        self.sender = DeadLetterSender(self.source, erasable=erasable)
        self.sent = 0

    def send(self, keys: list[bytes | None], size: int = 10) -> None:
        """One letter a key; returns when all have arrived, or the worker stops."""
        [held] = self.source.in_flight.current.values()
        for key in keys:
            record = Record(held.topic, 0, held.next, held.next, held.number, key, bytes(size), [], 5, items=1)
            self.source.in_flight.read(record)
            self.sender.take([DeadLetter(record, 0, 1, "upsert", Reason.CHECK, "rule", "23514")])
        self.sent += len(keys)
        eventually(self.ended, seconds=30, pause=0.01)
        self.sender.close()

    def ended(self) -> bool:
        self.sender.serve(idle=True, between_windows=True)
        settled = self.source.in_flight.totals[Outcome.DEAD_LETTERED] == self.sent
        return settled or self.source.fault is not None


@pytest.fixture
def source_topic(make_topic) -> str:
    return make_topic("own", partitions=1, max_message_bytes=1_048_588)


@pytest.mark.slow
@hypothesis_settings(max_examples=examples(40))
@given(config=TOPIC_SETTINGS, keys=KEYS, size=SIZES)
@example(config={"cleanup.policy": "compact"}, keys=[None, b"a", b"a"], size=10)
@example(config={"message.timestamp.before.max.ms": "0"}, keys=[b"a"], size=10)
@example(config={"max.message.bytes": "1"}, keys=[b"a"], size=10)
def test_letters_arrive_on_any_topic_or_the_worker_names_what_is_wrong_with_it(
    brokers: str, source_topic: str, config: dict[str, str], keys: list[bytes | None], size: int
) -> None:
    letters = Letters(brokers, source_topic)
    admin = AdminClient({"bootstrap.servers": brokers})
    admin.create_topics([NewTopic(letters.name, 1, config=config)])[letters.name].result(20)

    letters.send(keys, size)

    arrived = read_all(brokers, letters.name)
    if letters.source.fault is not None:
        wrong = str(letters.source.fault)
        assert letters.name in wrong
        assert any(name in wrong for name in config)
        assert arrived == [], "it stops before it sends a letter"
    else:
        assert sorted(message.key() or b"" for message in arrived) == sorted(key or b"" for key in keys)
        assert "compact" not in config.get("cleanup.policy", "")


@pytest.fixture
def defaults(brokers: str) -> Iterator[AdminClient]:
    """Changes the defaults of the broker, and takes the changes back."""
    admin = AdminClient({"bootstrap.servers": brokers})
    yield admin
    change(admin, dict.fromkeys(BROKER_NAMES, None))


BROKER_NAMES = [
    "log.cleanup.policy", "log.message.timestamp.type", "log.message.timestamp.before.max.ms",
    "log.message.timestamp.after.max.ms", "message.max.bytes", "log.segment.bytes", "compression.type",
    "log.retention.ms",
]  # fmt: skip


def change(admin: AdminClient, values: dict[str, str | None]) -> None:
    """Set defaults of the broker; None takes a change back."""
    entries = [
        ConfigEntry(
            name,
            value or "",
            incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET,
        )
        for name, value in values.items()
    ]
    broker = ConfigResource(ResourceType.BROKER, "1", incremental_configs=entries)
    admin.incremental_alter_configs([broker])[broker].result(20)


@pytest.mark.slow
@hypothesis_settings(max_examples=examples(20))
@given(given=BROKER_DEFAULTS, keys=KEYS)
def test_letters_arrive_and_stay_whatever_the_broker_sets_by_default(
    brokers: str, source_topic: str, defaults: AdminClient, given: dict[str, str], keys: list[bytes | None]
) -> None:
    change(defaults, dict.fromkeys(BROKER_NAMES, None) | given)
    letters = Letters(brokers, source_topic)

    letters.send(keys)

    assert letters.source.fault is None
    arrived = read_all(brokers, letters.name)
    assert sorted(message.key() or b"" for message in arrived) == sorted(key or b"" for key in keys)
    made = topic_config(defaults, letters.name)
    assert (made["cleanup.policy"], made["retention.ms"], made["retention.bytes"]) == ("delete", "-1", "-1")


@given(keys=KEYS)
@hypothesis_settings(max_examples=examples(10))
def test_every_letter_that_can_be_erased_has_a_key(brokers: str, source_topic: str, keys: list[bytes | None]) -> None:
    letters = Letters(brokers, source_topic, erasable=timedelta(days=30))

    letters.send(keys)

    assert letters.source.fault is None
    arrived = [
        (message.key(), dict(message.headers())["lovelace-origin"]) for message in read_all(brokers, letters.name)
    ]
    assert len(arrived) == len(keys)
    assert sorted(key for key, origin in arrived if key != origin) == sorted(key for key in keys if key is not None)
    made = topic_config(AdminClient({"bootstrap.servers": brokers}), letters.name)
    assert set(made["cleanup.policy"].split(",")) == {"compact", "delete"}
    assert made["retention.ms"] == made["delete.retention.ms"] == "2592000000"
