"""Ranges and accounts: law 1 for any order in which items come to their ends."""

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams.records import Envelope, Origin, Outcome, Record, Settled, SkipReason
from lovelace_streams.runtime.in_flight import InFlight
from lovelace_streams.runtime.ranges import (
    SPAN_MAX,
    OriginItem,
    Range,
    failed_items,
    merge_neighbours,
    ranges_of,
    sums_of,
)

ENDS = [Outcome.WRITTEN, Outcome.SUPERSEDED, Outcome.SKIPPED, Outcome.DEAD_LETTERED]


# -- ranges ------------------------------------------------------------------------------------------------------------


@st.composite
def finished(draw: st.DrawFn) -> list[Record]:
    """Records of a partition whose items all have an outcome, with gaps where no offset exists."""
    records, after = [], draw(st.integers(0, 5))
    for _ in range(draw(st.integers(0, 25))):
        offset = after + draw(st.sampled_from([0, 0, 0, 1, 7]))
        record = Record("t", 0, offset, after, 1, None, b"", [], -1, job=draw(st.sampled_from([None, "a", "b"])))
        record.attempt = draw(st.sampled_from([1, 1, 1, 2]))
        record.items = draw(st.integers(1, 3))
        record.succeeded = draw(st.integers(0, record.items))
        record.skipped = draw(st.integers(0, record.items - record.succeeded))
        record.failed = record.items - record.succeeded - record.skipped
        if record.failed:
            record.failures = {item: draw(st.sampled_from(["null", "check"])) for item in range(record.failed)}
        records.append(record)
        after = offset + 1
    return records


@given(finished(), st.randoms())
def test_ranges_cover_exactly_and_say_what_the_records_say(records: list[Record], random: Any) -> None:
    shuffled = list(records)
    random.shuffle(shuffled)

    ranges = merge_neighbours(each for record in shuffled for each in ranges_of(record))

    assert all(a.last < b.first for a, b in zip(ranges, ranges[1:], strict=False)), "ascending and disjoint"
    said = {offset: r for r in ranges for offset in range(r.first, r.last + 1)}
    assert said.keys() == {offset for record in records for offset in range(record.after, record.offset + 1)}
    for record in records:
        r = said.pop(record.offset)
        counts = (record.succeeded, record.failed, record.skipped)
        assert (r.succeeded, r.failed, r.skipped, r.job_id, r.attempt) == (*counts, record.job, record.attempt)
        named = {item: run.reason for run in r.failed_items or () for item in range(run.first, run.last + 1)}
        assert named == (record.failures or {})
        assert not record.failed or r.first == r.last == record.offset
    assert all((r.succeeded, r.failed, r.skipped, r.job_id) == (0, 0, 0, None) for r in said.values()), "the gaps"


def test_neighbours_with_one_outcome_are_one_range_up_to_the_longest() -> None:
    first, second = Range(0, SPAN_MAX - 2, 1, 0, 0), Range(SPAN_MAX - 1, SPAN_MAX - 1, 1, 0, 0)

    assert second.follows(first)
    assert not msgspec.structs.replace(second, first=SPAN_MAX, last=SPAN_MAX).follows(
        msgspec.structs.replace(first, last=SPAN_MAX - 1)
    )
    assert not msgspec.structs.replace(second, job_id="j").follows(first)


@given(finished())
def test_sums_say_what_their_ranges_say(records: list[Record]) -> None:
    ranges = merge_neighbours(each for record in records for each in ranges_of(record))

    sums = sums_of(ranges)

    assert sums is not None
    assert all(a.last + 1 < b.first for a, b in zip(sums.spans, sums.spans[1:], strict=False)), "disjoint, not touching"
    spanned = {offset for span in sums.spans for offset in range(span.first, span.last + 1)}
    assert spanned == {offset for record in records for offset in range(record.after, record.offset + 1)}
    assert len({(each.job_id, each.attempt) for each in sums.sums}) == len(sums.sums)
    said = {(each.job_id, each.attempt): each for each in sums.sums}
    for job, attempt in {(r.job, r.attempt) for r in records}:
        mine = [r for r in records if (r.job, r.attempt) == (job, attempt)]
        failed = {(r.offset, item): reason for r in mine for item, reason in (r.failures or {}).items()}
        if job is None and not failed:
            assert (job, attempt) not in said
            continue
        each = said[job, attempt]
        named = {(i.offset, item): i.reason for i in each.failed_items for item in range(i.first, i.last + 1)}
        assert (named, each.failed) == (failed, len(failed))
        if job is not None:
            assert each.succeeded == sum(r.succeeded for r in mine)
            assert each.skipped == sum(r.skipped for r in mine)


