"""Results in `benchmarks/results`, read: medians with their spread, and ratios within one run."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("results")
PARTIAL = {"isolation"}
"""Benchmarks in which what was reached counts although somebody gave up."""


@dataclass(frozen=True)
class Spread:
    """A median, with the lowest and the highest run."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Of one value a run."""
        return cls(statistics.median(values), min(values), max(values))


class Results:
    """The lines of one benchmark's last saved run; empty where there is none."""

    def __init__(self, name: str, lines: list[dict[str, Any]]) -> None:
        self.name = name
        done = [line for line in lines if line.get("complete", True) or name in PARTIAL]
        self.lines = [line for line in done if not line.get("summary")]
        self.summary: dict[str, Any] = next((line for line in lines if line.get("summary")), {})

    def __bool__(self) -> bool:
        return bool(self.lines)

    @property
    def names(self) -> list[str]:
        """What was measured, in the order of a run."""
        return list(dict.fromkeys(str(line["what"]) for line in self.lines))

    def has(self, *names: str) -> bool:
        """Whether all of these were measured."""
        return set(names) <= set(self.names)

    def values(self, what: str, field: str = "rows_per_second") -> dict[int, float]:
        """Run → value."""
        return {
            line["run"]: float(line[field])
            for line in self.lines
            if line["what"] == what and line.get(field) is not None
        }

    def spread(self, what: str, field: str = "rows_per_second") -> Spread | None:
        """Over all runs; None where it was not measured."""
        values = list(self.values(what, field).values())
        return Spread.of(values) if values else None

    def first(self, what: str) -> dict[str, Any]:
        """The line of the first run."""
        return next((line for line in self.lines if line["what"] == what), {})

    def ratio(self, a: str, b: str, field: str = "rows_per_second") -> Spread | None:
        """One against the other, run by run: they alternate, so that each pair met the same machine."""
        above, below = self.values(a, field), self.values(b, field)
        pairs = [above[run] / below[run] for run in above.keys() & below.keys() if below[run]]
        return Spread.of(pairs) if pairs else None

    def servers_cpu(self, what: str) -> dict[str, float]:
        """CPU microseconds a row that each server used, by the median of the runs."""
        found = [line["servers_cpu_us_per_row"] for line in self.lines if line["what"] == what]
        return {name: statistics.median(each[name] for each in found) for name in (found[0] if found else ())}


def load(folder: Path = FOLDER) -> dict[str, Results]:
    """All that was saved, by benchmark; what was not is empty."""
    found: dict[str, Results] = _Found()
    for path in sorted(folder.glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found[path.stem] = Results(path.stem, lines)
    return found


class _Found(dict[str, Results]):
    def __missing__(self, name: str) -> Results:
        return Results(name, [])
