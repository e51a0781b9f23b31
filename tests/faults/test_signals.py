"""SIGTERM at any moment of a start, also as process 1 of a container: exit code 0, and nothing hangs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.faults.harness import ROOT, eventually

WORKER = ["-m", "bytewax.run", "tests.faults.keyvalue"]
SERVICE = ["-m", "lovelace_streams", "api"]
PROCESS_1 = ["unshare", "--pid", "--fork", "--kill-child"]
ENVIRONMENT = {"TOPIC": "t", "KAFKA_BROKERS": "127.0.0.1:1", "METRICS_PORT": "0", "LOG_FORMAT": "json"}
ENVIRONMENT |= {"PROGRESS_API_URL": "", "PROGRESS_API_TOKEN": "t", "POSTGRES_DSN": "postgresql://u@127.0.0.1:1/d"}


def may_make_namespaces() -> bool:
    return subprocess.run([*PROCESS_1, "true"], capture_output=True, check=False).returncode == 0


PREFIXES = {"a child": []} | ({"process 1": PROCESS_1} if may_make_namespaces() else {})
anyhow = pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
AS_PROCESS_1 = """
import os, signal, sys
number, sys.argv, os.getpid = os.getpid(), ["lovelace", "jobs"], lambda: 1
import lovelace_streams
os.kill(number, signal.SIGTERM)
"""


class Program:
    """A program of ours, and where it is in its start."""

    def __init__(self, prefix: list[str], arguments: list[str], folder: Path) -> None:
        self.prefix = prefix
        self.log = folder / "log"
        with self.log.open("wb") as log:
            environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
            self.outer = subprocess.Popen(
                [*prefix, sys.executable, *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log
            )

    def process(self) -> psutil.Process | None:
        """The interpreter itself, once it runs."""
        if not self.prefix:
            return psutil.Process(self.outer.pid)
        return next((child for child in psutil.Process(self.outer.pid).children() if child.exe() == INTERPRETER), None)

    def answers_sigterm(self) -> bool:
        """Whether it has a handler: the earliest moment of which anything can be promised."""
        if self.outer.poll() is not None or (process := self.process()) is None:
            return False
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

    def ends(self, when: Callable[[], bool], number: int = signal.SIGTERM) -> int:
        """Send a signal as soon as a condition holds; answers the exit code."""
        eventually(when, pause=0.001)
        process = self.process()
        assert process is not None
        process.send_signal(number)
        return self.outer.wait(30)


INTERPRETER = os.path.realpath(sys.executable)


@anyhow
@pytest.mark.parametrize("arguments", [WORKER, SERVICE], ids=["worker", "service"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_while_a_program_starts_ends_it_with_0(
    prefix: list[str], arguments: list[str], number: int, tmp_path: Path
) -> None:
    program = Program(prefix, arguments, tmp_path)

    code = program.ends(program.answers_sigterm, number)

    assert (code, program.log.read_text()) == (0, "")


@anyhow
@pytest.mark.parametrize("seconds", [0.3, 0.8, 1.5, 3.0])
def test_a_signal_at_any_later_moment_ends_a_worker_with_0(prefix: list[str], seconds: float, tmp_path: Path) -> None:
    program = Program(prefix, WORKER, tmp_path)
    eventually(program.answers_sigterm, pause=0.001)
    until = time.monotonic() + seconds

    code = program.ends(lambda: time.monotonic() >= until)

    assert code == 0, program.log.read_text()[-2000:]


@anyhow
def test_the_handler_is_there_before_anything_large_is_imported(prefix: list[str], tmp_path: Path) -> None:
    program = Program(prefix, WORKER, tmp_path)
    eventually(program.answers_sigterm, pause=0.001)
    process = program.process()
    assert process is not None

    mapped = {Path(each.path).name for each in process.memory_maps()}
    code = program.ends(lambda: True)

    assert code == 0
    assert not any(name.startswith(("librdkafka", "libpq")) for name in mapped), mapped


def test_a_command_as_process_1_ends_as_any_other_would() -> None:
    told = subprocess.run([sys.executable, "-c", AS_PROCESS_1], cwd=ROOT, capture_output=True, check=False)

    assert (told.returncode, told.stderr) == (128 + signal.SIGTERM, b"")
