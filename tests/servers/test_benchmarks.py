"""Benchmarks that rest on what the package has inside run at all: small, on servers of their own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def measured(folder: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and lines of a benchmark; its servers live in the folder."""
    command = [sys.executable, "-m", "benchmarks", *arguments, "--rows", "10000", "--runs", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, done.stderr[-2000:]
    return done.returncode, lines


def test_each_step_has_its_time_both_ways(tmp_path: Path) -> None:
    code, lines = measured(tmp_path, "stages")

    assert code == 0
    found = {line["what"]: line["cpu_us_per_row"] for line in lines if "what" in line}
    for step in ("decode and normalize", "upsert"):  # others may take less than can be told
        assert found[f"{step}: columns"] > 0
        assert found[f"{step}: items"] > 0
        assert f"{step}: limit" in found


def test_two_packages_are_measured_alternately(tmp_path: Path) -> None:
    other = tmp_path / "other"
    for package in ("lovelace_streams", "dataflows"):
        shutil.copytree(ROOT / package, other / package)

    code, lines = measured(tmp_path, "compare", str(other), "--kind", "members, new rows", "--save", str(tmp_path))

    *each, summary = lines
    assert [line["what"] for line in each] == ["members, new rows, before", "members, new rows, here"]
    assert code == (1 if summary["slower"] else 0)  # so few rows say nothing of speed
    assert summary["cpu_ratios"].keys() == {"members, new rows"}
    assert summary["skipped"] == {}
    assert (tmp_path / "compare.jsonl").read_text(encoding="utf-8").count("\n") == len(lines)
