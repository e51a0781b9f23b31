"""What is drawn of the results for docs/performance.md, and how."""

from collections.abc import Callable
from pathlib import Path

from benchmarks import plot
from benchmarks.goals import KINDS, OURS, Measured
from benchmarks.measured import Results, Spread
from benchmarks.plot import Bar
from benchmarks.tables import PERCENTILES, shares_of

Draw = Callable[[Path], None]


def made(measured: Measured) -> dict[str, Draw]:
    """File name → what draws it; only of what was measured."""
    drawn: dict[str, Draw] = {}
    for name, draw in DRAWINGS.items():
        if found := measured[name]:
            drawn |= {f"performance-{picture}.svg": how for picture, how in draw(found).items()}
    return drawn


def _members(found: Results) -> dict[str, Draw]:
    shown = [_bar(found, name, plot.OURS if name.startswith("job") else plot.LIMIT) for name in found.names]
    return {"members": lambda path: plot.bars(path, "The job, and the database alone", "rows/s", shown)}


def _stages(found: Results) -> dict[str, Draw]:
    steps = [*(name.removesuffix(": limit") for name in found.names if name.endswith(": limit")), "around"]
    columns = {"item by item": "items", "as columns": "columns", "the steps' limits": "limit"}
    shown = {
        step: [
            spread.median if (spread := found.spread(f"{step}: {way}", "cpu_us_per_row")) else 0.0
            for way in columns.values()
        ]
        for step in steps
    }
    title = "One worker's CPU a row, by step"
    return {"stages": lambda path: plot.stacked(path, title, "CPU µs a row", list(columns), shown)}


def _peers(found: Results) -> dict[str, Draw]:
    shown = [
        _bar(found, name, plot.OURS if name.startswith(OURS) else plot.PEER)
        for name in found.names
        if found.spread(name)
    ]
    return {"peers": lambda path: plot.bars(path, "The same topic into the same table", "rows/s", shown)}


def _isolation(found: Results) -> dict[str, Draw]:
    shares = shares_of(found)
    kinds = dict.fromkeys(name.rpartition(", ")[0] for name in found.names if ", batch 100" not in name)
    shown = {kind: _points(found, [f"{kind}, {share}" for share in shares]) for kind in kinds}
    ticks = {float(at): share for at, share in enumerate(shares)}
    return {
        "isolation": lambda path: plot.curves(
            path, "By the share of bad messages", ("bad", "messages/s"), shown, ticks=ticks, log=True
        )
    }


def _latency(found: Results) -> dict[str, Draw]:
    shown = {
        name: [
            (float(at), spread.median)
            for at, field in enumerate(PERCENTILES)
            if (spread := found.spread(name, field)) is not None
        ]
        for name in found.names
    }
    ticks = {float(at): name for at, name in enumerate(PERCENTILES.values())}
    return {
        "latency": lambda path: plot.curves(
            path, "From timestamp to commit", ("percentile", "milliseconds"), shown, ticks=ticks, log=True
        )
    }


def _scale(found: Results) -> dict[str, Draw]:
    drawn: dict[str, Draw] = {}
    if workers := [_bar(found, name, plot.OURS) for name in found.names if name.endswith(("worker", "workers"))]:
        drawn["workers"] = lambda path: plot.bars(path, "Workers on one topic", "rows/s", workers)
    if sizes := [name.removeprefix("job, ") for name in found.names if name.startswith("job, ")]:
        shown = {kind: _points(found, [f"{kind}, {size}" for size in sizes]) for kind in KINDS}
        ticks = {float(at): size for at, size in enumerate(sizes)}
        title = "New rows into a table that holds some"
        drawn["table"] = lambda path: plot.curves(path, title, ("", "rows/s"), shown, ticks=ticks)
    if large := next((name for name in found.names if name.startswith("job of")), None):
        memory = {"resident memory": [(items / 1e6, mb) for _, mb, items in found.first(large)["samples"]]}
        axes = ("million items done", "MB")
        drawn["memory"] = lambda path: plot.curves(path, f"One worker in a {large}", axes, memory)
    return drawn


DRAWINGS: dict[str, Callable[[Results], dict[str, Draw]]] = {
    "members": _members,
    "stages": _stages,
    "peers": _peers,
    "isolation": _isolation,
    "latency": _latency,
    "scale": _scale,
}


def _bar(found: Results, name: str, color: str, field: str = "rows_per_second") -> Bar:
    spread = found.spread(name, field) or Spread(0, 0, 0)
    return Bar(name, spread.median, spread.low, spread.high, color)


def _points(found: Results, names: list[str]) -> list[tuple[float, float]]:
    """The medians of what was measured of these, by their place."""
    return [(float(at), spread.median) for at, name in enumerate(names) if (spread := found.spread(name)) is not None]