def test_sums_can_not_say_what_a_replay_resolves_nor_hold_too_many_offsets() -> None:
    half = Range(0, SPAN_MAX // 2 - 1, 1, 0, 0, "a")
    rest = Range(SPAN_MAX // 2, SPAN_MAX - 1, 1, 0, 0, "b")

    assert sums_of([half, rest]) is not None
    assert sums_of([half, msgspec.structs.replace(rest, last=SPAN_MAX)]) is None
    assert sums_of([Range(0, 0, 0, 0, 0, resolves=[OriginItem("T", 0, 1, 0)])]) is None


def test_a_replay_resolves_what_did_not_fail_again() -> None:
    record = Record("p.replay", 0, 5, 5, 1, None, b"", [], -1, job="j", items=3, succeeded=2, failed=1)
    record.origin, record.failures = Origin("T", "raw", 2, 77, -1, (1, 4, 9)), {4: "check"}

    [only] = ranges_of(record)

    assert (only.succeeded, only.failed, only.skipped, only.job_id, only.failed_items) == (0, 0, 0, None, None)
    assert [(r.topic_id, r.partition, r.offset, r.item) for r in only.resolves or ()] == [
        ("T", 2, 77, 1),
        ("T", 2, 77, 9),
    ]


@given(st.dictionaries(st.integers(0, 30), st.sampled_from(["null", "check"])))
def test_failed_items_are_runs_of_one_reason(failures: dict[int, str]) -> None:
    runs = failed_items(failures)

    assert {item: run.reason for run in runs for item in range(run.first, run.last + 1)} == failures
    assert all(a.last + 1 < b.first or a.reason != b.reason for a, b in zip(runs, runs[1:], strict=False))


# -- in hand -----------------------------------------------------------------------------------------------------------


def end(in_flight: InFlight, record: Record, items: list[tuple[int, Outcome]]) -> None:
    """Bring items of one record to their ends, the dead-lettered ones together, as one letter does."""
    for item, outcome in items:
        if outcome is not Outcome.DEAD_LETTERED:
            reason = SkipReason.FILTERED if outcome is Outcome.SKIPPED else None
            in_flight.settle(Settled(outcome, [Envelope(record, item, None)], reason))
    if failures := {item: "check" for item, outcome in items if outcome is Outcome.DEAD_LETTERED}:
        in_flight.fail(record, failures)


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=15),
    gaps=st.lists(st.integers(0, 2), min_size=15, max_size=15),
    data=st.data(),
)
def test_what_is_read_has_one_outcome_or_is_pending(sizes: list[int], gaps: list[int], data: st.DataObject) -> None:
    in_flight = InFlight()
    held = in_flight.assign("t", "id", 0, 0)
    records = []
    for size, gap in zip(sizes, gaps, strict=False):
        record = Record("t", 0, held.next + gap, held.next, held.number, None, b"", [], -1, items=size)
        in_flight.read(record)
        records.append(record)
    read = sum(sizes)
    wanted = [(record, item) for record in records for item in range(record.items)]
    ended: Counter[str] = Counter()
    letters: dict[int, list[tuple[int, Outcome]]] = {}
    for record, item in data.draw(st.permutations(wanted)):
        outcome = data.draw(st.sampled_from(ENDS))
        if outcome is Outcome.DEAD_LETTERED:
            letters.setdefault(record.offset, []).append((item, outcome))
            continue
        end(in_flight, record, [(item, outcome)])
        ended[str(outcome)] += 1

        assert held.pending == read - ended.total()
        assert {name: held.counts[name] for name in ended} == dict(ended)
        for assignment, ranges in in_flight.take_ranges():
            in_flight.accept(assignment.number, ranges)
        done = {r.offset for r in records} - held.in_flight.keys()
        assert held.position == next((r.after for r in records if r.offset not in done), held.next)
    for record in records:
        end(in_flight, record, letters.get(record.offset, []))
    ended["dead_lettered"] = sum(map(len, letters.values()))

    for assignment, ranges in in_flight.take_ranges():
        in_flight.accept(assignment.number, ranges)
    assert held.pending == 0
    assert held.counts["read"] == read == sum(held.counts[str(outcome)] for outcome in ENDS) == ended.total()
    assert in_flight.totals == {str(outcome): ended[str(outcome)] for outcome in ENDS}
    assert (held.position, held.unaccepted, in_flight.unaccepted) == (held.next, 0, 0)
    assert in_flight.take_ranges() == []
    assert in_flight.unfinished
    held.committed = held.position
    assert not in_flight.unfinished


@st.composite
def written(draw: st.DrawFn) -> list[tuple[int, int, int, str | None, int, bool]]:
    """Messages of two partitions: partition, gap before it, items, job, attempt, whether it is a replay."""
    jobs = st.sampled_from(["a", "a", "a", "b", None])
    sizes = st.sampled_from([1, 1, 1, 1, 3])
    replays = st.sampled_from([False, False, False, True])
    gaps, attempts = st.sampled_from([0, 0, 0, 2]), st.sampled_from([1, 1, 2])
    return draw(st.lists(st.tuples(st.sampled_from([0, 0, 0, 1]), gaps, sizes, jobs, attempts, replays), max_size=30))


