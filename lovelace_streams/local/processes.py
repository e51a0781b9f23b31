"""A part of the local stack as a process: started under a supervisor, waited for, frozen, stopped by id.

A home folder holds everything: `<home>/run/<part>.json` records who runs, `<home>/logs/<part>.log` what it said.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.local import supervisor

HOST = "127.0.0.1"
SUPERVISOR = str(Path(supervisor.__file__).resolve())
PORTS = range(20_000, 32_000)
"""What `free_port` chooses from: below the ports that the kernel gives to outgoing connections."""


class Part:
    """One server of the stack: what to prepare, what to run, and how to tell that it answers.

    `port` is chosen at the first start where none is given, and kept from then on, so that a server which was stopped
    comes back where its clients look for it. Raises `DeploymentFault` naming the log where a server does not start.
    """

    name: str
    variable: ClassVar[str] = ""
    """The setting that takes its address."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    grace: ClassVar[float] = 15.0
    """Seconds that it gets to end by itself."""
    ordinary_user: ClassVar[bool] = False
    """Whether it refuses to run as root."""
    deadline: ClassVar[float] = 60.0
    """Seconds until it has to answer."""

    def __init__(self, home: Path, port: int | None = None) -> None:
        self.home = home.resolve()
        self.port = port
        self.record = self.home / "run" / f"{self.name}.json"
        self.log = self.home / "logs" / f"{self.name}.log"
        self.data = self.home / self.name
        self.folder = self.home
        """Its current folder."""
        self.borrowed = False
        """Whether it belongs to `lovelace up`, and is left running."""
        self._supervisor: subprocess.Popen[str] | None = None
        self._said = 0

    # What a part says of itself.

    def prepare(self) -> None:
        """Get what it needs: programs, an empty data folder. May be killed at any point and done again."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """The program and its arguments, on `self.port`."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it serves a client; raises nothing."""
        return listens(self.port)

    @property
    def address(self) -> str:
        """Where it listens; no secret."""
        return f"{HOST}:{self.port}"

    def setting(self) -> str:
        """What `variable` is set to."""
        return self.address

    # What is done with it.

    def start(self) -> Self:
        """Prepare, launch and wait until it answers."""
        self.sweep()
        self.prepare()
        self.launch()
        self.wait()
        return self

    def sweep(self) -> None:
        """Stop what a killed run left of it, while it was being prepared too."""
        for record in (self.record, *self.record.parent.glob(f"{self.name}-*.json")):
            stop_recorded(record)

    def launch(self) -> None:
        """Start it without waiting."""
        self.port = self.port or free_port()
        self.before_launch()
        self._said = self.log.stat().st_size if self.log.exists() else 0
        self._supervisor = self._supervise(self.name, self.command())

    def before_launch(self) -> None:
        """What has to be in place each time, with the port known."""

    def wait(self) -> None:
        """Wait until it answers."""
        until = time.monotonic() + self.deadline
        while not self.answers():
            if self._supervisor is not None and self._supervisor.poll() is not None:
                raise DeploymentFault(f"{self.name} ended while starting (log: {self.log}){self._last_words()}")
            if time.monotonic() > until:
                raise DeploymentFault(f"{self.name} does not answer after {self.deadline:.0f} s (log: {self.log})")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it, killing it after its grace; a frozen one is thawed. Data and port stay."""
        self.ask_to_stop()
        self.wait_stopped()

    def ask_to_stop(self) -> None:
        """Begin to end it."""
        if self._supervisor is not None and self._supervisor.poll() is None:
            self._supervisor.terminate()

    def wait_stopped(self) -> None:
        """Wait until it has ended."""
        if self._supervisor is not None:
            self._supervisor.wait(self.grace + 10)
            self._supervisor = None

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return None if self._supervisor is None else self._supervisor.poll()

    def restart(self) -> None:
        """Stop and start it on the same port and data."""
        self.stop()
        self.launch()
        self.wait()

    def kill(self) -> None:
        """End it as a crash does (SIGKILL)."""
        self.process().kill()
        self.wait_stopped()

    def freeze(self) -> None:
        """Stop all its processes without ending them: connections stay open and nothing answers."""
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
                until = time.monotonic() + self.deadline
                while not _stands_still(process) and time.monotonic() < until:
                    time.sleep(0.002)

    def thaw(self) -> None:
        """Let it go on."""
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):  # a server's children come and go
                process.resume()

    def process(self) -> psutil.Process:
        """The server itself; raises `DeploymentFault` where it does not run."""
        found = read_record(self.record)
        if found is None or "server" not in found:
            raise DeploymentFault(f"{self.name} does not run")
        return psutil.Process(found["server"])

    def release(self) -> None:
        """Leave it running after this process (its supervisor has been told so by the `keep` file)."""
        if self._supervisor is not None:
            self._supervisor.returncode = 0  # it is nobody's child to wait for any more
            self._supervisor = None

    def borrow(self) -> bool:
        """Use the server that `lovelace up` left running; False where there is none that answers."""
        found = read_record(self.record)
        if found is None or not self.keep.exists() or self.port not in (None, found["port"]):
            return False
        self.port = found["port"]
        self.borrowed = self.answers()
        return self.borrowed

    @property
    def keep(self) -> Path:
        """While this file exists, servers outlive their owner."""
        return self.home / "run" / "up"

    def run(self, step: str, argv: list[str]) -> None:
        """Run a program that prepares something, to its end, under the same rules as a server."""
        done = self._supervise(f"{self.name}-{step}", argv).wait(120)
        if done != 0:
            raise DeploymentFault(f"{self.name}: {step} failed with {done} (log: {self.log}){self._last_words()}")

    def _supervise(self, name: str, argv: list[str]) -> "subprocess.Popen[str]":
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.record.parent.mkdir(parents=True, exist_ok=True)
        spec = {
            "part": self.name,
            "argv": argv,
            "cwd": str(self.folder),
            "port": self.port,
            "address": self.address,
            "log": str(self.log),
            "owner": os.getpid(),
            "keep": str(self.keep),
            "ordinary_user": self.ordinary_user,
            "stop": int(self.stop_signal),
            "grace": self.grace,
        }
        with self.log.open("ab") as log:
            started = subprocess.Popen(
                [sys.executable, "-I", SUPERVISOR, str(self.record.with_name(f"{name}.json"))],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self.environment(),
                text=True,
            )
        assert started.stdin is not None
        with contextlib.suppress(BrokenPipeError), started.stdin as stdin:
            stdin.write(json.dumps(spec))
        return started

    def environment(self) -> dict[str, str]:
        """What the server sees of ours."""
        return dict(os.environ)

    def _family(self) -> Iterator[psutil.Process]:
        server = self.process()
        yield server
        for child in server.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                yield child

    def _last_words(self) -> str:
        """The last lines of this start; no record has been near the server yet."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(self._said)
            lines = log.read()[-4096:].decode(errors="replace").splitlines()[-5:]
            return "".join(f"\n  {line}" for line in lines)
        return ""


