"""The parts of docs/scaling.md: from what a row was measured to cost to what a million a second take.

The arithmetic is simple on purpose: a microsecond of CPU a row is a core at a million rows a second.
"""

import math
from collections.abc import Callable

from benchmarks.goals import Measured
from benchmarks.markdown import number, table
from benchmarks.measured import Results, Spread

TARGET = 1_000_000
BUSY = 0.6
"""How busy a core may be on average: the rest is for peaks, for catching up after an outage, for vacuum."""
SHARD_CORES = 8
PARTITIONS_A_WORKER = 4
"""So that workers can be added, and what one more worker takes over evens out."""
JOBS = {"new rows": "job, best, new rows", "existing rows": "job, best, existing rows"}
ALONE = {"new rows": "database, copy 2000, new rows", "existing rows": "database, merge 2000, existing rows"}
REPORTS = {
    "of one job, in order": "1 job in order, ranges",
    "of ten jobs, interleaved": "10 jobs interleaved, sums",
    "of all open jobs, by chance": "open jobs at random, sums",
}
"""How jobs lie in a partition, and what was measured of it: in the form that workers choose."""
NOTHING = 'Not measured yet: `make bench ARGS="members ledger scale --save benchmarks/results"`.\n'


def unit_costs(measured: Measured) -> str:
    """What a row costs each part."""
    members = measured["members"]
    if not members.has(*JOBS.values(), *ALONE.values()):
        return NOTHING
    rows = []
    for kind, job in JOBS.items():
        servers = members.servers_cpu(job)
        alone = members.servers_cpu(ALONE[kind])
        rows.append(
            (
                kind,
                number(_median(members, job, "cpu_us_per_row")),
                *(number(servers.get(name, 0.0)) for name in ("kafka", "postgres", "api")),
                number(alone.get("postgres", 0.0)),
                number(_median(members, job, "wal_bytes_per_row")),
            )
        )
    head = ("", "worker", "Kafka, reading", "Postgres", "progress service", "Postgres alone", "WAL bytes a row")
    text = table(head, rows)
    if "message_bytes" in members.summary:
        said = members.summary
        text += f"\nA message is {said['message_bytes']} bytes of JSON, a row {said['row_bytes']} bytes of COPY text.\n"
    return text


def ledger(measured: Measured) -> str:
    """What a million offsets cost, by how the jobs of the messages lie."""
    found = measured["ledger"]
    rows = [
        (what, *(number(_median(found, name, field)) for field in ("cpu_us_per_row", "postgres_cpu_us_per_row")))
        for what, name in REPORTS.items()
        if found.has(name)
    ]
    if not rows:
        return NOTHING
    return table(("messages", "seconds of the progress service", "seconds of its Postgres"), rows)


def million(measured: Measured) -> str:
    """What a million a second take."""
    members = measured["members"]
    if not members.has(*JOBS.values()):
        return NOTHING
    rows = []
    for kind, job in JOBS.items():
        servers = members.servers_cpu(job)
        workers = _cores(_median(members, job, "cpu_us_per_row"))
        shards = math.ceil(_cores(servers.get("postgres", 0.0)) / SHARD_CORES)
        log = _median(members, job, "wal_bytes_per_row") * TARGET / 1e6
        rows.append(
            (
                kind,
                f"{workers}",
                f"{workers * PARTITIONS_A_WORKER}",
                *(f"{_cores(servers.get(name, 0.0))}" for name in ("kafka", "api", "postgres")),
                f"{shards}",
                f"{number(log)}, {number(log / shards)} each",
            )
        )
    head = (
        "",
        "workers",
        "partitions",
        "cores of Kafka",
        "cores of the progress service",
        "cores of Postgres",
        "shards",
        "WAL MB/s",
    )
    text = f"Each core {BUSY:.0%} busy, {PARTITIONS_A_WORKER} partitions a worker, {SHARD_CORES} cores a shard:\n\n"
    text += table(head, rows)
    if "message_bytes" in members.summary:
        into, rest = (number(members.summary[name] * TARGET / 1e6) for name in ("message_bytes", "row_bytes"))
        text += f"\nOut of Kafka come {into} MB/s before compression, into Postgres go {rest} MB/s of text.\n"
    return text


def seen(measured: Measured) -> str:
    """What more workers and more rows did here."""
    scale = measured["scale"]
    lines = [
        f"- {name}: {number(ratio.median)} times the rows a second of one, into nowhere."
        for name in scale.names
        if name.endswith("workers") and (ratio := scale.ratio(name, "1 worker"))
    ]
    sizes = [name.removeprefix("job, ") for name in scale.names if name.startswith("job, ")]
    for size in sizes[1:]:
        left = {kind: scale.ratio(f"{kind}, {size}", f"{kind}, {sizes[0]}") for kind in ("job", "database, merge")}
        if all(left.values()):
            job, merge = (number(each.median) for each in left.values() if each)
            lines.append(f"- {size}: {job} times the speed into an empty table; the database alone, merging, {merge}.")
    cores = scale.summary.get("machine", {}).get("cores", "")
    return f"On {cores} cores, shared with the servers:\n\n" + "\n".join(lines) + "\n" if lines else NOTHING


PARTS: dict[str, Callable[[Measured], str]] = {
    "unit-costs": unit_costs,
    "ledger-costs": ledger,
    "million": million,
    "seen": seen,
}


def _cores(microseconds: float) -> int:
    """How many it takes for this much CPU a row."""
    return max(1, math.ceil(microseconds * TARGET / 1e6 / BUSY))


def _median(found: Results, name: str, field: str) -> float:
    spread: Spread | None = found.spread(name, field)
    return spread.median if spread else 0.0
