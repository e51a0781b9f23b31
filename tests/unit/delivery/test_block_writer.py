"""A large block is written while the next window is read; nothing of it is lost or settled twice."""

import threading
from collections.abc import Callable, Sequence

import pytest

from lovelace_streams.dead_letters.sender import DeadLetterSender
from lovelace_streams.delivery.block_writer import GATHER_SECONDS, LARGE, BlockWriter
from lovelace_streams.errors import DestinationFault
from lovelace_streams.records import Batch, DeadLetter, Envelope, Outcome, Reason, Record
from lovelace_streams.rows import Row
from lovelace_streams.settings import KafkaSettings
from lovelace_streams.sources.kafka import KafkaSource
from lovelace_streams.writers import Capabilities, Entry, RowResult
from lovelace_streams.writers.memory import MemoryWriter


class Thing(Row, table="things", primary_key="id"):
    id: int


class Held(MemoryWriter):
    """Writes a block when it is let; `faults` come first."""

    def __init__(self) -> None:
        super().__init__(Thing)
        self.let = threading.Event()
        self.faults: list[DestinationFault] = []
        self.blocks: list[int] = []

    def write(self, block: Sequence[Entry]) -> list[RowResult]:
        assert self.let.wait(30)
        if self.faults:
            raise self.faults.pop()
        self.blocks.append(len(block))
        return super().write(block)

    def abort(self) -> None:
        self.let.set()


class Behind:
    """A member of a group of which more has arrived than a window holds."""

    behind = True


class Silent:
    """A producer that nothing is sent by here."""


@pytest.fixture
def writer():
    return Held()


@pytest.fixture
def source():
    source = KafkaSource(KafkaSettings("127.0.0.1:1"), ["t"])
    source.pipeline = "p"
    source.in_flight.assign("t", "id", 0, 0)
    return source


@pytest.fixture
def carrier(writer, source):
    carrier = BlockWriter("upsert", writer, source)
    source.register(carrier, carries=True)
    carrier.serve(idle=False, between=True)  # connects
    yield carrier
    writer.let.set()
    carrier.close()


@pytest.fixture
def batch(source) -> Callable[[int], Batch[Row]]:
    def make(rows: int) -> Batch[Row]:
        [assignment] = source.in_flight.current.values()
        envelopes = []
        for _ in range(rows):
            offset = assignment.next
            record = Record("t", 0, offset, offset, assignment.number, None, b"", [], timestamp=-1, items=1)
            source.in_flight.read(record)
            envelopes.append(Envelope(record, 0, Thing(id=offset)))
        return Batch(envelopes, "window", 0)

    return make


def settled(ends) -> int:
    assert {end.outcome for end in ends} <= {Outcome.WRITTEN}
    return sum(len(end.envelopes) for end in ends)


def through(carrier):
    """Wait for the block that was begun, without taking it."""
    carrier._begun.flight.exception(30)


def test_a_large_block_is_left_and_finished_by_the_next_call(carrier, writer, batch):
    assert carrier.write([batch(LARGE)]) == []
    assert carrier.unfinished()
    writer.let.set()
    assert settled(carrier.write([batch(LARGE), batch(5)])) == 2 * LARGE + 5
    assert writer.blocks == [LARGE, LARGE, 5]
    assert not carrier.unfinished()


def test_a_small_block_is_waited_for(carrier, writer, batch):
    writer.let.set()
    assert settled(carrier.write([batch(LARGE - 1)])) == LARGE - 1
    assert not carrier.unfinished()


def test_a_silent_topic_leaves_nothing_behind(carrier, writer, source, batch):
    carrier.write([batch(LARGE)])
    carrier.serve(idle=True, between=True)
    assert source.in_flight.totals[Outcome.WRITTEN] == 0
    writer.let.set()
    through(carrier)
    carrier.serve(idle=True, between=True)
    assert source.in_flight.totals[Outcome.WRITTEN] == LARGE
    assert not carrier.unfinished()


@pytest.fixture
def behind(writer, source):
    """More arrives than a window holds; a block may be twice as large as the windows here."""
    writer.capabilities = Capabilities(block_rows=2 * LARGE)
    source._member = Behind()


def test_while_the_source_is_behind_a_block_is_gathered_over_windows(behind, carrier, writer, batch):
    writer.let.set()
    assert carrier.write([batch(LARGE)]) == []
    assert carrier._begun is None
    assert carrier.unfinished()
    assert carrier.write([batch(LARGE)]) == []
    through(carrier)
    assert writer.blocks == [2 * LARGE]
    assert settled(carrier.write([batch(LARGE + 1), batch(LARGE)])) == 2 * LARGE
    through(carrier)
    assert settled(carrier.write([])) == LARGE + 1
    assert writer.blocks == [2 * LARGE, LARGE + 1]
    assert carrier.unfinished()