class Program(Part):
    """Any other program that shall live as long as its owner and be stopped with it: a worker, the API.

    `ready` says when it serves; without one it is not waited for.
    """

    def __init__(
        self,
        home: Path,
        name: str,
        argv: list[str],
        *,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
        ready: Callable[[], bool] | None = None,
    ) -> None:
        self.name = name
        super().__init__(home)
        self.argv = argv
        self.folder = folder or Path.cwd()
        self._environment = environment
        self._ready = ready

    def prepare(self) -> None:
        """Nothing."""

    def command(self) -> list[str]:
        """As given."""
        return self.argv

    def answers(self) -> bool:
        """As given."""
        return self._ready is None or self._ready()

    def environment(self) -> dict[str, str]:
        """As given, else ours."""
        return super().environment() if self._environment is None else self._environment


def listens(port: int | None) -> bool:
    """Whether somebody accepts connections on this port of the loopback."""
    try:
        socket.create_connection((HOST, port or 0), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """A port of `PORTS` that nobody listens on.

    A port that the kernel gives to outgoing connections may be taken by a client while its server is down, even by the
    one that tries to reach it: a TCP socket can connect to itself.
    """
    for port in random.SystemRandom().sample(PORTS, 200):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise DeploymentFault(f"no free port between {PORTS.start} and {PORTS.stop}")


def write_secret(path: Path, text: str) -> None:
    """Write a file that only we may read, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.rename(path)


def read_record(record: Path) -> dict[str, Any] | None:
    """What a supervisor wrote, if that very supervisor still lives: its command line names the record."""
    found = _parse(record)
    return found if found is not None and _is(found.get("supervisor"), SUPERVISOR, str(record)) else None


def stop_recorded(record: Path) -> None:
    """End what an earlier run left, by its recorded ids and only after a look at who has them now."""
    found = _parse(record)
    if found is None:
        return
    if _is(found.get("supervisor"), SUPERVISOR, str(record)):
        keeper = psutil.Process(found["supervisor"])
        with contextlib.suppress(psutil.NoSuchProcess):
            keeper.terminate()
            _gone(keeper, found["grace"] + 5)
    if _is(found.get("server"), *found["argv"]):  # its supervisor was killed, and it was not told
        supervisor.end(psutil.Process(found["server"]), signal.Signals(found["stop"]), found["grace"])
    record.unlink(missing_ok=True)


def _parse(record: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(record.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _is(pid: object, *arguments: str) -> bool:
    """Whether the process with this id has these arguments; a dead one's id may have gone to another."""
    if not isinstance(pid, int):
        return False
    try:
        command = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return all(argument in command for argument in arguments)


def _gone(process: psutil.Process, seconds: float) -> None:
    try:
        process.wait(seconds)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(5)


def _stands_still(process: psutil.Process) -> bool:
    """Whether all its threads are stopped: on a busy machine one goes on for a while after the signal."""
    states = set()
    for thread in Path(f"/proc/{process.pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            states.add(thread.read_text().rpartition(")")[2].split()[0])
    if not states:  # no such system, or it is gone
        return process.status() in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}
    return states <= {"T", "t", "Z", "X"}
