"""What becomes of speed and memory as there is more of everything: workers, rows in the table, records of a job.

    make bench ARGS="scale --rows 1000000"
    make bench ARGS="scale --only job --job-items 10000000"

*workers*: 1, 2 and 4 processes share a topic of 24 partitions, with a destination that is not the bottleneck
(`scale_flow`). All have joined and wait before the first message is seen (a transaction holds the messages back), and
the job's completion, exact to the item, is the end.
*table*: new rows into a table that holds 0, a million, ten million rows already, with keys spread over its whole index;
the job at its best, beside the database alone with the same blocks.
*job*: one job of many items by one worker into Postgres, its resident memory and its speed looked at twice a second.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psutil

from benchmarks import database
from benchmarks.common import (
    COLUMNS,
    GUILD,
    TABLE,
    Servers,
    alternate,
    arguments,
    completed,
    count_rows,
    cpu_seconds,
    fresh_topic,
    held_back,
    logged,
    make_table,
    many_messages,
    peak_memory,
    say,
    servers,
    speed,
    state_of,
    submit,
    summary,
    until,
    work,
)
from lovelace_streams.cli.demo.processes import Worker
from lovelace_streams.submit import open_job

FLOW = "benchmarks.scale_flow"
SETTINGS: dict[str, str] = {}
BLOCK = 2000
PARTITIONS = 8
"""Of the one large job."""
SHARED = 24
"""Of the workers' topic: they also share out the topic of replays, one partition, which makes 9 of 8 uneven for two."""
WORKERS = (1, 2, 4)
PARTS = ("workers", "table", "job")
SPREAD, PRIME = 2_654_435_761, 10_000_000_019
"""`n * SPREAD % PRIME`: as many different numbers in no order, within 64 bits up to the three billionth."""


def main() -> int:
    """Run it; prints its JSON lines."""
    parser = arguments("scale", __doc__, rows=500_000, runs=3)
    parser.add_argument("--only", choices=PARTS, action="append", help="one of the parts (all)")
    parser.add_argument("--tables", default="0,1000000", help="rows in the table before (0,1000000)")
    parser.add_argument("--table-rows", type=int, default=100_000, help="new rows into it (100000)")
    parser.add_argument("--job-items", type=int, default=1_000_000, help="items of the one large job (1000000)")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    with servers() as started:
        for part in options.only or PARTS:
            runs = 1 if part == "job" else options.runs
            minutes = None if options.minutes is None else options.minutes / len(options.only or PARTS)
            results += alternate("scale", MEASUREMENTS[part](started, options), runs, minutes)
    print(json.dumps(summary("scale", results, pairs(options), settings=SETTINGS)), flush=True)
    return 0


# -- workers -----------------------------------------------------------------------------------------------------------


