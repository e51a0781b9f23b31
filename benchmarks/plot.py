"""Results as pictures: bars with the spread of their runs, and curves, in SVG whose text stays text.

The same results make the same bytes: no date, and ids that depend on the content alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "lovelace_streams",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
}
OURS, LIMIT, PEER = "#3d5afe", "#b0b6c2", "#f0a860"
LINES = (OURS, "#f0a860", "#2f9e77", "#c2477f", "#7b6ad0", "#808080")
MARKS = "osD^vX"


@dataclass(frozen=True)
class Bar:
    """One measurement: its median and the lowest and highest run."""

    label: str
    median: float
    low: float
    high: float
    color: str = OURS


def bars(path: Path, title: str, unit: str, shown: Sequence[Bar]) -> None:
    """Horizontal bars, the first on top."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(7.5, 0.6 + 0.27 * len(shown)), layout="constrained", facecolor="white")
        axes = figure.subplots()
        places = range(len(shown), 0, -1)
        spread = [[bar.median - bar.low for bar in shown], [bar.high - bar.median for bar in shown]]
        axes.barh(
            places,
            [bar.median for bar in shown],
            xerr=spread,
            color=[bar.color for bar in shown],
            error_kw={"ecolor": "#404040", "elinewidth": 1},
            height=0.7,
        )
        axes.set_yticks(places, [bar.label for bar in shown])
        axes.xaxis.set_major_formatter(lambda value, _at: f"{value:,.4g}" if value < 100 else f"{value:,.0f}")
        axes.set_title(title)
        axes.set_xlabel(unit)
        _save(figure, path)


def stacked(path: Path, title: str, unit: str, labels: Sequence[str], shown: Mapping[str, Sequence[float]]) -> None:
    """A horizontal bar for each label, the first on top, of one piece after the other: name → its size in each bar."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(7.5, 1.3 + 0.42 * len(labels)), layout="constrained", facecolor="white")
        axes = figure.subplots()
        places = list(range(len(labels), 0, -1))
        begins = [0.0] * len(labels)
        for at, (name, sizes) in enumerate(shown.items()):
            axes.barh(places, sizes, left=begins, label=name, color=LINES[at % len(LINES)], height=0.62)
            begins = [begin + size for begin, size in zip(begins, sizes, strict=True)]
        for place, total in zip(places, begins, strict=True):
            axes.text(total, place, f" {total:.1f}", va="center")
        axes.set_yticks(places, labels)
        axes.set_xlim(0, 1.08 * max(begins, default=1.0))
        axes.set_title(title)
        axes.set_xlabel(unit)
        figure.legend(loc="outside lower center", ncols=len(shown), frameon=False, fontsize=8)
        _save(figure, path)


def curves(
    path: Path,
    title: str,
    axes_names: tuple[str, str],
    shown: Mapping[str, Sequence[tuple[float, float]]],
    *,
    ticks: Mapping[float, str] | None = None,
    log: bool = False,
) -> None:
    """One line a name; `ticks` names the places on the x axis that matter, `log` is for the y axis."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(7.5, 3.2), layout="constrained", facecolor="white")
        axes = figure.subplots()
        for at, (name, points) in enumerate(shown.items()):
            mark = MARKS[at % len(MARKS)] if len(points) < 20 else ""
            axes.plot(*zip(*points, strict=True), label=name, color=LINES[at % len(LINES)], marker=mark, markersize=4)
        if ticks:
            axes.set_xticks(list(ticks), list(ticks.values()))
        if log:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _at: f"{value:,.0f}")
        axes.set_title(title)
        axes.set_xlabel(axes_names[0])
        axes.set_ylabel(axes_names[1])
        axes.legend(frameon=False, fontsize=8)
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    text = "\n".join(line.rstrip() for line in path.read_text(encoding="utf-8").splitlines())
    path.write_text(text + "\n", encoding="utf-8")
