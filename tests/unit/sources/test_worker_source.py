"""A source of one's own: every step runs behind it as it does behind Kafka, and none of them was touched for it."""

from collections.abc import Sequence

from bytewax.dataflow import Dataflow
from bytewax.testing import run_main

import lovelace_streams as ls
from lovelace_streams.records import Envelope, Record
from lovelace_streams.runtime.in_flight import Assignment
from lovelace_streams.runtime.worker import WorkerContext
from lovelace_streams.testing import MemoryWriter
from lovelace_streams.testing.broker import Broker, QuietProcess

TOPIC = "list"


class ListReader:
    """Reads a list as the one partition of a topic; `committed` outlives it, as a stored position would."""

    behind = False
    starting = False

    def __init__(self, context: WorkerContext, values: Sequence[bytes], committed: list[int]) -> None:
        self._context = context
        self._values = values
        self._committed = committed
        self.is_open = False

    def open(self) -> bool:
        self._context.in_flight.assign(TOPIC, "id", 0, self._committed[-1])
        self.is_open = True
        return True

    def read(self, count: int, seconds: float) -> list[Envelope[bytes]]:
        [held] = self._context.in_flight.current.values()
        records = [
            Record(TOPIC, 0, offset, offset, held.number, None, self._values[offset], [], timestamp=0)
            for offset in range(held.next, min(held.next + count, len(self._values)))
        ]
        if records:
            self._context.in_flight.read(*records)
        elif not self._context.unfinished:
            self._context.drain()
        return [Envelope(record, 0, record.value or b"") for record in records]

    def idle(self, seconds: float) -> None:
        """Nothing has to be polled."""

    def confirm(self) -> None:
        """A list stays the list that it is."""

    def commit(self) -> None:
        for held in self._context.in_flight.committable():
            self._committed.append(held.position)
            held.committed = held.position

    def is_caught_up(self) -> bool:
        return True

    def known_end(self, assignment: Assignment) -> int | None:
        return len(self._values)

    def close(self) -> None:
        self._context.revoke(1.0)
        self._context.in_flight.end(TOPIC, 0)


class ListSource(ls.WorkerSource):
    """A list of values; dead letters go to the broker that its settings name, here one in memory."""

    def __init__(self, values: Sequence[bytes], committed: list[int]) -> None:
        self.broker = Broker(on_silence=lambda: None)
        super().__init__(ls.KafkaSettings("memory", poll_size=2), [TOPIC], self.broker)
        self.process = QuietProcess()
        self._values = values
        self._committed = committed

    def make_reader(self) -> ListReader:
        return ListReader(self, self._values, self._committed)


class Item(ls.Row, table="items", primary_key="id"):
    id: int


def flow(source: ListSource, writer: MemoryWriter) -> Dataflow:
    flow = Dataflow("items")
    decoded = ls.decode("decode", ls.worker_source("list", flow, source), ls.JsonDecoder(Item))
    items = ls.normalize("normalize", decoded.oks, Item)
    written = ls.upsert("upsert", ls.batch("batch", items.oks, ls.BatchPolicy()), writer, source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, items.errs, written.errs)
    ls.commit("commit", source, written.settled, dead.settled, decoded.skipped, items.skipped)
    return flow


def test_a_flow_runs_behind_a_source_of_ones_own() -> None:
    committed = [0]
    source = ListSource([b'{"id": 1}', b"not json", b'{"id": "x"}', b'{"id": 4}', b'{"id": 5}'], committed)
    writer = MemoryWriter(Item)

    run_main(flow(source, writer))

    assert source.fault is None
    assert sorted(row["id"] for row in writer.table.values()) == [1, 4, 5]
    letters = source.broker.logs["items.dlq", 0]
    assert [dict(letter.headers())["lovelace-reason"] for letter in letters] == [b"not_json", b"wrong_type"]
    assert [dict(letter.headers())["lovelace-origin"] for letter in letters] == [b"id/list/0/1", b"id/list/0/2"]
    assert committed[-1] == 5


def test_a_restart_goes_on_at_the_committed_position() -> None:
    committed = [0]
    values = [b'{"id": %d}' % n for n in range(3)]
    run_main(flow(ListSource(values, committed), MemoryWriter(Item)))
    writer = MemoryWriter(Item)

    run_main(flow(ListSource([*values, b'{"id": 7}'], committed), writer))

    assert [row["id"] for row in writer.table.values()] == [7]
    assert committed[-1] == 4
