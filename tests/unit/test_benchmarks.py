"""Benchmarks print what their contract says, and measure what they say."""

import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks import common, kinds, kinds_flow
from benchmarks.__main__ import SUITE, Clock, sizes
from benchmarks.common import by_what, many_messages, ratios, rounds, spread
from benchmarks.kinds import KINDS, bad_ones, chunks, events_of, leaving, mixture
from benchmarks.scale import PRIME, _spread
from benchmarks.stages import staged
from dataflows import discord
from lovelace_streams.testing import mapped

ROOT = Path(__file__).parents[2]


def test_a_line_a_measurement_and_a_summary_last(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "avro", "--rows", "500", "--runs", "2", "--save", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    *lines, last = map(json.loads, done.stdout.splitlines())

    assert {(line["benchmark"], line["run"], line["rows"]) for line in lines} == {("avro", 1, 500), ("avro", 2, 500)}
    assert all(line["rows_per_second"] > 0 and line["cpu_us_per_row"] > 0 for line in lines)
    assert last["summary"]
    assert last["rows_per_second"].keys() == by_what(lines).keys()
    kept = [json.loads(line) for line in (tmp_path / "avro.jsonl").read_text(encoding="utf-8").splitlines()]
    assert kept[:-1] == lines
    assert kept[-1]["machine"]["cores"] >= 1


def test_what_is_not_there_is_not_run() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "speed"], capture_output=True, text=True, cwd=ROOT)

    assert done.returncode == 2
    assert "there is no benchmark speed" in done.stderr


@pytest.mark.parametrize("name", SUITE)
def test_every_benchmark_of_the_suite_is_there(name: str) -> None:
    assert (ROOT / "benchmarks" / f"{name}.py").is_file() or (ROOT / "benchmarks" / name / "__main__.py").is_file()


def test_the_summary_gives_medians_with_their_spread() -> None:
    results = [
        {"what": what, "rows_per_second": speed, "cpu_us_per_row": 1.0}
        for what, speeds in {"a": (10, 30, 20), "b": (5, 5, 10)}.items()
        for speed in speeds
    ]

    assert spread(results)["rows_per_second"]["a"] == {"median": 20, "low": 10, "high": 30}
    assert ratios(results, [("a", "b"), ("a", "c")]) == {"a / b": 4.0}


def test_messages_that_are_made_quickly_are_those_of_other_members() -> None:
    sent = [msgspec.json.decode(each.value)["d"] for each in many_messages(50, lambda n: n * 7)]

    assert [int(each["user"]["id"]) for each in sent] == [10**17 + n * 7 for n in range(1, 51)]
    assert len({each["user"]["username"] for each in sent}) == 50


def test_spread_keys_are_as_many_and_in_no_order() -> None:
    keys = [_spread(n) for n in range(1, 10_001)]

    assert len(set(keys)) == 10_000
    assert max(keys) < PRIME
    assert keys != sorted(keys)


def test_what_no_step_accounts_for_is_around_them() -> None:
    clocks = {
        "steps": {"kafka": [1.0, 0.5], "upsert": [2.0, 0.25]},
        "threads": {"engine": 1.0, "upsert": 0.5, "librdkafka": 0.25, "telling": 0.25},
    }
    found = staged(clocks, 1_000_000)

    assert {name: each["cpu_us_per_row"] for name, each in found.items()} == {
        "read": 0.75,
        "upsert": 0.75,
        "around": 0.5,
    }
    assert found["upsert"]["rows_per_second"] == 500_000


def test_to_decode_and_to_normalize_is_one_step() -> None:
    clocks = {"steps": {"decode": [1.0, 0.5], "normalize": [1.0, 0.25]}, "threads": {"engine": 0.75}}

    assert staged(clocks, 1_000_000)["decode and normalize"]["cpu_us_per_row"] == 0.75


def test_a_run_that_would_end_too_late_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(common.time, "monotonic", lambda: clock[0])
    made = []
    for run in rounds(5, minutes=3.5):
        made.append(run)
        clock[0] += 60

    assert made == [1, 2, 3]
    assert list(rounds(5)) == [1, 2, 3, 4, 5]


def test_minutes_are_shared_out_and_what_is_left_over_goes_to_the_next() -> None:
    clock = [0.0]
    what = ["members", "stages", "clickhouse"]
    shares = Clock(what, 10, now=lambda: clock[0])
    whole = sum(SUITE[name].minutes for name in what)

    assert shares.share() == pytest.approx(10 * SUITE["members"].minutes / whole)
    assert shares.share() == pytest.approx(10 * SUITE["stages"].minutes / (whole - SUITE["members"].minutes))
    clock[0] = 599.0
    assert shares.share() == pytest.approx(1 / 60)


def test_there_is_no_time_when_it_is_over() -> None:
    clock = [0.0]
    shares = Clock(["members", "stages"], 10, now=lambda: clock[0])
    shares.share()
    clock[0] = 601.0

    assert shares.share() == 0


@pytest.mark.parametrize("name", SUITE)
def test_sizes_with_a_time_are_those_of_a_benchmark(name: str) -> None:
    module = "peers.__main__" if name == "peers" else name
    source = (ROOT / "benchmarks" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    given = [word for each in ({}, {"full": True}, {"short": True}, {"quick": True}) for word in sizes(name, **each)]

    for option in {word for word in given if word.startswith("--")} - {"--rows", "--runs", "--kind"}:
        assert f'"{option}"' in source


def rows_of(outgoing: list[discord.Outgoing]) -> tuple[int, int]:
    """How many rows and letters the plain flow makes of messages."""
    found = mapped(discord.EVENTS, *(each.value for each in outgoing))
    return len(found.rows), len(found.letters)


@pytest.mark.parametrize(("size", "one_in"), [(1000, 0), (1000, 100), (10, 1000), (7, 100)])
def test_chunks_hold_as_many_bad_ones_as_the_job_expects(size: int, one_in: int) -> None:
    made = chunks(size, one_in, 2000)
    bad = len(bad_ones(2000, one_in))

    assert bad == (2000 // one_in if one_in else 0)
    assert sum(each.items for each in made) == 2000
    assert max(each.items for each in made) == size
    assert rows_of(made) == (2000 - bad, bad)


def test_a_mixture_holds_all_classes_in_proportion_and_in_no_order() -> None:
    rows = mapped(discord.EVENTS, *(each.value for each in mixture(1000))).rows

    assert {row: sum(type(each) is row for each in rows) for row in discord.SOURCE.rows} == {
        discord.Member: 300,
        discord.MemberJoined: 600,
        discord.MemberLeft: 100,
    }
    assert leaving(1000) == 100
    assert events_of(1000) != sorted(events_of(1000))


def test_the_function_in_normalize_makes_the_rows_of_the_row_class() -> None:
    sent = [each.value for each in kinds.single(12)]

    assert mapped(kinds_flow.by_function(), *sent).rows == mapped(discord.EVENTS, *sent).rows


@pytest.mark.parametrize(
    "module", sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if ">>> " in path.read_text("utf-8"))
)
def test_examples_of_benchmarks_give_what_they_show(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"benchmarks.{module}"))

    assert (result.failed, result.attempted > 0) == (0, True)


def test_kinds_have_names_of_their_own() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
