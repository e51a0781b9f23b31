"""The ledger: what accounting costs the worker, and what reports cost the progress service and its database.

    make bench ARGS="ledger --rows 50000 --jobs 10000"

*worker*: one-item messages settled in lists and made into ranges, in this process. *Reports*: requests made before, one
in flight as a worker sends them, to a real progress service on real Postgres. Each report holds the offsets of 50 ms at
100,000 a second; the jobs of its messages lie in order, interleaved message by message, or are drawn from as many as
are open. *Ranges* and *sums* are the two forms of a report (docs/decisions/0015-sums-in-reports.md). *Again* are
reports that were accepted before, as after a crash, in random order: they change nothing.

A row is an offset. CPU is the service's (of *worker* this process's), `postgres_cpu_us_per_row` its database's; a
microsecond a row is a second a million. *Asked* are the service's own questions beside so many open jobs, in ms.
"""

import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import httpx

from benchmarks.common import Servers, alternate, arguments, servers, speed, summary
from lovelace_streams.api import ApiSettings
from lovelace_streams.api.database import Queries
from lovelace_streams.records import Envelope, Outcome, Record, Settled
from lovelace_streams.reporting.requests import Report, request_of
from lovelace_streams.runtime.in_flight import InFlight
from lovelace_streams.runtime.ranges import FailedItems, Range, merge_neighbours

REPORT = 5000
"""Offsets of a report."""
AGAIN = 300
PIPELINE = "bench"
FORMS = {"ranges": False, "sums": True}
PAIRS = [
    (f"{jobs}, sums", f"{jobs}, ranges") for jobs in ("10 jobs interleaved", "open jobs at random", "1 % failed")
] + [("10 jobs interleaved, sums", "1 job in order, ranges")]


