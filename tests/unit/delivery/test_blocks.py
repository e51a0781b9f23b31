"""What of a block is still written when an assignment ends before, or while, it is prepared; for both ways of rows."""

import pytest

from lovelace_streams.columns import Chunk, Columns, Part, Run, Slice
from lovelace_streams.delivery.blocks import Block
from lovelace_streams.records import Batch, Envelope, Outcome, Record, Settled
from lovelace_streams.rows import Row
from lovelace_streams.writers import RowOutcome
from lovelace_streams.writers.memory import MemoryWriter

W, S = RowOutcome.WRITTEN, RowOutcome.SUPERSEDED


class Thing(Row, table="things", primary_key="id"):
    id: int


def rows(assignment: int, ids: list[int], *, in_columns: bool) -> list[Part]:
    """One row a message, read in an assignment."""
    if not in_columns:
        records = [Record("t", 0, n, n, assignment, None, b"{}", [], -1, items=1) for n in ids]
        return [Envelope(record, 0, Thing(id=n)) for record, n in zip(records, ids, strict=True)]
    count = len(ids)
    run = Run(0, count, ids[0], ids[0], [])
    chunk = Chunk("t", 0, assignment, ids, [None] * count, [b"{}"] * count, [-1] * count, [run])
    chunk.items = [1] * count
    return [Slice(Columns(chunk, Thing, {"id": ids}, range(count)), 0, count)]


@pytest.fixture(params=[True, False], ids=["columns", "items"])
def block(request: pytest.FixtureRequest) -> Block:
    """Rows of two assignments, in turn."""
    ids = {1: [0, 1, 2], 2: [3, 4, 5]}
    parts = [part for number in ids for part in rows(number, ids[number], in_columns=request.param)]
    return Block(Batch(parts, "rows", 12))


def ids_of(block: Block) -> list[int]:
    return [entry.row.id for entry in block.entries]  # type: ignore[attr-defined]


def test_rows_of_an_ended_assignment_are_not_written(block: Block) -> None:
    block.prepare({2}, MemoryWriter(Thing))

    assert ids_of(block) == [3, 4, 5]


def test_an_assignment_that_ends_after_a_block_is_prepared_takes_its_rows_out(block: Block) -> None:
    block.prepare({1, 2}, MemoryWriter(Thing))
    assert ids_of(block) == [0, 1, 2, 3, 4, 5]

    block.prepare({1}, MemoryWriter(Thing))

    assert ids_of(block) == [0, 1, 2]
    [superseded, written] = sorted(
        (outcome for outcome in block.outcomes("upsert", [S, W, S]) if isinstance(outcome, Settled)),
        key=lambda outcome: outcome.outcome,
    )
    assert [each.record.offset for each in superseded.envelopes] == [0, 2]
    assert [each.record.offset for each in written.envelopes] == [1]
    assert (superseded.outcome, written.outcome) == (Outcome.SUPERSEDED, Outcome.WRITTEN)


def test_a_block_of_ended_assignments_has_no_entries(block: Block) -> None:
    block.prepare(set(), MemoryWriter(Thing))

    assert not block.entries
