"""The pages on performance say what was measured, and nothing else."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import members, pictures
from benchmarks.__main__ import save, sizes
from benchmarks.goals import GOALS, Goal, before
from benchmarks.kinds import KINDS, chosen
from benchmarks.measured import Results, Spread, load
from benchmarks.page import DOCS, MADE, PAGES, PARTS, rendered

PICTURE = re.compile(r"images/(performance-[\w-]+\.svg)")


def line(what: str, run: int = 1, **more: Any) -> dict[str, Any]:
    servers = {"kafka": 0.5, "postgres": 3.0, "api": 0.1}
    figures = {"rows": 1000, "rows_per_second": 1000, "cpu_us_per_row": 4.0, "wal_bytes_per_row": 300}
    return {"what": what, "run": run, **figures, "servers_cpu_us_per_row": servers} | more


def saved(folder: Path, name: str, lines: list[dict[str, Any]]) -> None:
    machine = {"cores": 2, "cpu": "a", "memory_gb": 24, "system": "Linux"}
    summary = {"benchmark": name, "summary": True, "machine": machine, "versions": {"python": "3"}, "commit": "c0ffee"}
    save(folder / f"{name}.jsonl", [*lines, summary])


STAGES = [
    *(line(f"{name}: {way}", cpu_us_per_row=10) for name in ("whole job", "around") for way in ("columns", "items")),
    *(line(f"{step}: {side}") for step in ("read", "batch") for side in ("columns", "items", "limit")),
]


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """Something of each benchmark that a page or a picture shows."""
    saved(tmp_path, "members", [line(name) for name in dict.fromkeys(name for pair in members.PAIRS for name in pair)])
    saved(tmp_path, "stages", STAGES)
    saved(tmp_path, "kinds", [line("members, new rows"), line("chunks of 10")])
    saved(tmp_path, "compare", [line("chunks of 10, before"), line("chunks of 10, here")])
    saved(tmp_path, "ledger", [line("1 job in order, ranges", postgres_cpu_us_per_row=1.0, request_kb=2.0)])
    saved(tmp_path, "peers", [line(f"{who}, best, new rows") for who in ("lovelace_streams", "bento")])
    saved(tmp_path, "isolation", [line(f"lovelace_streams, best, check, {share} %") for share in (0, 1, 10)])
    percentiles = {"p50_ms": 1.0, "p99_ms": 2.0, "p999_ms": 3.0}
    paced = [line(f"{who}, linger 5 ms, 1000 records/s", **percentiles) for who in ("lovelace_streams", "bento")]
    saved(tmp_path, "latency", paced)
    sizes = [line(f"{kind}, {size} rows before") for kind in ("job", "database, copy") for size in ("0", "1,000")]
    large = line("job of 1,000 items", peak_mb=100.0, grown_mb=-1.0, samples=[[0.5, 90.0, 10], [1.0, 100.0, 900]])
    workers = [line("1 worker"), line("2 workers", rows_per_second=1800)]
    saved(tmp_path, "scale", [*workers, *sizes, line("database, merge, 0 rows before"), large])
    return tmp_path


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_that_of_the_results(name: str) -> None:
    page = (DOCS / name).read_text(encoding="utf-8")

    assert rendered(page, load()) == page, "make it anew: .venv/bin/python -m benchmarks.page"


def test_each_part_is_on_one_page() -> None:
    marked = [match[2] for name in PAGES for match in MADE.finditer((DOCS / name).read_text(encoding="utf-8"))]

    assert sorted(marked) == sorted(PARTS)


def test_the_pictures_that_pages_show_are_those_that_are_drawn(everything: Path, tmp_path: Path) -> None:
    measured = load(everything)
    pages = "".join(rendered((DOCS / name).read_text(encoding="utf-8"), measured) for name in PAGES)
    drawn = pictures.made(measured)

    assert set(PICTURE.findall(pages)) == set(drawn)
    for name, draw in drawn.items():
        draw(tmp_path / name)
        assert ET.parse(tmp_path / name).getroot().tag.endswith("svg")


def test_pictures_are_there_for_the_results_that_are(tmp_path: Path) -> None:
    assert {path.name for path in (DOCS / "images").glob("performance-*.svg")} == set(pictures.made(load()))


def test_the_same_results_are_drawn_the_same(everything: Path, tmp_path: Path) -> None:
    draw = pictures.made(load(everything))["performance-members.svg"]
    draw(tmp_path / "one.svg")
    draw(tmp_path / "two.svg")

    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_a_ratio_is_that_of_each_run_by_itself() -> None:
    speeds = {"ours": (100, 300), "theirs": (100, 100)}
    lines = [
        line(who, run, rows_per_second=speed) for who, found in speeds.items() for run, speed in enumerate(found, 1)
    ]

    assert Results("x", lines).ratio("ours", "theirs") == Spread(2.0, 1.0, 3.0)
    assert Results("x", lines).ratio("ours", "nobody") is None


def test_a_goal_is_missed_on_its_own_side() -> None:
    found = Spread(0.5, 0.4, 0.6)

    assert Goal("", 0.5, lambda _: found).reached(found)
    assert not Goal("", 0.6, lambda _: found).reached(found)
    assert not Goal("", 0.4, lambda _: found, at_most=True).reached(found)


def test_goals_are_shown_with_what_was_measured_of_them(everything: Path) -> None:
    text = PARTS["goals"](load(everything))
    [workers] = [row for row in text.splitlines() if row.startswith("| two workers")]

    assert "**1.8**" in workers
    assert text.count("not measured yet") < len(GOALS)
    assert "| new rows, against Bento, each at its best | ≥ 3.3 | **1** | 1 to 1 | no |" in text
    assert workers.endswith("| yes |")


def test_a_whole_is_compared_with_the_sum_of_its_parts_of_the_same_run(everything: Path) -> None:
    [goal] = [goal for goal in GOALS if "sum of its steps' limits" in goal.what]

    assert goal.measure(load(everything)) == Spread(10 / 8, 10 / 8, 10 / 8)
    assert goal.measure(load(everything / "nothing")) is None


def test_of_several_kinds_of_job_the_one_that_gained_least_counts() -> None:
    lines = [
        line(f"{kind}, {which}", cpu_us_per_row=cpu)
        for kind, here in (("a", 2.0), ("b", 3.0))
        for which, cpu in (("before", 4.0), ("here", here))
    ]

    assert before("a", "b")({"compare": Results("compare", lines)}) == Spread(0.75, 0.75, 0.75)


def test_every_goal_is_measured_by_the_benchmarks_that_run_in_a_limited_time() -> None:
    kinds = {kind.name for kind in chosen(sizes("compare", short=True)[2:4], KINDS)}

    assert {
        f"chunks of {size}{bad}"
        for size in ("1,000", "10")
        for bad in ("", ", one bad in a thousand", ", one bad in a hundred")
    } <= kinds


def test_what_is_saved_takes_the_place_of_what_was(tmp_path: Path) -> None:
    for speed in (1, 2):
        saved(tmp_path, "members", [line("job", rows_per_second=speed)])

    assert load(tmp_path)["members"].values("job") == {1: 2.0}
    assert json.loads((tmp_path / "members.jsonl").read_text(encoding="utf-8").splitlines()[0])["what"] == "job"