@pytest.mark.parametrize("ended", ["caught up", "late", "draining", "put aside"])
def test_what_was_gathered_goes_where_nothing_more_is_there(behind, carrier, writer, source, batch, ended):
    writer.let.set()
    carrier.write([batch(5)])
    carrier.serve(idle=False, between=True)
    assert writer.blocks == []

    if ended == "caught up":
        source._member.behind = False
    elif ended == "late":
        carrier._gathering.since -= GATHER_SECONDS
    elif ended == "draining":
        source.drain()
    else:
        carrier._aside.append(batch(1))
    carrier.serve(idle=False, between=True)
    assert source.in_flight.totals[Outcome.WRITTEN] == 5 + (ended == "put aside")
    assert not carrier.unfinished()


def test_what_was_gathered_of_a_partition_that_goes_is_left_to_its_next_owner(behind, carrier, writer, source, batch):
    writer.let.set()
    carrier.write([batch(5)])
    carrier.revoke(30)
    source.in_flight.end("t", 0)
    source._member.behind = False
    carrier.serve(idle=False, between=True)
    assert writer.blocks == []
    assert not carrier.unfinished()


def test_what_is_written_is_settled_before_its_partition_goes(carrier, writer, source, batch):
    carrier.write([batch(LARGE)])
    writer.let.set()
    carrier.revoke(30)
    assert source.in_flight.totals[Outcome.WRITTEN] == LARGE
    carrier.revoke(30)  # and once
    assert source.in_flight.totals[Outcome.WRITTEN] == LARGE


def test_what_failed_is_not_settled_and_written_again_by_whoever_owns_it(carrier, writer, source, batch):
    writer.faults.append(DestinationFault("40001", "deadlock"))
    carrier.write([batch(LARGE)])
    writer.let.set()
    carrier.revoke(30)
    assert source.in_flight.totals[Outcome.WRITTEN] == 0
    assert settled(carrier.write([batch(1)])) == LARGE + 1


def test_records_of_an_assignment_that_ended_meanwhile_are_not_settled(carrier, writer, source, batch):
    carrier.write([batch(LARGE)])
    source.in_flight.end("t", 0)
    writer.let.set()
    through(carrier)
    carrier.serve(idle=True, between=True)
    assert source.in_flight.totals[Outcome.WRITTEN] == 0
    assert not carrier.unfinished()


def test_what_is_being_written_has_passed_the_steps_before(carrier, writer, source, batch):
    """A window that is refused in part stops nobody, although the rest of it is still being written."""
    office = DeadLetterSender(source)
    office._producer = Silent()
    [assignment] = source.in_flight.current.values()
    letters = []
    for job in ("one", "two"):
        for _ in range(600):
            offset = assignment.next
            record = Record("t", 0, offset, offset, assignment.number, None, b"", [], timestamp=-1, items=1, job=job)
            source.in_flight.read(record)
            letters.append(DeadLetter(record, 0, 1, "normalize", Reason.MISSING, "same"))
    office.take(letters)
    carrier.write([batch(LARGE)])
    office._judge(idle=False)
    assert source.fault is None

    office.take(letters)  # and nothing reached the writer after these
    office._judge(idle=False)
    assert source.fault is not None


def test_held_letters_wait_for_what_is_still_being_written(carrier, writer, source, batch):
    """That nothing more is there to read does not make a few refusals few: the block under way may be refused, too."""
    office = DeadLetterSender(source)
    office._producer = Silent()
    [refused] = batch(1).envelopes
    office.take([DeadLetter(refused.record, 0, 1, "upsert", Reason.CHECK, "rule")])
    carrier.write([batch(LARGE)])
    office._judge(idle=True)
    assert office._to_send == []

    writer.let.set()
    through(carrier)
    carrier.serve(idle=True, between=True)
    office._judge(idle=True)
    assert [letter.record for letter in office._to_send] == [refused.record]


def test_blocks_that_are_put_aside_wait_for_each_other(carrier, writer, batch):
    """Nothing tells an outage from a row that harms while there is no other row to try."""
    writer.let.set()
    writer.probe = lambda _others=(): None
    writer.faults += [DestinationFault("57014", "timeout")] * 20
    carrier._patience._wait = lambda _seconds: not carrier._patience.inconclusive
    assert carrier.write([batch(1)]) == []
    assert carrier.write([batch(1)]) == []
    writer.faults.clear()
    assert settled(carrier.write([])) == 2
