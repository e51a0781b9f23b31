"""Benchmarks print what their contract says, and measure what they say."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.__main__ import SUITE
from benchmarks.common import by_what, many_messages, ratios, spread
from benchmarks.scale import PRIME, _spread
from benchmarks.stages import staged

ROOT = Path(__file__).parents[2]


def test_a_line_a_measurement_and_a_summary_last(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "avro", "--rows", "100", "--runs", "2", "--save", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    *lines, last = map(json.loads, done.stdout.splitlines())

    assert {(line["benchmark"], line["run"], line["rows"]) for line in lines} == {("avro", 1, 100), ("avro", 2, 100)}
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
