"""docs/quickstart.md, followed to the letter: its commands in a folder of its own, on servers that it starts itself."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?:^<!-- test: (.*?) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE, UNTIL_THE_END, STOPPED = "the file ", "runs until the end", "the worker is stopped first"
SECONDS = 120
"""For one command, whose output may have to wait for the worker."""


class Block(NamedTuple):
    """A block of the page, with what the page tells this test about it."""

    note: str
    language: str
    text: str


def blocks() -> list[Block]:
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    return [Block(note or "", language, text) for note, language, text in BLOCK.findall(page)]


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """A folder that looks like a clone after `make install`; whatever it started is stopped."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    yield tmp_path
    bash(".venv/bin/lovelace down", tmp_path)


def environment() -> dict[str, str]:
    """Nothing of the tests' own servers; the package of this tree."""
    ours = {"KAFKA_BROKERS", "POSTGRES_DSN", "TEMPORAL_ADDRESS"}
    return {name: value for name, value in os.environ.items() if name not in ours} | {
        "PYTHONPATH": str(ROOT),
        "METRICS_PORT": "0",
    }


def bash(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def words(output: str) -> list[list[str]]:
    """Without what differs between a terminal and a pipe, and without an order that nobody promises."""
    return sorted(line.split() for line in output.splitlines() if line.strip())


def until_it_shows(command: str, wanted: str, folder: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while words((done := bash(command, folder)).stdout) != words(wanted):
        assert time.monotonic() < deadline, f"{command}\nshows:\n{done.stdout}{done.stderr}\ninstead of:\n{wanted}"


@contextmanager
def worker(command: str, folder: Path) -> Iterator[None]:
    """A command that runs until it is asked to end, and then drains."""
    process = subprocess.Popen(command.split(), cwd=folder, env=environment())
    try:
        yield
    finally:
        process.terminate()
        code = process.wait(60)
    assert code == 0, "a worker that is asked to end drains"


@pytest.mark.slow
@pytest.mark.xdist_group("port_8000")  # the service listens where `lovelace up` says: on API_PORT's default
@pytest.mark.timeout(900)  # a first start downloads what the servers are
def test_the_page_is_followed_to_the_letter(clone: Path) -> None:
    steps = blocks()
    assert sum(block.language == "sh" for block in steps) >= 10
    with ExitStack() as workers:
        for at, block in enumerate(steps):
            after = steps[at + 1] if at + 1 < len(steps) else Block("", "", "")
            if block.note.startswith(FILE):
                (clone / block.note.removeprefix(FILE)).write_text(block.text)
            elif block.language != "sh" or block.text.startswith("make install"):
                continue
            elif block.note == UNTIL_THE_END:
                workers.enter_context(worker(block.text, clone))
            elif after.language == "text":
                until_it_shows(block.text, after.text, clone)
            else:
                if block.note == STOPPED:
                    workers.close()
                done = bash(block.text, clone)
                assert done.returncode == 0, f"{block.text}\n{done.stdout}{done.stderr}"
