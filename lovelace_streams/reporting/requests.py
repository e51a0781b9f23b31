"""Make requests to the progress service: the ranges of several partitions in one, as sums where those are shorter.

A report of a partition has *ranges*, of which the service takes the offsets that are new to it, or *sums*, which it
takes only if nothing of their spans is covered yet. Sums cost the same however the jobs are interleaved; ranges are
exact in any case. So the worker keeps the ranges until it has an answer, sends sums where they are shorter, and sends
ranges for a report that overlaps covered offsets (docs/decisions/0015-sums-in-reports.md). No I/O and no engine here.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from lovelace_streams.records import JobState
from lovelace_streams.runtime.ranges import Range, sums_of

RANGES_MAX = 5000
"""The most ranges of one request: about half a megabyte."""


class Report(msgspec.Struct):
    """Ranges of one partition, with the number of the assignment that they were settled in."""

    number: int
    topic: str
    topic_id: str
    partition: int
    ranges: list[Range]
    window: Any = None
    """The span of the window that they were settled in, if traces are on."""


class Overlap(msgspec.Struct, frozen=True):
    """A partition whose sums were not counted, because some of their offsets were covered already."""

    topic_id: str
    partition: int


class Answer(msgspec.Struct):
    """What the service answers to a request. An older service answers no overlaps."""

    jobs: list[JobState]
    known: int
    overlaps: list[Overlap] = []

    def overlaps_with(self, report: Report) -> bool:
        """Whether this report's ranges must be sent."""
        return any((o.topic_id, o.partition) == (report.topic_id, report.partition) for o in self.overlaps)


def answer_of(body: bytes) -> Answer | None:
    """Parse the service's answer; None if something else answered in its place (a proxy's page)."""
    try:
        return msgspec.json.decode(body, type=Answer)
    except (ValueError, RecursionError):
        return None


def request_of(pipeline: str | None, reports: Iterable[Report], *, allow_sums: bool) -> tuple[bytes, bool]:
    """Make the body of a request, one report a partition; also returns whether one has sums, if `allow_sums`.

    >>> def one(offset, job): return Report(1, "t", "T", 0, [Range(offset, offset, 1, 0, 0, job)])
    >>> request_of("p", [one(0, "a"), one(1, "b")], allow_sums=True)[1]  # two jobs and a span are not shorter
    False
    >>> request_of("p", [one(0, "a"), one(1, "b"), one(2, "a"), one(3, "b")], allow_sums=True)[1]
    True
    """
    merged: dict[tuple[str, str, int], list[Range]] = {}
    for report in reports:
        merged.setdefault((report.topic, report.topic_id, report.partition), []).extend(report.ranges)
    bodies: list[dict[str, Any]] = []
    has_sums = False
    for (topic, topic_id, partition), unsorted in merged.items():
        ranges = _disjoint(sorted(unsorted, key=lambda r: (r.first, r.last)))
        where = {"topic": topic, "topic_id": topic_id, "partition": partition}
        sums = sums_of(ranges) if allow_sums else None
        if sums is not None and len(sums.spans) + len(sums.sums) < len(ranges):
            bodies.append(where | {"spans": sums.spans, "sums": sums.sums})
            has_sums = True
        else:
            bodies.append(where | {"ranges": ranges})
    return msgspec.json.encode({"pipeline": pipeline, "reports": bodies}), has_sums


def group_by_size(reports: Iterable[Report], ranges_max: int) -> Iterator[list[Report]]:
    """Group reports to at most `ranges_max` ranges; a report with more is a group of its own."""
    group: list[Report] = []
    count = 0
    for report in reports:
        if group and count + len(report.ranges) > ranges_max:
            yield group
            group, count = [], 0
        group.append(report)
        count += len(report.ranges)
    if group:
        yield group


def split_in_half(reports: list[Report]) -> Iterator[list[Report]]:
    """Split reports into two requests, one report between its ranges."""
    if len(reports) > 1:
        middle = len(reports) // 2
        yield reports[:middle]
        yield reports[middle:]
        return
    [report] = reports
    middle = len(report.ranges) // 2
    for ranges in (report.ranges[:middle], report.ranges[middle:]):
        yield [msgspec.structs.replace(report, ranges=ranges)]


def _disjoint(ranges: Iterable[Range]) -> list[Range]:
    """Cut ranges that overlap: two assignments may have settled one offset, and the first outcome counts."""
    kept: list[Range] = []
    for r in ranges:
        if kept and r.first <= kept[-1].last:
            if r.last <= kept[-1].last:
                continue
            r = msgspec.structs.replace(r, first=kept[-1].last + 1)  # noqa: PLW2901
        kept.append(r)
    return kept
