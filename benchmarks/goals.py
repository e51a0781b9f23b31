"""What we want to reach, as ratios within one run, and what was measured of it."""

from collections.abc import Callable, Iterator, Mapping
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


def _worst(share: str) -> Callable[[Measured], Spread | None]:
    """Of all kinds of badness the slowest, against none bad."""

    def measure(measured: Measured) -> Spread | None:
        found = [ratio("isolation", name, none)(measured) for name, none in _bad(measured["isolation"], share)]
        return min((each for each in found if each), key=lambda each: each.median, default=None)

    return measure


def _bad(isolation: Results, share: str) -> Iterator[tuple[str, str]]:
    for name in isolation.names:
        if name.startswith(f"{OURS}, {BEST}") and name.endswith(f", {share}"):
            yield name, f"{name.rpartition(', ')[0]}, 0 %"


GOALS = [
    Goal(
        "Kafka → typed rows, no destination, against bare `consume` of the same topic",
        0.4,
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
    Goal(
        "JSON → Postgres, new rows, against straight COPY of the same rows alone",
        0.6,
        ratio("members", "job, best, new rows", "database, copy 2000, new rows"),
    ),
    Goal(
        "JSON → Postgres, existing rows, against COPY and merge of the same rows alone",
        0.85,
        ratio("members", "job, best, existing rows", "database, merge 2000, existing rows"),
    ),
    Goal("new rows, against Bento, each at its best", 4, against("bento", "new rows")),
    Goal("existing rows, against Bento, each at its best", 2, against("bento", "existing rows")),
    Goal("new rows in batches of 100, each committed, against Bento", 2.5, against("bento", "new rows", SMALL)),
    Goal("Avro → Postgres, new rows, against Bento", 4, against("bento", "Avro, new rows")),
    Goal("new rows, against Kafka Connect with Debezium's JDBC sink", 3, against("kafka connect", "new rows")),
    Goal("1 % bad rows on both sides, against Bento", 15, against("bento", "check, 1 %", benchmark="isolation")),
    Goal("1 % bad rows, against none (the slowest kind)", 0.9, _worst("1 %")),
    Goal("10 % bad rows, against none (the slowest kind)", 0.8, _worst("10 %")),
    Goal(
        "JSON → ClickHouse (chDB), against inserting the same prebuilt blocks alone",
        0.5,
        ratio("clickhouse", "job, JSON, best", "insert 10000"),
    ),
    Goal("Avro → ClickHouse, against the same", 0.5, ratio("clickhouse", "job, Avro, best", "insert 10000")),
    Goal(
        "CPU a row in our process, against Bento's",
        0.35,
        ratio("peers", f"{OURS}, {BEST}, new rows", f"bento, {BEST}, new rows", "cpu_us_per_row"),
        at_most=True,
    ),
    Goal(
        "p99 latency at 1,000 records/s, against Bento's, both gathering for 50 ms",
        1,
        ratio("latency", f"{OURS}, linger 50 ms, 1000 records/s", "bento, linger 50 ms, 1000 records/s", "p99_ms"),
        at_most=True,
    ),
    Goal("what is left of the speed at many rows in the table, against what the bare database keeps", 1, _lost),
    Goal(
        "two workers against one, destination not the bottleneck, two cores",
        1.7,
        ratio("scale", "2 workers", "1 worker"),
    ),
    Goal("memory of a worker in a job of many items", 250, _peak, at_most=True, unit=" MB"),
]
