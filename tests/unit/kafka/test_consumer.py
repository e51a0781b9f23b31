"""One window of a member of a group: what it gathers, and what becomes of it where a partition goes meanwhile."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from lovelace_streams.kafka.consumer import CONSUME_RECORDS_MAX, GroupConsumer
from lovelace_streams.runtime.in_flight import InFlight
from lovelace_streams.runtime.worker import WorkerContext
from lovelace_streams.settings import KafkaSettings
from lovelace_streams.testing.broker import Broker

TOPIC = "t"


class Rebalanced(Broker):
    """A broker whose group gives a partition up in a consumer's n-th call."""

    def __init__(self, at: int = 0) -> None:
        super().__init__(on_silence=lambda: None)
        self.at = at
        self.calls: list[int] = []

    def consumer(self, config: dict[str, Any]) -> Consumer:
        made: Any = super().consumer(config)
        consume: Callable[[int, float], list[Any]] = made.consume

        def counted(number: int, seconds: float) -> list[Any]:
            self.calls.append(number)
            if len(self.calls) == self.at:
                made._on_revoke(made, [TopicPartition(TOPIC, 0)])
            return consume(number, seconds)

        made.consume = counted
        return made


def member(broker: Broker, in_flight: InFlight, messages: int = 0) -> GroupConsumer:
    broker.create(TOPIC, 2)
    for n in range(messages):
        broker.append((TOPIC, n % 2), b"%d" % n, None, (), n)
    context = WorkerContext(KafkaSettings("memory", group="group"), (TOPIC,), broker)
    context.in_flight = in_flight
    made = GroupConsumer(context)
    assert made.open()
    assert context.fault is None
    made.idle(0)  # where it is assigned
    return made


def places(window: list[Any]) -> list[tuple[int, int]]:
    return [(envelope.record.partition, envelope.record.offset) for envelope in window]


@pytest.mark.parametrize(
    "count", [1, CONSUME_RECORDS_MAX - 1, CONSUME_RECORDS_MAX, CONSUME_RECORDS_MAX + 1, 3 * CONSUME_RECORDS_MAX]
)
def test_a_window_is_as_large_as_was_asked_for_and_its_lists_are_short(count: int) -> None:
    broker, in_flight = Rebalanced(), InFlight()
    reader = member(broker, in_flight, messages=count + 10)
    broker.calls.clear()

    window = reader.read(count, 0.0)

    assert len(window) == count
    assert max(broker.calls) <= CONSUME_RECORDS_MAX
    assert [len(a.in_flight) for a in in_flight.current.values() if a.topic == TOPIC] == [(count + 1) // 2, count // 2]
    assert reader.behind
    assert len(reader.read(count, 0.0)) == min(count, 10)
    assert reader.behind == (count <= 10)


def test_what_is_given_up_between_two_lists_goes_no_further() -> None:
    broker, in_flight = Rebalanced(at=3), InFlight()  # the first call is the one that it is assigned in
    reader = member(broker, in_flight, messages=2 * CONSUME_RECORDS_MAX)

    window = reader.read(2 * CONSUME_RECORDS_MAX, 0.0)

    assert broker.calls == [1, CONSUME_RECORDS_MAX, CONSUME_RECORDS_MAX, CONSUME_RECORDS_MAX // 2]
    assert {partition for partition, _ in places(window)} == {1}
    assert [envelope.record.assignment in in_flight.current for envelope in window] == [True] * CONSUME_RECORDS_MAX


class NoSuchOffset:
    """What librdkafka says of a partition whose position the broker does not have."""

    def __init__(self, partition: int) -> None:
        self._partition = partition

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return 5

    def error(self) -> KafkaError:
        return KafkaError(KafkaError._AUTO_OFFSET_RESET)


class MadeAgain(Broker):
    """A broker whose topic is made again: its id changes, and each partition says so in a call of its own."""

    def __init__(self) -> None:
        super().__init__(on_silence=lambda: None)
        self.generation = "A"
        self.events: list[NoSuchOffset] = []

    def consumer(self, config: dict[str, Any]) -> Consumer:
        made: Any = super().consumer(config)
        consume: Callable[[int, float], list[Any]] = made.consume
        made.consume = lambda number, seconds: [self.events.pop(0)] if self.events else consume(number, seconds)
        return made

    def admin(self, config: dict[str, Any]) -> Any:
        made: Any = super().admin(config)
        describe = made.describe_topics

        def described(topics: Any, **more: Any) -> dict[str, Any]:
            answers = describe(topics, **more)
            for name, answer in answers.items():
                answer.result().topic_id = name + self.generation
            return dict(answers)

        made.describe_topics = described
        return made

    def make_again(self) -> None:
        self.generation = "B"
        for partition in range(2):
            self.logs[TOPIC, partition].clear()
            self.append((TOPIC, partition), b"new", None, (), 0)


def test_a_topic_that_is_made_again_is_read_whole_although_its_partitions_say_so_one_after_the_other() -> None:
    broker, in_flight = MadeAgain(), InFlight()
    reader = member(broker, in_flight, messages=4)
    assert sorted(places(reader.read(10, 0.0))) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    broker.make_again()

    broker.events = [NoSuchOffset(0), NoSuchOffset(1)]  # the second one comes when its partition begins again already
    reader.idle(0)
    reader.idle(0)

    assert reader.starting
    assert sorted(places(reader.read(10, 0.0))) == [(0, 0), (1, 0)]
    assert {held.topic_id for held in in_flight.current.values() if held.topic == TOPIC} == {f"{TOPIC}B"}
