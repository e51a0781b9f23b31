"""Every metric, declared once. Labels come from closed sets, and steps count once a list, not once a record.

`serve` opens a worker's endpoint. A taken port is no fault: the next free one is used and logged.
"""

import errno
import time
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from prometheus_client import Counter, Gauge, Histogram, start_http_server

from lovelace_streams.columns import Chunk, Slice
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.records import Envelope, Settled

log = structlog.get_logger(__name__)

PORTS_TRIED = 100

RECORDS = Counter("lovelace_records_total", "Messages read.", ["pipeline", "topic", "partition"])
READ_ITEMS = Counter(
    "lovelace_read_items_total",
    "Items that were read: those that came to an end, are pending, or were given up.",
    ["pipeline"],
)
DECODED_ITEMS = Counter(
    "lovelace_decoded_items_total",
    "Items that were read, by their way: made in `columns`, many at once, or as `items`, one by one.",
    ["pipeline", "way"],
)
GIVEN_UP_ITEMS = Counter(
    "lovelace_given_up_items_total",
    "Items that had no outcome when their partition was given up: its next owner reads them again.",
    ["pipeline"],
)
ITEMS = Counter(
    "lovelace_items_total",
    "Items that came to an end: `written`, `superseded`, `dead_lettered` or `skipped`.",
    ["pipeline", "outcome", "reason"],
)
BATCHES = Counter("lovelace_batches_total", "Batches closed, by `rows`, `bytes` or `window`.", ["pipeline", "reason"])
BATCH_ROWS = Histogram(
    "lovelace_batch_rows", "Rows of a batch.", ["pipeline"], buckets=(1, 5, 10, 25, 50, 75, 100, 250, 1000, 5000)
)
WRITE_SECONDS = Histogram(
    "lovelace_write_seconds",
    "Seconds for one block, from call to commit.",
    ["pipeline"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
ISOLATIONS = Counter("lovelace_isolations_total", "Blocks in which something was refused.", ["pipeline"])
RETRIES = Counter(
    "lovelace_retries_total", "Tries that ended in a fault of the destination.", ["pipeline", "step", "code"]
)
BREAKER = Gauge(
    "lovelace_breaker_state", "0 closed, 1 half open, 2 open: the destination is being waited for.", ["pipeline"]
)
ROUND = Gauge(
    "lovelace_last_round_timestamp_seconds",
    "When the worker last went round its loop, in Unix time; it does so while it waits, too.",
    ["pipeline"],
)
CAN_READ = Gauge(
    "lovelace_can_read",
    "1 while nothing keeps the worker from reading; 0 while the broker is away or does not let it into the group.",
    ["pipeline"],
)
LAG = Gauge(
    "lovelace_consumer_lag_records",
    "Messages of a partition that were not read yet, by the end that the broker told last; none while it is unknown.",
    ["pipeline", "topic", "partition"],
)
OLDEST = Gauge(
    "lovelace_oldest_unsettled_seconds",
    "Seconds that the oldest record without an outcome has been in flight, to within one.",
    ["pipeline"],
)
PENDING = Gauge("lovelace_pending_items", "Items in flight without an outcome.", ["pipeline"])
END = Gauge(
    "lovelace_partition_end_offset",
    "The end of a partition as the broker told it last: how it grows is what arrives.",
    ["pipeline", "topic", "partition"],
)
PARTITION_PENDING = Gauge(
    "lovelace_partition_pending_items",
    "Items of a partition in flight without an outcome.",
    ["pipeline", "topic", "partition"],
)
PARTITION_OLDEST = Gauge(
    "lovelace_partition_oldest_unsettled_seconds",
    "Seconds that the oldest record of a partition without an outcome has been in flight, to within one.",
    ["pipeline", "topic", "partition"],
)
END_TO_END = Histogram(
    "lovelace_end_to_end_seconds",
    "Seconds from a record's timestamp to its settlement, of the first record of each list.",
    ["pipeline"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200),
)
BAD_HEADERS = Counter("lovelace_bad_headers_total", "Headers that are not valid and were read as absent.", ["header"])
UNREPORTED = Gauge(
    "lovelace_unreported_offsets", "Offsets read and not yet accepted by the progress service.", ["pipeline"]
)
PUBLISHED = Counter(
    "lovelace_progress_published_total",
    "Messages of `aggregate_progress`: `delivered` or `refused`.",
    ["pipeline", "outcome"],
)


def read(pipeline: str | None, topic: str, partition: int, count: int) -> None:
    """Count messages of one partition."""
    RECORDS.labels(pipeline, topic, partition).inc(count)


def decoded(pipeline: str | None, window: Sequence[Envelope[Any] | Chunk]) -> None:
    """Count the items of a window's messages, once they are known, and which way they were made."""
    count = sum(part.decoded if isinstance(part, Chunk) else part.record.items for part in window)
    in_columns = sum(part.rows for part in window if isinstance(part, Chunk))
    if count:
        READ_ITEMS.labels(pipeline).inc(count)
    if in_columns:
        DECODED_ITEMS.labels(pipeline, "columns").inc(in_columns)
    if count > in_columns:
        DECODED_ITEMS.labels(pipeline, "items").inc(count - in_columns)


def items(pipeline: str | None, settled: Settled, count: int) -> None:
    """Count items that were written or skipped, and observe how long the first took; `failures` counts the others."""
    if not count:
        return
    ITEMS.labels(pipeline, settled.outcome, settled.reason or "").inc(count)
    first = settled.parts[0]
    if (timestamp := first.timestamp if isinstance(first, Slice) else first.record.timestamp) > 0:
        END_TO_END.labels(pipeline).observe(max(0.0, time.time() - timestamp / 1000))


def failures(pipeline: str | None, reasons: Iterable[str]) -> None:
    """Count items that were dead-lettered."""
    for reason, count in Tally(reasons).items():
        ITEMS.labels(pipeline, "dead_lettered", reason).inc(count)


def serve(host: str, port: int) -> int:
    """Open `/metrics` on this port or the next free one within a hundred; returns the port, 0 if none is free.

    Raises `DeploymentFault` for a host that is not this machine's.
    """
    for candidate in range(port, min(port + PORTS_TRIED, 65_536)):
        try:
            start_http_server(candidate, host)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise DeploymentFault(
                    f"no metrics can be served on {host}:{candidate} ({error.strerror}): set METRICS_HOST, METRICS_PORT"
                ) from None
            continue
        log.info("metrics", url=f"http://{host}:{candidate}/metrics")
        return candidate
    log.warning("no free port for metrics", first=port)
    return 0
