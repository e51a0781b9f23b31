"""What a worker reports of settled offsets: ranges, and sums of them.

A *range* is consecutive offsets with one outcome. Ranges are cut and merged here, and shortened to *sums* where the
jobs of a partition lie interleaved (docs/decisions/0015-sums-in-reports.md). No I/O, no clock, no engine here.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from operator import attrgetter

import msgspec

from lovelace_streams.records import Record

SPAN_MAX = 1_000_000
"""The longest range that the progress service takes, in offsets; ranges of zeros may be longer."""


class FailedItems(msgspec.Struct, frozen=True, gc=False):
    """Consecutive items of one message that failed for one reason."""

    first: int
    last: int
    reason: str


class OriginItem(msgspec.Struct, frozen=True, gc=False):
    """One item of the message that a replayed letter came from."""

    topic_id: str
    partition: int
    offset: int
    item: int


class Range(msgspec.Struct, gc=False, omit_defaults=True):
    """Consecutive offsets with one outcome, as reported; the three counts are per offset, so it can be cut anywhere."""

    first: int
    last: int
    succeeded: int
    failed: int
    skipped: int
    job_id: str | None = None
    attempt: int = 1
    failed_items: list[FailedItems] | None = None
    resolves: list[OriginItem] | None = None

    def follows(self, other: "Range") -> bool:
        """Whether it continues another range, with the same outcome and nothing that names single items."""
        return (
            self.job_id == other.job_id
            and self.first == other.last + 1
            and self.succeeded == other.succeeded
            and self.failed == other.failed
            and self.skipped == other.skipped
            and self.attempt == other.attempt
            and not (self.failed_items or other.failed_items or self.resolves or other.resolves)
            and self.last - other.first < SPAN_MAX
        )


def failed_items(failures: dict[int, str]) -> list[FailedItems]:
    """Turn item → reason into runs of neighbours with one reason.

    >>> failed_items({3: "null", 0: "check", 1: "check"})
    [FailedItems(first=0, last=1, reason='check'), FailedItems(first=3, last=3, reason='null')]
    """
    runs: list[FailedItems] = []
    for item in sorted(failures):
        if runs and runs[-1].last == item - 1 and runs[-1].reason == failures[item]:
            runs[-1] = FailedItems(runs[-1].first, item, failures[item])
        else:
            runs.append(FailedItems(item, item, failures[item]))
    return runs


def merge_neighbours(ranges: Iterable[Range]) -> list[Range]:
    """Sort ranges, and merge neighbours with one outcome: the first of a run grows, the others are dropped."""
    runs: list[Range] = []
    for current in sorted(ranges, key=_first):
        if runs and current.follows(runs[-1]):
            runs[-1].last = current.last
        else:
            runs.append(current)
    return runs


_first, _last = attrgetter("first"), attrgetter("last")


class Span(msgspec.Struct, gc=False):
    """Consecutive offsets, with any outcomes."""

    first: int
    last: int


class FailedThere(msgspec.Struct, frozen=True, gc=False):
    """`FailedItems` of the message at `offset`."""

    offset: int
    first: int
    last: int
    reason: str


class Sum(msgspec.Struct, gc=False, omit_defaults=True):
    """How many items of one attempt of a job ended how in some spans; without a job, only messages that failed."""

    job_id: str | None = None
    attempt: int = 1
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    failed_items: list[FailedThere] = []


class Sums(msgspec.Struct, gc=False):
    """A shorter form of ranges; the service takes it where nothing of the spans is covered yet."""

    spans: list[Span]
    sums: list[Sum]


def sums_of(ranges: Sequence[Range]) -> Sums | None:
    """Sum ascending, disjoint ranges; None for what sums cannot express: replays, and more than `SPAN_MAX` offsets.

    >>> sums = sums_of([Range(0, 0, 1, 0, 0, "a"), Range(1, 1, 1, 0, 0, "b"), Range(2, 3, 2, 0, 1, "a")])
    >>> sums.spans, [(total.job_id, total.succeeded, total.skipped) for total in sums.sums]
    ([Span(first=0, last=3)], [('a', 5, 2), ('b', 1, 0)])
    """
    spans: list[Span] = []
    sums: dict[tuple[str | None, int], Sum] = {}
    end, offsets = -1, 0
    for r in ranges:
        if r.resolves:
            return None
        length = r.last + 1 - r.first
        offsets += length
        if r.first == end:
            spans[-1].last = r.last
        else:
            spans.append(Span(r.first, r.last))
        end = r.last + 1
        if r.job_id is None and not r.failed_items:
            continue
        if (total := sums.get(key := (r.job_id, r.attempt))) is None:
            total = sums[key] = Sum(r.job_id, r.attempt)
        total.succeeded += length * r.succeeded
        total.skipped += length * r.skipped
        if r.failed_items:
            total.failed += r.failed
            total.failed_items += [FailedThere(r.first, i.first, i.last, i.reason) for i in r.failed_items]
    return Sums(spans, list(sums.values())) if offsets <= SPAN_MAX else None


def ranges_of(record: Record) -> list[Range]:
    """Give the range of a record whose items all have an outcome, after a range of the offsets that do not exist."""
    ranges = [_range(record)]
    if record.after < record.offset:
        ranges.insert(0, Range(record.after, record.offset - 1, 0, 0, 0))
    return ranges


def split_at(ranges: list[Range], end: float) -> tuple[list[Range], list[Range]]:
    """Split ascending ranges at an offset: those below `end`, and the others; a range across it is cut in two."""
    index = bisect_left(ranges, end, key=_last)
    if index == len(ranges):
        return ranges, []
    before, after = ranges[:index], ranges[index:]
    if after[0].first < end:
        before.append(msgspec.structs.replace(after[0], last=int(end) - 1))
        after[0].first = int(end)
    return before, after


def _range(record: Record) -> Range:
    offset, origin = record.offset, record.origin
    if origin is not None:  # a replay adds nothing by itself: it resolves what failed
        failed = record.failures or {}
        resolved = [
            OriginItem(origin.topic_id, origin.partition, origin.offset, item)
            for item in origin.items
            if item not in failed
        ]
        return Range(offset, offset, 0, 0, 0, resolves=resolved or None)
    failures = failed_items(record.failures) if record.failures else None
    return Range(
        offset,
        offset,
        record.succeeded,
        record.failed,
        record.skipped,
        record.job,
        record.attempt,
        failures,
    )