def workers(servers: Servers, options: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Each number of them, on a topic of their own."""
    return {_workers(number): lambda number=number: shared(servers, options.rows, number) for number in WORKERS}


def _workers(number: int) -> str:
    return f"{number} worker{'s' if number > 1 else ''}"


def shared(servers: Servers, rows: int, number: int) -> dict[str, Any]:
    """So many workers on one topic, from the moment its messages are seen to the job's completion."""
    job = f"job-{uuid4().hex[:12]}"
    with fresh_topic(servers.settings, SHARED) as topic:
        opened = {"job_id": job, "source": "discord", "total_items": rows, "pipelines": [topic]}
        open_job(servers.settings.progress, opened)
        about = SETTINGS | {"BENCH_TOPIC": topic, "CONSUMER_GROUP_ID": topic}
        started = [Worker(servers.stack.home, FLOW, f"worker-{at}", **about) for at in range(number)]
        try:
            with held_back(servers.settings, topic, many_messages(rows), job=job, transaction=topic):
                for worker in started:
                    worker.log.unlink(missing_ok=True)
                    worker.start()
                until(lambda: _joined(started), started[0], 0.1)
                used = [cpu_seconds(worker.process()) for worker in started]
                others = servers.cpu()
            began = datetime.now(UTC)
            state = until(lambda: completed(servers.settings, job), started[0], 0.05)
            cpu = sum(cpu_seconds(worker.process()) for worker in started) - sum(used)
            others = {name: seconds - others[name] for name, seconds in servers.cpu().items()}
            peak = max(peak_memory(worker.process().pid) for worker in started)
        finally:
            for worker in started:
                worker.stop()
    if state["succeeded"] != rows:
        sys.exit(f"the job does not add up: {state}")
    seconds = (datetime.fromisoformat(state["completed_at"]) - began).total_seconds()
    return speed(rows, seconds, cpu) | {
        "peak_mb": round(peak / 2**20, 1),
        "servers_cpu_us_per_row": {name: round(spent / rows * 1e6, 2) for name, spent in others.items()},
    }


def _held(worker: Worker) -> set[tuple[str, int]]:
    """The partitions that it has begun to read, by its log."""
    held: set[tuple[str, int]] = set()
    for entry in logged(worker):
        if entry["event"] == "assigned":
            held.add((entry["topic"], entry["partition"]))
        if entry["event"] == "revoked":
            named = (name.rpartition("-") for name in entry["partitions"])
            held -= {(topic, int(partition)) for topic, _, partition in named}
    return held


def _joined(workers: list[Worker]) -> bool | None:
    """Whether they share the topic, and that of replays, as evenly as can be."""
    held = [len(_held(worker)) for worker in workers]
    return True if max(held) - min(held) <= 1 and sum(held) == SHARED + 1 else None


# -- rows in the table -------------------------------------------------------------------------------------------------


def table(servers: Servers, options: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """New rows into tables of each size: by a job, by COPY and by COPY and merge alone."""
    made: dict[str, Callable[[], dict[str, Any]]] = {}
    rows = options.table_rows
    for size in _sizes(options):
        blocks = database.cut(database.lines(rows, number=lambda n, size=size: _spread(size + n)), BLOCK)
        made[f"job, {size:,} rows before"] = lambda size=size: into(
            servers, size, rows, lambda: _job(servers, rows, size)
        )
        for name, how in (("copy", database.copy), ("merge", database.merge)):
            made[f"database, {name}, {size:,} rows before"] = lambda size=size, blocks=blocks, how=how: into(
                servers, size, rows, lambda: database.write(servers, blocks, how, rows)
            )
    return made


def _sizes(options: argparse.Namespace) -> list[int]:
    return [int(size) for size in options.tables.split(",")]


def _spread(number: int) -> int:
    return number * SPREAD % PRIME


def _job(servers: Servers, rows: int, size: int) -> dict[str, Any]:
    with fresh_topic(servers.settings) as topic:
        job = submit(servers, topic, many_messages(rows, lambda n: _spread(size + n)), rows)
        return work(servers, topic, job, rows, SETTINGS)


def into(servers: Servers, size: int, rows: int, write: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Into a table that holds so many rows."""
    make_table(servers)
    if size:
        fill(servers, size)
    result = write()
    if (count := count_rows(servers)) != size + rows:
        sys.exit(f"{count} rows are in the table, not {size + rows}")
    return result


def fill(servers: Servers, size: int) -> None:
    """Rows like the job's, by the database itself; the index is built after them, as it would be by a restore."""
    values = {
        "guild_id": str(GUILD),
        "user_id": f"{10**17} + n * {SPREAD} % {PRIME}",
        "username": "'user' || n",
        "display_name": "'Member ' || n",
        "roles": "array[700000000000000000, 700000000000000001]",
        "joined_at": f"timestamptz '{database.OLD}'",
        "avatar": "md5(n::text)",
        "left_at": "null",
        "seen_at": f"timestamptz '{database.OLD}'",
    }
    chosen = ", ".join(f"{values[name]} as {name}" for name in COLUMNS)
    key = ", ".join(TABLE.key)
    with servers.connect() as connection:
        for statement in (
            f"alter table {TABLE.name} drop constraint {TABLE.name}_pkey",
            f"insert into {TABLE.name} select {chosen} from generate_series(1::int8, {size}) as n",
            f"alter table {TABLE.name} add primary key ({key})",
            f"vacuum analyze {TABLE.name}",
            "checkpoint",
        ):
            connection.execute(statement.encode())


# -- one large job -----------------------------------------------------------------------------------------------------


def job(servers: Servers, options: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """One job of so many items."""
    return {f"job of {options.job_items:,} items": lambda: large(servers, options.job_items)}


def large(servers: Servers, items: int) -> dict[str, Any]:
    """Its speed, and what the worker held while it worked: seconds, MB, items done."""
    make_table(servers)
    samples: list[tuple[float, float, int]] = []
    with fresh_topic(servers.settings, PARTITIONS) as topic:
        say(f"sending {items:,} messages")
        name = submit(servers, topic, many_messages(items), items)
        began = time.monotonic()

        def look(process: psutil.Process) -> None:
            at = time.monotonic() - began
            if not samples or at - samples[-1][0] >= 0.5:
                done = int(state_of(servers.settings, name)["succeeded"])
                samples.append((round(at, 1), round(process.memory_info().rss / 2**20, 1), done))

        result = work(servers, topic, name, items, SETTINGS, look=look)
    if (count := count_rows(servers)) != items:
        sys.exit(f"{count} rows are in the table, not {items}")
    tenth = max(len(samples) // 10, 1)
    grown = max(mb for _, mb, _ in samples[-tenth:]) - max(mb for _, mb, _ in samples[tenth : 2 * tenth] or samples[:1])
    return result | {"grown_mb": round(grown, 1), "samples": samples[:: max(len(samples) // 100, 1)]}


# -- the summary -------------------------------------------------------------------------------------------------------

MEASUREMENTS = {"workers": workers, "table": table, "job": job}


def pairs(options: argparse.Namespace) -> list[tuple[str, str]]:
    """More of it, beside less of it."""
    smallest, *larger = sorted(_sizes(options))
    kinds = ("job", "database, copy", "database, merge")
    return [
        *((_workers(number), _workers(1)) for number in WORKERS[1:]),
        *((f"{kind}, {size:,} rows before", f"{kind}, {smallest:,} rows before") for kind in kinds for size in larger),
    ]


if __name__ == "__main__":
    sys.exit(main())
