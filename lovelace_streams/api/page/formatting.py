"""Numbers, durations, times and bars as the page shows them, in templates and in its event stream alike."""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec

from lovelace_streams.api.models import JobState, PartitionState, Status
from lovelace_streams.api.page.rates import JobRate

SEGMENT_PERCENT_MIN = 0.5
"""A narrower part of a bar would not be visible."""
MINUTE, HOUR, DAY = 60, 3600, 86400


class BarSegment(msgspec.Struct, frozen=True):
    """A part of a bar, in percent of its width."""

    name: str
    x: float
    width: float


class JobView(msgspec.Struct, frozen=True):
    """A job as the page shows it; `texts` by the `data-text` of the element that shows each."""

    job_id: str
    version: int
    status: str
    percent: int | None
    texts: dict[str, str]
    bar: list[BarSegment]


def job_view(state: JobState, rate: JobRate) -> JobView:
    """Format a job, with its rate and the time that is left."""
    total = state.total_items
    rate = JobRate() if state.status is Status.STALLED else rate
    percent = None if total is None else 100 if total == 0 else min(100, 100 * state.processed // total)
    if state.completed_at is not None:
        left = f"took {duration((state.completed_at - state.created_at).total_seconds())}"
    elif rate.seconds_left is not None:
        left = f"about {duration(rate.seconds_left)} left"
    else:
        left = ""
    texts = {
        "succeeded": number(state.succeeded),
        "failed": number(state.failed),
        "skipped": number(state.skipped),
        "rest": "?" if total is None else number(max(0, total - state.processed)),
        "total": "?" if total is None else number(total),
        "percent": "" if percent is None else f"{percent} %",
        "rate": "" if rate.rate is None else f"{number(round(rate.rate))}/s",
        "left": left,
        "status": state.status.value,
    }
    return JobView(state.job_id, state.version, state.status.value, percent, texts, bar(state))


def bar(state: JobState) -> list[BarSegment]:
    """Place succeeded, failed and skipped items side by side, each visible if there is one; the rest stays empty."""
    counts = {"succeeded": state.succeeded, "failed": state.failed, "skipped": state.skipped}
    whole = max(state.total_items or 0, state.processed, 1)
    widths = {name: max(SEGMENT_PERCENT_MIN, 100 * count / whole) if count else 0.0 for name, count in counts.items()}
    excess = sum(widths.values()) - 100
    if excess > 0:
        widest = max(widths, key=lambda name: widths[name])
        widths[widest] -= excess
    segments, x = [], 0.0
    for name, width in widths.items():
        segments.append(BarSegment(name, round(x, 2), round(width, 2)))
        x += width
    return segments


def number(value: float) -> str:
    """Format a number with a separator every three digits.

    >>> number(1234567)
    '1,234,567'
    """
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Format a duration in its two largest units.

    >>> [duration(seconds) for seconds in (0.2, 59, 90, 3600, 7322, 200000)]
    ['0 s', '59 s', '1 min 30 s', '1 h', '2 h 2 min', '2 d 7 h']
    """
    whole = int(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    for size, name, smaller, smaller_name in (
        (DAY, "d", HOUR, "h"),
        (HOUR, "h", MINUTE, "min"),
        (MINUTE, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name}" + (f" {rest} {smaller_name}" if rest else "")
    raise AssertionError


def moment(at: datetime | None) -> str:
    """Format a time in UTC, to the second; the page's script shows it in the browser's zone."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def ago(at: datetime, now: datetime) -> str:
    """Format how long ago a time was."""
    return f"{duration(max(0.0, (now - at).total_seconds()))} ago"


class PipelineView(msgspec.Struct, frozen=True):
    """A pipeline's partitions, with their totals."""

    name: str
    partitions: list[PartitionState]
    lag: int
    pending: int
    oldest: float
    """Seconds, over the partitions that are not stale."""
    stale: int


def pipeline_views(partitions: Iterable[PartitionState]) -> list[PipelineView]:
    """Group partitions, which are ordered by pipeline."""
    pipelines = []
    for name, group in groupby(partitions, key=attrgetter("pipeline")):
        members = list(group)
        heard = [each for each in members if not each.stale]
        pipelines.append(
            PipelineView(
                name,
                members,
                lag=sum(each.lag or 0 for each in members),
                pending=sum(each.pending for each in heard),
                oldest=max((each.oldest_unsettled_ms for each in heard), default=0) / 1000,
                stale=len(members) - len(heard),
            )
        )
    return pipelines


FILTERS: dict[str, Any] = {"number": number, "duration": duration, "moment": moment, "ago": ago}
