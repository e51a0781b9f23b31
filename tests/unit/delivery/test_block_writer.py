"""A large block is written while the next window is read; nothing of it is lost or settled twice."""

import threading
from collections.abc import Callable, Sequence

import pytest

from lovelace_streams.dead_letters.sender import DeadLetterSender
from lovelace_streams.delivery.block_writer import BACKGROUND_ROWS_MIN, BUFFER_SECONDS, BlockWriter
from lovelace_streams.delivery.blocks import Block, BlockState
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
        self.begun = threading.Event()
        self.let = threading.Event()
        self.faults: list[DestinationFault] = []
        self.blocks: list[int] = []

    def write(self, block: Sequence[Entry]) -> list[RowResult]:
        self.begun.set()
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
def block_writer(writer, source):
    block_writer = BlockWriter("upsert", writer, source)
    source.register(block_writer, holds_items=True)
    block_writer.serve(idle=False, between_windows=True)  # connects
    yield block_writer
    writer.let.set()
    block_writer.close()


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


def through(block_writer):
    """Wait for the block that was begun, without taking it."""
    [block] = [block for block in block_writer._blocks if block.state is BlockState.WRITING]
    assert block.call.wait(30)


def test_a_large_block_is_left_and_finished_by_the_next_call(block_writer, writer, batch):
    assert block_writer.write([batch(BACKGROUND_ROWS_MIN)]) == []
    assert block_writer.unfinished()
    writer.let.set()
    assert settled(block_writer.write([batch(BACKGROUND_ROWS_MIN), batch(5)])) == 2 * BACKGROUND_ROWS_MIN + 5
    assert writer.blocks == [BACKGROUND_ROWS_MIN, BACKGROUND_ROWS_MIN, 5]
    assert not block_writer.unfinished()


def test_two_large_blocks_are_left_and_a_third_waits_for_the_first(block_writer, writer, batch):
    assert block_writer.write([batch(BACKGROUND_ROWS_MIN)]) == []
    assert block_writer.write([batch(BACKGROUND_ROWS_MIN + 1)]) == []
    threading.Timer(0.05, writer.let.set).start()
    ends = block_writer.write([batch(BACKGROUND_ROWS_MIN + 2)])
    assert settled(ends) in (BACKGROUND_ROWS_MIN, 2 * BACKGROUND_ROWS_MIN + 1)
    while block_writer.unfinished():
        ends += block_writer.write([])
    assert settled(ends) == 3 * BACKGROUND_ROWS_MIN + 3
    assert writer.blocks == [BACKGROUND_ROWS_MIN, BACKGROUND_ROWS_MIN + 1, BACKGROUND_ROWS_MIN + 2]


def test_a_block_behind_one_that_failed_is_not_tried_before_it(block_writer, writer, batch, monkeypatch):
    monkeypatch.setattr(block_writer._context, "keep_alive", lambda *_, **__: True)  # the pauses of the back-off
    writer.faults = [DestinationFault("57P01")]
    block_writer.write([batch(BACKGROUND_ROWS_MIN)])
    block_writer.write([batch(BACKGROUND_ROWS_MIN + 1)])
    writer.let.set()
    ends = []
    while block_writer.unfinished():
        ends += block_writer.write([])
    assert settled(ends) == 2 * BACKGROUND_ROWS_MIN + 1
    assert writer.blocks == [BACKGROUND_ROWS_MIN, BACKGROUND_ROWS_MIN + 1]
    assert writer.faults == []


def test_a_small_block_is_waited_for(block_writer, writer, batch):
    writer.let.set()
    assert settled(block_writer.write([batch(BACKGROUND_ROWS_MIN - 1)])) == BACKGROUND_ROWS_MIN - 1
    assert not block_writer.unfinished()


def test_a_silent_topic_leaves_nothing_behind(block_writer, writer, source, batch):
    block_writer.write([batch(BACKGROUND_ROWS_MIN)])
    block_writer.serve(idle=True, between_windows=True)
    assert source.in_flight.totals[Outcome.WRITTEN] == 0
    writer.let.set()
    through(block_writer)
    block_writer.serve(idle=True, between_windows=True)
    assert source.in_flight.totals[Outcome.WRITTEN] == BACKGROUND_ROWS_MIN
    assert not block_writer.unfinished()


@pytest.fixture
def behind(writer, source):
    """More arrives than a window holds; a block may be twice as large as the windows here."""
    writer.capabilities = Capabilities(block_rows=2 * BACKGROUND_ROWS_MIN)
    source._reader = Behind()


def test_while_the_source_is_behind_a_block_is_gathered_over_windows(behind, block_writer, writer, batch):
    writer.let.set()
    assert block_writer.write([batch(BACKGROUND_ROWS_MIN)]) == []
    assert block_writer._blocks == []
    assert block_writer.unfinished()
    assert block_writer.write([batch(BACKGROUND_ROWS_MIN)]) == []
    through(block_writer)
    assert writer.blocks == [2 * BACKGROUND_ROWS_MIN]
    assert (
        settled(block_writer.write([batch(BACKGROUND_ROWS_MIN + 1), batch(BACKGROUND_ROWS_MIN)]))
        == 2 * BACKGROUND_ROWS_MIN
    )
    through(block_writer)
    assert settled(block_writer.write([])) == BACKGROUND_ROWS_MIN + 1
    assert writer.blocks == [2 * BACKGROUND_ROWS_MIN, BACKGROUND_ROWS_MIN + 1]
    assert block_writer.unfinished()


