"""What a worker shows of its partitions, second by second, on a clock that the test turns."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from lovelace_streams.observability import metrics
from lovelace_streams.records import Envelope, Outcome, Record, Settled
from lovelace_streams.runtime.gauges import PartitionStatus, WorkerGauges
from lovelace_streams.runtime.in_flight import InFlight

TOPIC = "raw"


class Worker:
    """One pipeline's accounts and their watch; `clock` and `ends` are turned by hand."""

    def __init__(self, pipeline: str) -> None:
        self.pipeline = pipeline
        self.now = 1000.0
        self.in_flight = InFlight()
        self.ends: dict[int, int] = {}
        self.waiting_for: dict[tuple[str, int], str] = {}
        self.watch = WorkerGauges(
            pipeline,
            self.in_flight,
            lambda a: self.ends.get(a.partition),
            lambda: self.now,
            waiting_for=self.waiting_for,
        )

    def read(self, partition: int, *offsets: int, items: int = 1) -> list[Envelope[Any]]:
        assignment = self.in_flight.of(TOPIC, partition)
        assert assignment is not None
        self.watch.serve(idle=False, between_windows=True)  # the window before has been through every step
        window = []
        for offset in offsets:
            record = Record(TOPIC, partition, offset, assignment.next, assignment.number, None, b"", [], -1)
            self.in_flight.read(record)
            window.append(Envelope(record, 0, record.value))
        self.watch.read(window)
        for envelope in window:  # as `decode` does in the window's way through the steps
            envelope.record.items = envelope.count = items
        return window

    def settle(self, *envelopes: Envelope[Any]) -> None:
        settled = Settled(Outcome.WRITTEN, list(envelopes))
        metrics.items(self.pipeline, settled, self.in_flight.settle(settled))

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.watch.serve(idle=False, between_windows=True)

    def shown(self, name: str, partition: int | None = None, **labels: str) -> float | None:
        place = {} if partition is None else {"topic": TOPIC, "partition": str(partition)}
        return REGISTRY.get_sample_value(f"lovelace_{name}", {"pipeline": self.pipeline, **place, **labels})

    def accounts(self) -> tuple[float, float]:
        """What was read, and what became of it."""
        ends = sum(
            self.shown("items_total", outcome=outcome, reason=reason) or 0
            for outcome in map(str, Outcome)
            for reason in ("", "null")
        )
        return self.shown("read_items_total") or 0, ends + sum(
            self.shown(name) or 0 for name in ("pending_items", "given_up_items_total")
        )


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    made = Worker(request.node.name)
    made.in_flight.assign(TOPIC, "id", 0, 0)
    made.in_flight.assign(TOPIC, "id", 1, 0)
    return made


def test_the_oldest_record_ages_until_it_is_settled(worker: Worker) -> None:
    worker.after(1)
    first = worker.read(0, 0)
    worker.after(1)
    second = worker.read(0, 1)
    worker.after(3)

    assert worker.shown("partition_oldest_unsettled_seconds", 0) == 3
    assert worker.shown("partition_oldest_unsettled_seconds", 1) == 0
    assert worker.shown("oldest_unsettled_seconds") == 3

    worker.settle(*first)
    worker.after(2)
    assert worker.shown("oldest_unsettled_seconds") == 2, "the second was first seen at the look before this one"

    worker.settle(*second)
    worker.after(1)
    assert worker.shown("oldest_unsettled_seconds") == 0


def test_settling_out_of_order_leaves_the_oldest_what_it_is(worker: Worker) -> None:
    oldest, newer = worker.read(0, 0), worker.read(0, 1)
    worker.after(1)
    worker.settle(*newer)
    worker.after(4)

    assert worker.shown("oldest_unsettled_seconds") == 4
    assert worker.shown("pending_items") == 1
    worker.settle(*oldest)


def test_the_hottest_partition_is_seen(worker: Worker) -> None:
    worker.ends = {0: 100, 1: 3}
    worker.read(0, *range(40))
    worker.read(1, *range(3))
    worker.after(1)

    assert [worker.shown("partition_end_offset", p) for p in (0, 1)] == [100, 3]
    assert [worker.shown("consumer_lag_records", p) for p in (0, 1)] == [60, 0]
    assert [worker.shown("partition_pending_items", p) for p in (0, 1)] == [40, 3]
    assert worker.shown("pending_items") == 43


def test_a_partition_whose_end_is_not_known_yet_shows_no_lag(worker: Worker) -> None:
    worker.after(1)

    assert worker.shown("consumer_lag_records", 0) is None
    assert worker.shown("partition_end_offset", 0) is None
    assert worker.shown("partition_pending_items", 0) == 0


def test_a_partition_that_was_given_up_is_not_shown(worker: Worker) -> None:
    worker.ends = {0: 5, 1: 5}
    worker.read(0, 0, 1)
    worker.after(1)
    worker.in_flight.end(TOPIC, 0)
    worker.after(1)

    for name in ("consumer_lag_records", "partition_end_offset", "partition_pending_items"):
        assert worker.shown(name, 0) is None
        assert worker.shown(name, 1) is not None
    assert worker.shown("pending_items") == 0
    assert worker.shown("oldest_unsettled_seconds") == 0


def test_where_each_partition_stands_is_said_whole(worker: Worker) -> None:
    worker.ends = {0: 100}
    first = worker.read(0, 0, 1, items=4)
    worker.after(1)
    worker.settle(first[0])
    worker.after(2)

    assert worker.watch.partition_statuses == [
        PartitionStatus(TOPIC, "id", 0, position=2, end=100, pending=4, oldest_unsettled_ms=2000),
        PartitionStatus(TOPIC, "id", 1, position=0, end=None, pending=0, oldest_unsettled_ms=0),
    ]


def test_what_a_partition_waits_for_is_said_and_left_out_where_it_does_not_wait(worker: Worker) -> None:
    worker.waiting_for[TOPIC, 0] = "schema 9"
    worker.after(1)

    told = msgspec.to_builtins(worker.watch.partition_statuses)
    assert [status.get("waiting_for") for status in told] == ["schema 9", None]


def test_it_looks_once_a_second_and_not_more_often(worker: Worker) -> None:
    worker.after(1)
    worker.read(0, 0)
    worker.after(0.5)
    assert worker.shown("pending_items") == 0
    worker.after(0.5)
    assert worker.shown("pending_items") == 1


def test_every_item_read_is_accounted_for(worker: Worker) -> None:
    written, failed, held, lost = (
        worker.read(0, 0, items=3), worker.read(0, 1, items=2), worker.read(0, 2), worker.read(1, 0, 1, items=5)
    )  # fmt: skip
    worker.after(1)
    worker.settle(*written)
    for envelope in failed:
        assert worker.in_flight.fail(envelope.record, {0: "null", 1: "null"})
        metrics.failures(worker.pipeline, ["null", "null"])
    worker.in_flight.end(TOPIC, 1)
    worker.settle(*lost)  # durable, but not ours any more: the next owner reads it again and counts it
    worker.after(1)

    assert worker.accounts() == (16, 16), held
    assert worker.shown("items_total", outcome="written", reason="") == 3