class Bench:
    """What is measured, on one set of servers."""

    def __init__(self, servers: Servers, rows: int, jobs: int) -> None:
        self.servers = servers
        self.rows = rows
        self.jobs = jobs
        settings = servers.settings.progress
        self.client = httpx.Client(
            headers={"authorization": f"Bearer {settings.token}", "content-type": "application/json"},
            base_url=str(settings.url),
            timeout=60,
            trust_env=False,
        )
        self.names = self.open_jobs()

    def measurements(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """By name, in the order of a run."""
        ten, chance = self.names[:10], random.Random(7)
        made: dict[str, Callable[[], dict[str, Any]]] = {
            "worker, 1 job in order": lambda: worker(self.rows, ten[:1]),
            "worker, 10 jobs interleaved": lambda: worker(self.rows, ten),
            "1 job in order, ranges": lambda: self.told(self.ranges(lambda _at: ten[0]), short=False),
        }
        for form, short in FORMS.items():
            made |= {
                f"10 jobs interleaved, {form}": lambda short=short: self.told(
                    self.ranges(lambda at: ten[at % 10]), short=short
                ),
                f"open jobs at random, {form}": lambda short=short: self.told(
                    self.ranges(lambda _at: chance.choice(self.names)), short=short
                ),
                f"1 % failed, {form}": lambda short=short: self.told(
                    self.ranges(lambda _at: ten[0], failed=100), short=short
                ),
                f"{AGAIN} reports again, {form}": lambda short=short: self.again(short=short),
            }
        return made | {"a job of 10 million items": self.large, "asked": self.asked}

    def warm_up(self) -> None:
        """The service prepares its statements, and imports what it needs, with the first requests."""
        for short in FORMS.values():
            for _ in range(10):
                self.told([[Range(at, at, 1, 0, 0, self.names[at % 3]) for at in range(100)]], short=short)

    def open_jobs(self) -> list[str]:
        """So many jobs that stay open; by one statement: it is not the opening that is measured."""
        name = uuid4().hex[:12]
        with self.servers.connect() as connection, connection.transaction():
            made = f"select 'bench-{name}-' || n as job_id from generate_series(1, {self.jobs}) as n"
            connection.execute(f"insert into lovelace.heard (job_id) {made}".encode())
            connection.execute(
                f"insert into lovelace.game_onboarding_progress"
                f" (job_id, attempt, version, source, total_items, status, created_at, changed_at)"
                f" select job_id, 1, 1, 'bench', {2**50}, 'open', now(), now() from ({made}) as made".encode()
            )
        with self.servers.connect() as connection:
            connection.execute("vacuum analyze")
        return [f"bench-{name}-{n}" for n in range(1, self.jobs + 1)]

    def ranges(self, job_of: Callable[[int], str], failed: int = 0) -> list[list[Range]]:
        """By report; every so many-th item failed."""
        made = []
        for first in range(0, self.rows, REPORT):
            there = [Range(at, at, 1, 0, 0, job_of(at)) for at in range(first, first + REPORT)]
            for r in there[::failed] if failed else ():
                r.succeeded, r.failed, r.failed_items = 0, 1, [FailedItems(0, 0, "check")]
            made.append(merge_neighbours(there))
        return made

    def requests(self, ranges: Sequence[list[Range]], topic_id: str, *, short: bool) -> list[bytes]:
        """As the worker writes them."""
        return [
            request_of(PIPELINE, [Report(1, "bench", topic_id, 0, part)], allow_sums=short)[0]
            for part in ranges
            if part
        ]

    def told(self, ranges: Sequence[list[Range]], *, short: bool) -> dict[str, Any]:
        """All of it for the first time, in order."""
        requests = self.requests(ranges, uuid4().hex, short=short)
        found, answers = self.send(requests, sum(r.last + 1 - r.first for part in ranges for r in part))
        if any(answer["known"] or answer["overlaps"] for answer in answers):
            sys.exit("something was known that was told for the first time")
        return found

    def again(self, *, short: bool) -> dict[str, Any]:
        """Reports of ten jobs interleaved, told before, in random order; of sums that overlap the ranges follow."""
        length, topic_id = 100, uuid4().hex
        ranges = [
            [Range(at, at, 1, 0, 0, self.names[at % 10]) for at in range(first, first + length)]
            for first in range(0, AGAIN * length, length)
        ]
        everything = [self.requests(ranges, topic_id, short=each) for each in FORMS.values()]
        self.send(everything[1], AGAIN * length)
        before = self.states()
        order = random.Random(7).sample(range(AGAIN), AGAIN)
        forms = everything[::-1] if short else everything[:1]
        found, answers = self.send([form[at] for at in order for form in forms], AGAIN * length)
        if sum(answer["known"] for answer in answers) != AGAIN * length or self.states() != before:
            sys.exit("reports that were told again changed something")
        return found

    def large(self) -> dict[str, Any]:
        """Ten reports' worth in each: what a report costs does not depend on what was there before."""
        length = 10 * REPORT
        parts = [[Range(at, at + length - 1, 1, 0, 0, self.names[-1])] for at in range(0, 10_000_000, length)]
        return self.told(parts, short=False)

    def states(self) -> list[Any]:
        """The ten jobs as they stand, and the cover."""
        with self.servers.connect() as connection:
            jobs = connection.execute(
                "select * from lovelace.game_onboarding_progress where job_id = any (%s) order by job_id",
                (self.names[:10],),
            ).fetchall()
            return [*jobs, *connection.execute("select * from lovelace.settled_offsets order by 1, 2, 3").fetchall()]

    def send(self, requests: Sequence[bytes], rows: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """One after the other."""
        before, began = self.servers.cpu(), time.perf_counter()
        answers = [self.client.post("/progress", content=request).raise_for_status() for request in requests]
        seconds = time.perf_counter() - began
        used = {name: cpu - before[name] for name, cpu in self.servers.cpu().items()}
        found = speed(rows, seconds, used["api"]) | {
            "reports_per_second": round(len(requests) / seconds, 1),
            "postgres_cpu_us_per_row": round(used["postgres"] / rows * 1e6, 2),
            "request_kb": round(sum(map(len, requests)) / len(requests) / 1024, 1),
            "answer_kb": round(sum(len(answer.content) for answer in answers) / len(requests) / 1024, 1),
        }
        return found, [answer.json() for answer in answers]

    def asked(self) -> dict[str, Any]:
        """What the page, Prometheus and the sweep ask, beside all the open jobs."""
        paths = {"jobs": "/jobs?status=open", "metrics": "/metrics", "one job": f"/jobs/{self.names[0]}"}
        asked: dict[str, Callable[[], object]] = {
            name: lambda path=path: self.client.get(path).raise_for_status() for name, path in paths.items()
        }
        queries = Queries(ApiSettings(dsn=self.servers.dsn, token=""))
        with self.servers.connect() as connection:
            asked["sweep"] = lambda: connection.execute(queries["stall"], {"seconds": 1e9, "channel": queries.channel})
            return {"ms": {name: median_ms(ask) for name, ask in asked.items()}}


def worker(rows: int, jobs: Sequence[str]) -> dict[str, Any]:
    """Settled in lists of 2,000 and made into ranges, with everything that is settled made before."""
    in_flight = InFlight()
    held = in_flight.assign("bench", "id", 0, 0)
    envelopes: list[Envelope[object]] = []
    for at in range(rows):
        record = Record("bench", 0, at, at, held.number, None, b"", [], -1, job=jobs[at % len(jobs)], items=1)
        in_flight.read(record)
        envelopes.append(Envelope(record, 0, None))
    lists = [Settled(Outcome.WRITTEN, envelopes[at : at + 2000]) for at in range(0, rows, 2000)]
    began, cpu = time.perf_counter(), time.process_time()
    for settled in lists:
        in_flight.settle(settled)
        in_flight.take_ranges()
    return speed(rows, time.perf_counter() - began, time.process_time() - cpu)


def median_ms(ask: Callable[[], object], times: int = 15) -> float:
    """How long it takes."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        took.append(time.perf_counter() - began)
    return round(1000 * statistics.median(took), 1)


def main() -> int:
    """Run it; 1 if a count is wrong."""
    parser = arguments("ledger", __doc__, rows=50_000, runs=3)
    parser.add_argument("--jobs", type=int, default=10_000, help="open jobs (10000)")
    options = parser.parse_args()
    with servers(("postgres",)) as up:
        bench = Bench(up, options.rows, options.jobs)
        bench.warm_up()
        results = alternate("ledger", bench.measurements(), options.runs, options.minutes)
        bench.client.close()
    print(json.dumps(summary("ledger", results, PAIRS, rows=options.rows, open_jobs=options.jobs)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