@pytest.mark.parametrize("ended", ["caught up", "late", "draining", "parked"])
def test_what_was_gathered_goes_where_nothing_more_is_there(behind, block_writer, writer, source, batch, ended):
    writer.let.set()
    block_writer.write([batch(5)])
    block_writer.serve(idle=False, between_windows=True)
    assert writer.blocks == []

    if ended == "caught up":
        source._reader.behind = False
    elif ended == "late":
        block_writer._buffer.since -= BUFFER_SECONDS
    elif ended == "draining":
        source.drain()
    else:
        block_writer._park(Block(batch(1)))
    block_writer.serve(idle=False, between_windows=True)
    assert source.in_flight.totals[Outcome.WRITTEN] == 5 + (ended == "parked")
    assert not block_writer.unfinished()


def test_what_was_gathered_of_a_partition_that_goes_is_left_to_its_next_owner(
    behind, block_writer, writer, source, batch
):
    writer.let.set()
    block_writer.write([batch(5)])
    block_writer.revoke(30)
    source.in_flight.end("t", 0)
    source._reader.behind = False
    block_writer.serve(idle=False, between_windows=True)
    assert writer.blocks == []
    assert not block_writer.unfinished()


def test_what_is_written_is_settled_before_its_partition_goes(block_writer, writer, source, batch):
    block_writer.write([batch(BACKGROUND_ROWS_MIN)])
    writer.let.set()
    block_writer.revoke(30)
    assert source.in_flight.totals[Outcome.WRITTEN] == BACKGROUND_ROWS_MIN
    block_writer.revoke(30)  # and once
    assert source.in_flight.totals[Outcome.WRITTEN] == BACKGROUND_ROWS_MIN


def test_what_failed_is_not_settled_and_written_again_by_whoever_owns_it(block_writer, writer, source, batch):
    writer.faults.append(DestinationFault("40001", "deadlock"))
    block_writer.write([batch(BACKGROUND_ROWS_MIN)])
    writer.let.set()
    block_writer.revoke(30)
    assert source.in_flight.totals[Outcome.WRITTEN] == 0
    assert settled(block_writer.write([batch(1)])) == BACKGROUND_ROWS_MIN + 1


def test_records_of_an_assignment_that_ended_meanwhile_are_not_settled(block_writer, writer, source, batch):
    block_writer.write([batch(BACKGROUND_ROWS_MIN)])
    source.in_flight.end("t", 0)
    writer.let.set()
    through(block_writer)
    block_writer.serve(idle=True, between_windows=True)
    assert source.in_flight.totals[Outcome.WRITTEN] == 0
    assert not block_writer.unfinished()


def test_what_is_being_written_has_passed_the_steps_before(block_writer, writer, source, batch):
    """A window that is refused in part stops nobody, although the rest of it is still being written."""
    sender = DeadLetterSender(source)
    sender._producer = Silent()
    [assignment] = source.in_flight.current.values()
    letters = []
    for job in ("one", "two"):
        for _ in range(600):
            offset = assignment.next
            record = Record("t", 0, offset, offset, assignment.number, None, b"", [], timestamp=-1, items=1, job=job)
            source.in_flight.read(record)
            letters.append(DeadLetter(record, 0, 1, "normalize", Reason.MISSING, "same"))
    sender.take(letters)
    block_writer.write([batch(BACKGROUND_ROWS_MIN)])
    sender._release_letters(idle=False)
    assert source.fault is None

    sender.take(letters)  # and nothing reached the writer after these
    sender._release_letters(idle=False)
    assert source.fault is not None


def test_held_letters_wait_for_what_is_still_being_written(block_writer, writer, source, batch):
    """That nothing more is there to read does not make a few refusals few: the block under way may be refused, too."""
    sender = DeadLetterSender(source)
    sender._producer = Silent()
    [refused] = batch(1).envelopes
    sender.take([DeadLetter(refused.record, 0, 1, "upsert", Reason.CHECK, "rule")])
    block_writer.write([batch(BACKGROUND_ROWS_MIN)])
    sender._release_letters(idle=True)
    assert sender._queue == []

    writer.let.set()
    through(block_writer)
    block_writer.serve(idle=True, between_windows=True)
    sender._release_letters(idle=True)
    assert [letter.record for letter in sender._queue] == [refused.record]


def test_blocks_that_are_parked_wait_for_each_other(block_writer, writer, batch):
    """Nothing tells an outage from a row that harms while there is no other row to try."""
    writer.let.set()
    writer.probe = lambda _others=(): None
    writer.faults += [DestinationFault("57014", "timeout")] * 20
    block_writer._retry._wait = lambda _seconds: not block_writer._retry.inconclusive
    assert block_writer.write([batch(1)]) == []
    assert block_writer.write([batch(1)]) == []
    writer.faults.clear()
    assert settled(block_writer.write([])) == 2


def test_a_call_that_takes_too_long_is_given_up_although_the_topic_is_silent(
    block_writer, writer, source, batch, monkeypatch
):
    monkeypatch.setattr(block_writer._context, "keep_alive", lambda *_, **__: True)
    block_writer.write([batch(BACKGROUND_ROWS_MIN)])
    assert writer.begun.wait(30)
    writer.deadline = 0.0
    block_writer.serve(idle=True, between_windows=True)  # nothing is read any more: no other call finds it
    assert writer.let.is_set(), "its connection was closed"
    assert source.in_flight.totals[Outcome.WRITTEN] == BACKGROUND_ROWS_MIN
    assert not block_writer.unfinished()
