"""Slices and records settle to the same ranges: chunks cut anywhere, in any order, against records one by one.

Both sides read the same messages of two partitions. One holds them as chunks with columns, the other as records. Their
rows are cut into batches, which end in any order, each row with any result; some messages are looked at alone
meanwhile, and an assignment may end in the middle. After every step both accounts say the same, to the last offset.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from lovelace_streams.columns import Chunk, Columns, Part, Slice, in_between
from lovelace_streams.delivery.blocks import outcomes_of, outcomes_of_parts
from lovelace_streams.formats.column_loops import in_order
from lovelace_streams.kafka.headers import chunk_of, records_of
from lovelace_streams.operators.batch import cut
from lovelace_streams.records import DeadLetter, Envelope, Outcome, Reason, Record, Settled, SkipReason, envelopes_of
from lovelace_streams.rows.row import Row
from lovelace_streams.runtime.in_flight import Assignment, InFlight
from lovelace_streams.settings import BatchPolicy
from lovelace_streams.testing.broker import StoredMessage
from lovelace_streams.writers import Refusal, RowOutcome, RowResult
from tests.examples import examples


class One(Row, table="one", primary_key="place"):
    place: int
    item: int


class Two(Row, table="two", primary_key="place"):
    place: int
    item: int


HEADERS: list[list[tuple[str, bytes | None]]] = [
    [], [("lovelace-job-id", b"a")], [("lovelace-job-id", b"b"), ("lovelace-job-attempt", b"2")],
    [("lovelace-job-id", b"no job!")], [("lovelace-items", b"3"), ("x", b"")],
]  # fmt: skip
RESULTS: list[RowResult] = [
    RowOutcome.WRITTEN, RowOutcome.SUPERSEDED, RowOutcome.SUPPRESSED, Refusal(Reason.CHECK, "23514", "fine")
]  # fmt: skip


class Sent(msgspec.Struct):
    """A message, and what a decoder makes of it."""

    offset: int
    headers: list[tuple[str, bytes | None]]
    size: int
    items: int
    kind: str
    """`one` or `two` is the row class whose columns hold it, `item` one that the loop leaves, `skip` one that holds
    nothing."""
    lost: list[int] = []
    """Items of it that the loop does not take, beside others that it does."""


@st.composite
def chunks(draw: st.DrawFn) -> list[list[Sent]]:
    """Messages as they are read: lists of consecutive ones, of which some offsets are gone."""
    offset, found = draw(st.integers(0, 2)), []
    headers: list[tuple[str, bytes | None]] = []
    most = draw(st.sampled_from([1, 1, 4]))
    kinds = draw(st.sampled_from([["one"], ["one", "item"], ["one", "one", "one", "two", "item", "skip"]]))
    for _ in range(draw(st.integers(1, 3))):
        chunk = []
        for change, gap in draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)):
            headers = HEADERS[change] if change < len(HEADERS) else headers
            offset += {0: 1, 1: 5}.get(gap, 0)
            kind = draw(st.sampled_from(kinds))
            items = 1 if kind == "skip" else draw(st.integers(1, most))
            numbers = st.lists(st.integers(0, items - 1), max_size=items - 1, unique=True).map(sorted)
            lost = draw(numbers) if kind in ("one", "two") and draw(st.integers(0, 3)) == 0 else []
            chunk.append(Sent(offset, headers, draw(st.sampled_from([10, 10, 11, 1000])), items, kind, lost))
            offset += 1
        found.append(chunk)
    return found


class Side:
    """One of the two ways of keeping accounts."""

    def __init__(self) -> None:
        self.in_flight = InFlight()
        self.assignments = [self.in_flight.assign("raw", "id", partition, 0) for partition in range(2)]
        self.failures: dict[tuple[int, int], tuple[Record, dict[int, str]]] = {}
        """(Assignment, offset) → the record, and its items that failed."""

    def end(self, outcomes: Sequence[Settled | DeadLetter]) -> list[Any]:
        """Settle what has ended; a letter when all other items of its message have. Returns what was told."""
        told: list[Any] = []
        for outcome in outcomes:
            if isinstance(outcome, Settled):
                told.append((outcome.outcome, outcome.reason, self.in_flight.settle(outcome)))
                continue
            record = outcome.record
            told.append((record.offset, record.assignment, outcome.item, outcome.reason, outcome.detail, outcome.code))
            of = self.failures.setdefault((record.assignment, record.offset), (record, {}))
            of[1][outcome.item] = outcome.reason
        for key, (record, failed) in list(self.failures.items()):
            if record.succeeded + record.skipped + len(failed) == record.items:
                del self.failures[key]
                told.append((key, self.in_flight.fail(record, failed)))
        return told

    def says(self) -> list[Any]:
        """All that it knows."""
        return [
            self.in_flight.totals, self.in_flight.given_up, self.in_flight.unaccepted, self.in_flight.unfinished,
            *((a.number, a.counts, a.pending, a.position, a.messages_in_flight, a.oldest, a.unaccepted, a.next)
              for a in self.in_flight.current.values()),
        ]  # fmt: skip

    def report(self) -> list[Any]:
        """Take the ranges that are ready, and have them accepted."""
        taken = self.in_flight.take_ranges()
        said = [(a.number, [msgspec.to_builtins(each) for each in ranges]) for a, ranges in taken]
        for assignment, ranges in taken:
            self.in_flight.accept(assignment.number, ranges)
        return said


def stored(partition: int, sent: Sequence[Sent]) -> list[StoredMessage]:
    return [
        StoredMessage(("raw", partition), each.offset, each.offset, b"x" * each.size, b"k", each.headers, 5)
        for each in sent
    ]


def read_chunk(side: Side, assignment: Assignment, sent: Sequence[Sent]) -> tuple[Chunk, list[Part], list[Settled]]:
    """Read messages as a chunk, and make columns of them; returns also the rows in their order, and what is skipped."""
    chunk = chunk_of(stored(assignment.partition, sent), assignment)  # type: ignore[arg-type]
    assert chunk is not None
    side.in_flight.read_chunk(chunk)
    made = []
    items = [0] * len(chunk)
    for kind, row in (("one", One), ("two", Two)):
        places = [place for place, each in enumerate(sent) if each.kind == kind]
        if not places:
            continue
        pairs = [(place, n) for place in places for n in range(sent[place].items) if n not in sent[place].lost]
        counts = [sent[place].items - len(sent[place].lost) for place in places]
        lost = {message: sent[place].lost for message, place in enumerate(places) if sent[place].lost}
        for place in places:
            items[place] = sent[place].items
        values = {"place": [place for place, _ in pairs], "item": [item for _, item in pairs]}
        if len(places) == len(chunk):
            places = range(len(chunk))  # type: ignore[assignment]
        is_plain = not lost and set(counts) == {1}
        made.append(Columns(chunk, row, values, places, None if is_plain else counts, lost))
    chunk.items = items
    left = [place for place, each in enumerate(sent) if each.kind in ("item", "skip")]
    oks, skipped = items_of(chunk.envelopes_at(left), [sent[place] for place in left])
    for place, each in enumerate(sent):
        if each.lost:
            oks += [Envelope(chunk.record_at(place), item, None) for item in each.lost]
    return chunk, in_between(in_order(made) if made else [], oks), skipped


def read_records(side: Side, assignment: Assignment, sent: Sequence[Sent]) -> tuple[list[Part], list[Settled]]:
    """Read the same messages as records."""
    records = records_of(stored(assignment.partition, sent), assignment)  # type: ignore[arg-type]
    side.in_flight.read(*records)
    oks, skipped = items_of([Envelope(record, 0, b"") for record in records], sent)
    return list(oks), skipped


def items_of(envelopes: Sequence[Envelope[Any]], sent: Sequence[Sent]) -> tuple[list[Envelope[Any]], list[Settled]]:
    oks: list[Envelope[Any]] = []
    skipped = []
    for envelope, each in zip(envelopes, sent, strict=True):
        envelope.record.items = each.items
        if each.kind == "skip":
            skipped.append(Settled(Outcome.SKIPPED, [envelope], SkipReason.EMPTY))
        else:
            oks += [Envelope(envelope.record, item, None) for item in range(each.items)]
    return oks, skipped


def named(parts: Sequence[Part]) -> list[tuple[int, int]]:
    """Offset and item of each row, without a record being made."""
    found = []
    for part in parts:
        if isinstance(part, Slice):
            found += [
                (part.columns.chunk.offsets[place], n) for place, n, _ in part.columns.rows(part.start, part.stop)
            ]
        else:
            found.append((part.record.offset, part.item))
    return found


def bad_headers() -> float:
    return REGISTRY.get_sample_value("lovelace_bad_headers_total", {"header": "lovelace-job-id"}) or 0


@settings(max_examples=examples(300), deadline=None)
@given(st.tuples(chunks(), chunks()), st.data())
def test_slices_settle_as_their_items_do(sent: tuple[list[list[Sent]], list[list[Sent]]], data: st.DataObject) -> None:
    columns, items = Side(), Side()
    policy = BatchPolicy(data.draw(st.sampled_from([1, 2, 5, 100])), data.draw(st.sampled_from([25, 1010, 10_000])))
    waiting: list[tuple[Sequence[Part], Sequence[Part]]] = []
    skips: list[tuple[Settled, Settled]] = []
    read: list[Chunk] = []

    def agree() -> None:
        assert columns.says() == items.says()
        if data.draw(st.integers(0, 2)) == 0:
            assert columns.report() == items.report()
            assert columns.says() == items.says()

    for partition in (0, 1):
        for messages in sent[partition]:
            before = bad_headers()
            chunk, parts, skipped = read_chunk(columns, columns.assignments[partition], messages)
            middle = bad_headers()
            its_parts, its_skipped = read_records(items, items.assignments[partition], messages)
            assert middle - before == bad_headers() - middle
            assert named(parts) == named(its_parts)
            batches, its_batches = list(cut(parts, policy)), list(cut(its_parts, policy))
            assert [(b.count, b.size, b.reason) for b in batches] == [(b.count, b.size, b.reason) for b in its_batches]
            waiting += [(one.parts, two.parts) for one, two in zip(batches, its_batches, strict=True)]
            skips += zip(skipped, its_skipped, strict=True)
            read.append(chunk)
            agree()
    ending = data.draw(st.sampled_from([None, None, *range(len(waiting) + 1)]))
    results_of = data.draw(st.sampled_from([RESULTS[:1], RESULTS, [RESULTS[0]] * 9 + RESULTS]))
    for number, (parts, its_parts) in enumerate(data.draw(st.permutations(waiting))):
        if number == ending:
            for side in (columns, items):
                side.in_flight.end("raw", 0)
            agree()
        look = data.draw(st.integers(0, 9))
        if look == 0:
            parts = envelopes_of(parts)  # noqa: PLW2901 - as a writer without columns has them
        elif look < 3:  # noqa: PLR2004
            chunk = data.draw(st.sampled_from(read))
            chunk.record_at(data.draw(st.integers(0, len(chunk) - 1)))
            agree()
        results = [data.draw(st.sampled_from(results_of)) for _ in its_parts]
        ends = outcomes_of_parts("upsert", parts, results)
        its_ends = outcomes_of("upsert", envelopes_of(its_parts), [1] * len(its_parts), results)
        assert columns.end(ends) == items.end(its_ends)
        agree()
    for one, two in skips:
        assert columns.in_flight.settle(one) == items.in_flight.settle(two)
        agree()
    assert columns.report() == items.report()
    assert columns.says() == items.says()
    if ending is None:
        assert not columns.in_flight.unaccepted
        assert all(not a.pending and a.position == a.next for a in columns.in_flight.current.values())
    event(f"ends in the middle={ending is not None}")
    event(f"looked at={any(chunk.alone for chunk in read)} open={any(chunk.open for chunk in read)}")


def test_rows_that_are_settled_twice_are_told() -> None:
    side = Side()
    _, parts, _ = read_chunk(side, side.assignments[0], [Sent(n, [], 10, 1, "one") for n in range(5)])
    side.in_flight.settle(Settled(Outcome.WRITTEN, list(parts)))

    [rows] = parts
    assert isinstance(rows, Slice)
    with pytest.raises(AssertionError, match="a step settled an item twice"):
        side.in_flight.settle(Settled(Outcome.WRITTEN, [Slice(rows.columns, 3, 5)]))
    assert side.report()[0][1] == [{"first": 0, "last": 4, "succeeded": 1, "failed": 0, "skipped": 0}]
