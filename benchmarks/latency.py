"""From a record's timestamp to its row being there, at a steady pace, beside Bento.

    python -m benchmarks.latency --rates 1000,10000 --seconds 20

A producer sends so many records a second, each with the time of its sending; Postgres dates every commit
(`track_commit_timestamp`), and the difference is a row's latency; the clock is one and the same. A commit is dated as
it begins, so the flush of the log is not in it, for anybody: `commit_ms` says what one row's insert takes on this disk,
`ack_p99_ms` how long the broker took to acknowledge a record, which is in everybody's latency.
The first seconds are left out. Both gather up to 100 rows, for at most 50 ms (ours: the default) or 5 ms; the laws
hold: dead letters, the ledger and commits are on.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
from confluent_kafka import Producer

from benchmarks.common import (
    HOME,
    PARTITIONS,
    TABLE,
    Servers,
    add_minutes,
    by_what,
    machine,
    payload,
    rounds,
    say,
    servers,
)
from benchmarks.peers.contenders import Contender, contenders
from benchmarks.peers.contest import Contest, cpu_of, family, headers
from benchmarks.peers.records import Load, nested, user
from lovelace_streams.submit import open_job

WARM_SECONDS = 3
READY_SECONDS = 60
LATE_SECONDS = 30
LINGERS = (50, 5)
"""Milliseconds for which a batch may be gathered."""


def main() -> int:
    """Run it; 1 if a row never came."""
    parser = argparse.ArgumentParser(prog="benchmarks.latency", description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="1000,10000", help="records a second (1000,10000)")
    parser.add_argument("--seconds", type=int, default=15, help="of each measurement (15)")
    parser.add_argument("--runs", type=int, default=2, help="how often each is measured (2)")
    parser.add_argument("--only", help="contenders whose name contains this")
    add_minutes(parser)
    options = parser.parse_args()
    rates = [int(rate) for rate in options.rates.split(",")]
    found = [each for each in contenders(HOME, only=options.only) if each.setting == "batch 100"]
    chosen = [
        lingering(each, linger) for linger in LINGERS for each in found if each.who in {"lovelace_streams", "bento"}
    ]
    results = []
    with servers() as up, commits_dated(up):
        # A broker that has just started takes seconds to acknowledge a thousand small requests a second: whoever were
        # measured first would be told its warming up.
        say("warming up the broker")
        Paced(up, chosen[0], rates[0], WARM_SECONDS).run()
        for run in rounds(options.runs, options.minutes):
            for rate in rates:
                for contender in chosen:
                    result = {"benchmark": "latency", "run": run, **Paced(up, contender, rate, options.seconds).run()}
                    print(json.dumps(result), flush=True)
                    say(f"run {run} of {options.runs}: {result['what']}: p99 {result['p99_ms']} ms")
                    results.append(result)
    print(json.dumps(summary(results, options.runs)), flush=True)
    return 0 if not any(result["missing"] for result in results) else 1


def lingering(contender: Contender, milliseconds: int) -> Contender:
    """A contender that gathers no longer than this, ours with its defaults else."""
    told = {"BATCH_LINGER_MS": str(milliseconds), "PERIOD": f"{milliseconds}ms"}
    usual = {} if contender.who == "lovelace_streams" else contender.environment
    return replace(contender, setting=f"linger {milliseconds} ms", environment={**usual, **told})


@contextmanager
def commits_dated(up: Servers) -> Iterator[None]:
    """A server that notes when each transaction was committed."""
    said = "alter system set track_commit_timestamp = on", "alter system reset track_commit_timestamp"
    for_good = dict(zip(("on", "off"), said, strict=True))
    with up.connect() as connection:
        connection.execute(for_good["on"])
    up.stack.postgres.restart()
    if up.api is not None:
        up.api.restart()
    try:
        yield
    finally:
        with up.connect() as connection:
            connection.execute(for_good["off"])


class Paced:
    """One measurement: a contender at a rate."""

    def __init__(self, up: Servers, contender: Contender, rate: int, seconds: int) -> None:
        self.up = up
        self.contest = Contest(up, Load(rate * (seconds + WARM_SECONDS), 0))
        self.contender = contender
        self.rate = rate
        self.total = self.contest.load.total
        self.sent: dict[int, float] = {}
        self.acknowledged: list[float] = []
        self.producer = Producer({"bootstrap.servers": self.contest.brokers, "linger.ms": 1, "compression.type": "lz4"})

    def run(self) -> dict[str, Any]:
        """Wait until the contender works, send at the pace, wait for the last row."""
        name = f"paced-{uuid4().hex[:12]}"
        values = [nested(payload(number)) for number in range(self.total + 1)]
        self.contest.make_table()
        with self.contest.topic(name, dead_letters=not self.contender.makes_dead_letters):
            job = {"job_id": name, "source": "discord", "total_items": self.total + 1, "pipelines": [name]}
            open_job(self.up.settings.progress, job)
            with (
                self.contest.running(self.contender, name) as program,
                self.up.connect() as connection,
            ):
                self.send(name, 0, values[0])
                until(connection, 1, READY_SECONDS)
                cpu = cpu_of(family(program))
                self.pace(name, values)
                until(connection, self.total + 1, LATE_SECONDS)
                cpu = cpu_of(family(program)) - cpu
                seen = self.seen(connection)
                commit = commit_ms(connection)
        return {
            "what": f"{self.contender.name}, {self.rate} records/s",
            "rate": self.rate,
            "rows": len(seen),
            "missing": len(self.sent) - len(seen),
            "cpu_us_per_row": round(cpu / self.total * 1e6, 2),
            "commit_ms": commit,
            "ack_p99_ms": percentiles(self.acknowledged[self.rate * WARM_SECONDS :])["p99_ms"],
            **percentiles(self.latencies(seen)),
        }

    def send(self, topic: str, number: int, value: bytes) -> None:
        """One record, with the time it has now."""
        now = time.time()
        self.sent[user(number)] = now
        self.producer.produce(
            topic,
            value,
            partition=number % PARTITIONS,
            headers=[*headers(topic)],
            timestamp=int(now * 1000),
            on_delivery=lambda *_: self.acknowledged.append((time.time() - now) * 1000),
        )

    def pace(self, topic: str, values: Sequence[bytes]) -> None:
        """So many records a second, a few every millisecond."""
        began, sent = time.monotonic(), 0
        while sent < self.total:
            due = min(int((time.monotonic() - began) * self.rate), self.total)
            for number in range(sent + 1, due + 1):
                self.send(topic, number, values[number])
            sent = max(sent, due)
            self.producer.poll(0)
            time.sleep(0.001)
        self.producer.flush()

    def seen(self, connection: psycopg.Connection[Any]) -> dict[int, float]:
        """When each row was committed."""
        query = f"select user_id, extract(epoch from pg_xact_commit_timestamp(xmin))::float8 from {TABLE.name}"
        return dict(connection.execute(query.encode()).fetchall())

    def latencies(self, seen: dict[int, float]) -> list[float]:
        """Milliseconds of each row that was sent after the first seconds."""
        first = user(self.rate * WARM_SECONDS)
        return [(at - self.sent[each]) * 1000 for each, at in seen.items() if each > first]


def until(connection: psycopg.Connection[Any], rows: int, seconds: float) -> None:
    """Wait for so many rows, looking seldom."""
    end = time.monotonic() + seconds
    query = f"select count(*) from {TABLE.name}".encode()
    while time.monotonic() < end:
        [(count,)] = connection.execute(query).fetchall()
        if count >= rows:
            return
        time.sleep(0.2)


def commit_ms(connection: psycopg.Connection[Any]) -> float:
    """What a commit of one row takes, by the median of a hundred."""
    connection.execute("create table if not exists committed (n int)")
    spent = []
    for number in range(100):
        began = time.perf_counter()
        connection.execute("insert into committed values (%s)", (number,))
        spent.append(time.perf_counter() - began)
    connection.execute("drop table committed")
    return round(statistics.median(spent) * 1000, 2)


def percentiles(latencies: list[float]) -> dict[str, float]:
    """The median, and what 1 in 100 and 1 in 1,000 exceed."""
    ordered = sorted(latencies)
    if not ordered:
        return dict.fromkeys(("p50_ms", "p99_ms", "p999_ms"), 0.0)
    return {
        f"p{name}_ms": round(ordered[min(int(len(ordered) * share), len(ordered) - 1)], 1)
        for name, share in (("50", 0.5), ("99", 0.99), ("999", 0.999))
    }


def summary(results: Sequence[dict[str, Any]], runs: int) -> dict[str, Any]:
    """Medians over the runs, and ours against Bento's p99."""
    names = ("p50_ms", "p99_ms", "p999_ms", "cpu_us_per_row", "commit_ms", "ack_p99_ms")
    medians = {
        what: {name: round(statistics.median(each[name] for each in found), 2) for name in names}
        for what, found in by_what(results).items()
    }
    return {
        "benchmark": "latency",
        "summary": True,
        "runs": runs,
        "latency": medians,
        "ratios": {
            f"{a} / {b}, p99": round(medians[a]["p99_ms"] / medians[b]["p99_ms"], 2)
            for a in medians
            for b in medians
            if a.startswith("lovelace") and b.startswith("bento") and a.split(", ")[1:] == b.split(", ")[1:]
        },
        **machine(),
    }


if __name__ == "__main__":
    sys.exit(main())
