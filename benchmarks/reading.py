"""From Kafka to typed rows, with no destination, beside the bare client on the same topic, in one run.

    make bench ARGS="reading --rows 300000"

*bare consume*: one consumer at its best (a short back-off of the fetcher, lists of 500 that are let go at once); key,
value, offset and timestamp of each message are read, and nothing is made of them.
*rows*: a worker as in production, with the members flow's own operators and a writer that has nothing to do: rows as
columns, which are settled and committed, and each record is accounted for. *items*: the same with `COLUMNAR=off`.

Each is a process of its own, and measures itself from the end of its first list to the end of its last: joining a group
and importing are no part of it. CPU is the process's, librdkafka's threads included; `thread_us_per_row` is that of the
thread that runs the flow.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

from confluent_kafka.admin import AdminClient

from benchmarks.common import alternate, arguments, fresh_topic, messages, say, send, servers, summary
from lovelace_streams import Settings

FLOW = "benchmarks.reading_flow"
SECONDS = 300.0
BARE = "bare consume"
WHAT: dict[str, tuple[list[str], dict[str, str]]] = {
    BARE: ([FLOW], {}),
    "rows": (["bytewax.run", FLOW], {}),
    "items": (["bytewax.run", FLOW], {"COLUMNAR": "off"}),
    "rows, window 4000": (["bytewax.run", FLOW], {"BATCH_SIZE": "2000", "POLL_SIZE": "4000"}),
}
"""What is run, and with which settings."""


def measurements(settings: Settings, topic: str, rows: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is measured of a topic with so many messages, a member each."""
    return {what: lambda what=what: run(settings, topic, rows, what) for what in WHAT}


def run(settings: Settings, topic: str, rows: int, what: str) -> dict[str, Any]:
    """One process, that prints what it measured."""
    arguments, changes = WHAT[what]
    group = f"bench-{uuid4().hex[:12]}"
    environment = {
        **os.environ,
        "KAFKA_BROKERS": settings.kafka_brokers,
        "BENCH_TOPIC": topic,
        "BENCH_ROWS": str(rows),
        "CONSUMER_GROUP_ID": group,
        "PROGRESS_API_URL": "",
        "LOG_FORMAT": "json",
        "METRICS_PORT": "0",
        **changes,
    }
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    admin = AdminClient({"bootstrap.servers": settings.kafka_brokers})
    admin.delete_topics([f"{group}.replay"])[f"{group}.replay"].exception(30)  # the bare client makes none
    found = [line for line in done.stdout.splitlines() if line.startswith('{"rows"')]
    if done.returncode or not found:
        sys.exit(f"{what} ended with {done.returncode}: {done.stdout[-2000:]} {done.stderr[-2000:]}")
    numbers: dict[str, Any] = json.loads(found[-1])
    return numbers


def measure(settings: Settings, rows: int, runs: int, minutes: float | None = None) -> Iterator[dict[str, Any]]:
    """All of it on a topic of its own; the results, and last the summary."""
    with fresh_topic(settings) as topic:
        say(f"preparing {rows} messages")
        send(settings, topic, messages(rows), job=topic)
        results = alternate("reading", measurements(settings, topic, rows), runs, minutes)
    yield from results
    yield summary("reading", results, [(what, BARE) for what in WHAT if what != BARE], rows=rows)


def main() -> int:
    """Run it; prints its JSON lines."""
    options = arguments("reading", __doc__, rows=300_000, runs=5).parse_args()
    with servers(("kafka",), api=False) as started:
        *_, last = measure(started.settings, options.rows, options.runs, options.minutes)
    print(json.dumps(last), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
