"""What we want to reach, as ratios within one run, and what was measured of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.measured import Results, Spread

Measured = Mapping[str, Results]
OURS, BEST, SMALL = "lovelace_streams", "best", "batch 100"


@dataclass(frozen=True)
class Goal:
    """A sentence, the number that it should come to, and where that is measured."""

    what: str
    wanted: float
    measure: Callable[[Measured], Spread | None]
    at_most: bool = False
    unit: str = ""

    def reached(self, found: Spread) -> bool:
        """By the median."""
        return found.median <= self.wanted if self.at_most else found.median >= self.wanted


def ratio(benchmark: str, a: str, b: str, field: str = "rows_per_second") -> Callable[[Measured], Spread | None]:
    """One measurement against another one of the same runs."""
    return lambda measured: measured[benchmark].ratio(a, b, field)


def against(peer: str, rows: str, setting: str = BEST, benchmark: str = "peers") -> Callable[[Measured], Spread | None]:
    """Ours against a peer's, with the same kind of setting and the same rows."""
    return ratio(benchmark, f"{OURS}, {setting}, {rows}", f"{peer}, {setting}, {rows}")


def _share(benchmark: str, numerator: str, parts: str) -> Callable[[Measured], Spread | None]:
    """CPU a row of one measurement against that of all whose names end so, run by run."""

    def measure(measured: Measured) -> Spread | None:
        found = measured[benchmark]
        whole = found.values(numerator, "cpu_us_per_row")
        each = [found.values(name, "cpu_us_per_row") for name in found.names if name.endswith(parts)]
        ratios = [whole[run] / sum(part[run] for part in each) for run in whole if each and all(run in p for p in each)]
        return Spread.of(ratios) if ratios else None

    return measure


def before(*kinds: str) -> Callable[[Measured], Spread | None]:
    """CPU a row here against the commit that was compared; of several kinds of job the one that gained least."""

    def measure(measured: Measured) -> Spread | None:
        found = [measured["compare"].ratio(f"{kind}, here", f"{kind}, before", "cpu_us_per_row") for kind in kinds]
        return max((each for each in found if each), key=lambda each: each.median, default=None)

    return measure


def _lost(measured: Measured) -> Spread | None:
    """What speed is left with a large table, relative to what is left of the bare database's."""
    scale = measured["scale"]
    sizes = sorted(int(n.split(", ", 1)[1].split(" rows")[0].replace(",", "")) for n in scale.names if n[:4] == "job,")
    if len(sizes) < 2:
        return None
    left = [scale.ratio(f"{kind}, {sizes[-1]:,} rows before", f"{kind}, 0 rows before") for kind in KINDS]
    (ours, *bare) = left
    if ours is None or None in bare:
        return None
    best = min(each.median for each in bare if each)
    return Spread(ours.median / best, ours.low / best, ours.high / best)


KINDS = ("job", "database, copy", "database, merge")


def _peak(measured: Measured) -> Spread | None:
    scale = measured["scale"]
    large = next((name for name in scale.names if name.startswith("job of")), "")
    return scale.spread(large, "peak_mb")


def _worst(share: str, *kinds: str) -> Callable[[Measured], Spread | None]:
    """Of these kinds of badness the slowest, against none bad."""

    def measure(measured: Measured) -> Spread | None:
        names = [f"{OURS}, {BEST}, {kind}" for kind in kinds]
        found = [ratio("isolation", f"{name}, {share}", f"{name}, 0 %")(measured) for name in names]
        return min((each for each in found if each), key=lambda each: each.median, default=None)

    return measure


THOUSAND, HUNDRED = "one bad in a thousand", "one bad in a hundred"
UNREADABLE = ("undecodable", "does not fit")

