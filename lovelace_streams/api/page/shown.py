"""What a page says of things: numbers, durations, bars, so that a live update says the same as the server."""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec

from lovelace_streams.api.models import JobState, PartitionState, Status
from lovelace_streams.api.page.pace import Pace

SLIVER = 0.5
"""Percent of a bar's width below which what is there could not be seen."""
MINUTE, HOUR, DAY = 60, 3600, 86400


class Segment(msgspec.Struct, frozen=True):
    """A part of a bar, in percent of its width."""

    name: str
    x: float
    width: float


class ShownJob(msgspec.Struct, frozen=True):
    """A job in the words of the page; `texts` by the name of the place where each stands."""

    job_id: str
    version: int
    status: str
    percent: int | None
    texts: dict[str, str]
    bar: list[Segment]


def show_job(state: JobState, pace: Pace) -> ShownJob:
    """A job with its bar, its rate and the time it still takes."""
    total = state.total_items
    pace = Pace() if state.status is Status.STALLED else pace
    percent = None if total is None else 100 if total == 0 else min(100, 100 * state.processed // total)
    if state.completed_at is not None:
        left = f"took {duration((state.completed_at - state.created_at).total_seconds())}"
    elif pace.seconds_left is not None:
        left = f"about {duration(pace.seconds_left)} left"
    else:
        left = ""
    texts = {
        "succeeded": number(state.succeeded),
        "failed": number(state.failed),
        "skipped": number(state.skipped),
        "rest": "?" if total is None else number(max(0, total - state.processed)),
        "total": "?" if total is None else number(total),
        "percent": "" if percent is None else f"{percent} %",
        "rate": "" if pace.rate is None else f"{number(round(pace.rate))}/s",
        "left": left,
        "status": state.status.value,
    }
    return ShownJob(state.job_id, state.version, state.status.value, percent, texts, bar(state))


def bar(state: JobState) -> list[Segment]:
    """Succeeded, failed, skipped, side by side; what is there at all can be seen. What is left over is the rest."""
    counts = {"succeeded": state.succeeded, "failed": state.failed, "skipped": state.skipped}
    whole = max(state.total_items or 0, state.processed, 1)
    widths = {name: max(SLIVER, 100 * count / whole) if count else 0.0 for name, count in counts.items()}
    excess = sum(widths.values()) - 100
    if excess > 0:
        widest = max(widths, key=lambda name: widths[name])
        widths[widest] -= excess
    segments, x = [], 0.0
    for name, width in widths.items():
        segments.append(Segment(name, round(x, 2), round(width, 2)))
        x += width
    return segments


def number(value: float) -> str:
    """With a separator every three digits.

    >>> number(1234567)
    '1,234,567'
    """
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """To two parts at most, as one says it.

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
    """A time in UTC, to the second; the browser says it in its own zone."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def ago(at: datetime, now: datetime) -> str:
    """How long since."""
    return f"{duration(max(0.0, (now - at).total_seconds()))} ago"


class ShownPipeline(msgspec.Struct, frozen=True):
    """A pipeline's partitions, with what is to be known of all of them."""

    name: str
    partitions: list[PartitionState]
    lag: int
    pending: int
    oldest: float
    """Seconds, of those heard of lately."""
    stale: int


def by_pipeline(partitions: Iterable[PartitionState]) -> list[ShownPipeline]:
    """Partitions that come ordered by pipeline."""
    pipelines = []
    for name, group in groupby(partitions, key=attrgetter("pipeline")):
        those = list(group)
        heard = [each for each in those if not each.stale]
        pipelines.append(
            ShownPipeline(
                name,
                those,
                lag=sum(each.lag or 0 for each in those),
                pending=sum(each.pending for each in heard),
                oldest=max((each.oldest_unsettled_ms for each in heard), default=0) / 1000,
                stale=len(those) - len(heard),
            )
        )
    return pipelines


FILTERS: dict[str, Any] = {"number": number, "duration": duration, "moment": moment, "ago": ago}