@given(written(), st.none() | st.randoms(), st.sampled_from([Outcome.WRITTEN, Outcome.SKIPPED]), st.integers(1, 30))
def test_a_list_settles_as_its_items_do_one_by_one(
    messages: list[tuple[int, int, int, str | None, int, bool]], random: Any, outcome: Outcome, length: int
) -> None:
    in_flight = InFlight()
    for partition in (0, 1, 2):
        in_flight.assign("t", "id", partition, 0)
    envelopes: list[Envelope[object]] = []
    for partition, gap, items, job, attempt, replay in [*messages, (2, 0, 1, "a", 1, False)]:
        held = in_flight.of("t", partition)
        assert held is not None
        record = Record("t", partition, held.next + gap, held.next, held.number, None, b"", [], -1, job, attempt)
        record.items, record.origin = items, Origin("T", "raw", 2, 77, -1, tuple(range(items))) if replay else None
        in_flight.read(record)
        envelopes += [Envelope(record, item, None) for item in range(items)]
    in_flight.end("t", 2)
    if random is not None:
        random.shuffle(envelopes)

    noted = 0
    for at in range(0, len(envelopes), length):
        noted += in_flight.settle(Settled(outcome, envelopes[at : at + length]))

    read = Counter(dict.fromkeys((0, 1), 0))
    for partition, _, items, *_ in messages:
        read[partition] += items
    assert noted == in_flight.totals[str(outcome)] == read.total()
    for held in in_flight.current.values():
        assert (held.counts["read"], held.counts[outcome]) == (read[held.partition], read[held.partition])
        assert (held.in_flight, held.pending) == ({}, 0)
    found = {a.partition: ranges for a, ranges in in_flight.take_ranges()}
    records = {e.record.offset: e.record for e in envelopes if e.item == 0 and e.record.partition == 0}
    assert found.get(0, []) == merge_neighbours(each for record in records.values() for each in ranges_of(record))


def one(in_flight: InFlight, offset: int, items: int = 1) -> Record:
    held = in_flight.of("t", 0)
    assert held is not None
    record = Record("t", 0, offset, held.next, held.number, None, b"", [], -1, items=items)
    in_flight.read(record)
    return record


def test_what_lies_behind_the_last_record_is_covered_when_its_end_is_known() -> None:
    in_flight = InFlight()
    held = in_flight.assign("t", "id", 0, 0)
    held.confirmed = 0
    record = one(in_flight, 0)
    in_flight.pass_over(held.number, 5)
    in_flight.pass_over(held.number, 5)
    in_flight.pass_over(held.number, 3)
    assert (held.next, held.unaccepted, held.pending) == (5, 5, 1)
    assert in_flight.take_ranges() == []  # not confirmed to be of this topic

    held.confirmed = 5
    [(_, ranges)] = in_flight.take_ranges()
    assert ranges == [Range(1, 4, 0, 0, 0)]
    in_flight.accept(held.number, ranges)
    assert held.position == 0  # the record before it is still in hand
    end(in_flight, record, [(0, Outcome.WRITTEN)])
    in_flight.accept(held.number, in_flight.take_ranges()[0][1])

    assert (held.position, held.unaccepted) == (5, 0)


def test_what_belongs_to_an_ended_assignment_is_ignored() -> None:
    in_flight = InFlight()
    old = in_flight.assign("t", "id", 0, 0)
    stale = one(in_flight, 0, items=2)
    new = in_flight.assign("t", "id", 0, 0)

    end(in_flight, stale, [(0, Outcome.WRITTEN), (1, Outcome.DEAD_LETTERED)])
    in_flight.accept(old.number, [Range(0, 5, 1, 0, 0)])

    assert new.number != old.number
    assert list(in_flight.current) == [new.number]
    assert set(in_flight.totals.values()) == {0}
    assert (new.position, new.unaccepted, new.pending) == (0, 0, 0)
    assert in_flight.take_ranges() == []
    in_flight.end("t", 0)
    assert not in_flight.unfinished
    assert in_flight.of("t", 0) is None


@pytest.mark.parametrize("again", ENDS)
def test_an_item_that_is_settled_twice_is_our_bug(again: Outcome) -> None:
    in_flight = InFlight()
    in_flight.assign("t", "id", 0, 0)
    record = one(in_flight, 0)
    end(in_flight, record, [(0, Outcome.WRITTEN)])

    with pytest.raises(AssertionError, match="t-0@0: more outcomes than items"):
        end(in_flight, record, [(0, again)])


def test_only_confirmed_offsets_are_reported() -> None:
    in_flight = InFlight()
    held = in_flight.assign("t", "id", 0, 0)
    for offset in range(3):
        end(in_flight, one(in_flight, offset), [(0, Outcome.WRITTEN)])
    held.confirmed = 2

    [(_, ranges)] = in_flight.take_ranges()
    assert [(r.first, r.last) for r in ranges] == [(0, 1)]
    assert in_flight.take_ranges() == []
    held.confirmed = 3
    [(_, ranges)] = in_flight.take_ranges()
    assert [(r.first, r.last) for r in ranges] == [(2, 2)]