GOALS = [
    Goal("new rows, against Bento, each at its best", 3.3, against("bento", "new rows")),
    Goal("existing rows, against Bento, each at its best", 2.3, against("bento", "existing rows")),
    Goal("new rows in batches of 100, each committed, against Bento", 2, against("bento", "new rows", SMALL)),
    Goal("existing rows in batches of 100, against Bento", 1.3, against("bento", "existing rows", SMALL)),
    Goal("Avro → Postgres, new rows, against Bento", 3.5, against("bento", "Avro, new rows")),
    Goal("Avro → Postgres, existing rows, against Bento", 2.8, against("bento", "Avro, existing rows")),
    Goal("new rows, against Kafka Connect with Debezium's JDBC sink", 4.5, against("kafka connect", "new rows")),
    Goal("messages of 1,000 items, CPU a row, against before columns", 0.45, before("chunks of 1,000"), at_most=True),
    Goal("messages of 10 items, CPU a row, against before columns", 0.45, before("chunks of 10"), at_most=True),
    Goal(
        "the same with one bad item in a thousand",
        0.6,
        before(f"chunks of 1,000, {THOUSAND}", f"chunks of 10, {THOUSAND}"),
        at_most=True,
    ),
    Goal(
        "the same with one bad item in a hundred",
        0.9,
        before(f"chunks of 1,000, {HUNDRED}", f"chunks of 10, {HUNDRED}"),
        at_most=True,
    ),
    Goal(
        "JSON → Postgres, new rows, against straight COPY of the same rows alone",
        0.55,
        ratio("members", "job, best, new rows", "database, copy 2000, new rows"),
    ),
    Goal(
        "JSON → Postgres, existing rows, against COPY and merge of the same rows alone",
        0.75,
        ratio("members", "job, best, existing rows", "database, merge 2000, existing rows"),
    ),
    Goal(
        "CPU a row of the worker, against the sum of its steps' limits",
        1.5,
        _share("stages", "whole job: columns", ": limit"),
        at_most=True,
    ),
    Goal(
        "CPU a row in our process, against Bento's, new rows",
        0.22,
        ratio("peers", f"{OURS}, {BEST}, new rows", f"bento, {BEST}, new rows", "cpu_us_per_row"),
        at_most=True,
    ),
    Goal(
        "CPU a row in our process, against Bento's, existing rows",
        0.28,
        ratio("peers", f"{OURS}, {BEST}, existing rows", f"bento, {BEST}, existing rows", "cpu_us_per_row"),
        at_most=True,
    ),
    Goal(
        "Kafka → typed columns, no destination, against bare `consume` of the same topic",
        0.3,
        lambda measured: max(
            (
                each
                for name in ("rows", "rows, window 4000")
                if (each := measured["reading"].ratio(name, "bare consume"))
            ),
            key=lambda each: each.median,
            default=None,
        ),
    ),
    Goal("1 % undecodable or not convertible, against none (the slower kind)", 0.9, _worst("1 %", *UNREADABLE)),
    Goal("10 % undecodable or not convertible, against none (the slower kind)", 0.5, _worst("10 %", *UNREADABLE)),
    Goal("1 % refused by a CHECK, against none", 0.7, _worst("1 %", "check")),
    Goal("10 % refused by a CHECK, against none", 0.5, _worst("10 %", "check")),
    Goal(
        "1 % refused by a CHECK on both sides, against Bento", 13, against("bento", "check, 1 %", benchmark="isolation")
    ),
    Goal(
        "JSON → ClickHouse (chDB), against inserting the same prebuilt blocks alone",
        0.5,
        ratio("clickhouse", "job, JSON, best", "insert 10000"),
    ),
    Goal("Avro → ClickHouse, against the same", 0.4, ratio("clickhouse", "job, Avro, best", "insert 10000")),
    *(
        Goal(
            f"p99 latency at 1,000 records/s, against Bento's, both gathering for {linger} ms",
            wanted,
            ratio(
                "latency",
                f"{OURS}, linger {linger} ms, 1000 records/s",
                f"bento, linger {linger} ms, 1000 records/s",
                "p99_ms",
            ),
            at_most=True,
        )
        for linger, wanted in ((50, 1), (5, 1.1))
    ),
    Goal("what is left of the speed at many rows in the table, against what the bare database keeps", 1, _lost),
    Goal("memory of a worker in a job of many items", 200, _peak, at_most=True, unit=" MB"),
    Goal(
        "two workers against one, destination not the bottleneck, two cores",
        1.7,
        ratio("scale", "2 workers", "1 worker"),
    ),
]
