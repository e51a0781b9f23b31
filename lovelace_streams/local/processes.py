"""A server of the local stack as a process: started under a supervisor, waited for, frozen, stopped by id.

A home folder holds everything: `<home>/run/<name>.json` records the processes, `<home>/logs/<name>.log` their output.
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


class ManagedServer:
    """A server that a supervisor runs. A subclass says what to prepare, what to run, and how to tell that it answers.

    The first start chooses a port if none is given. Later starts keep it, so that clients find the server again after
    a stop. Raises `DeploymentFault` with the path of the log if the server does not start.
    """

    name: str
    variable: ClassVar[str] = ""
    """The setting that holds its address."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    grace: ClassVar[float] = 15.0
    """Seconds between the stop signal and SIGKILL."""
    ordinary_user: ClassVar[bool] = False
    """Whether it refuses to run as root."""
    deadline: ClassVar[float] = 60.0
    """Seconds within which it must answer."""

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
        self._log_start = 0
        """Where the output of this start begins in the log."""

    # What a subclass defines.

    def prepare(self) -> None:
        """Get what it needs: programs, an empty data folder. It may be killed at any point and called again."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """Give the program and its arguments, for `self.port`."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it serves a client. Raises nothing."""
        return listens(self.port)

    @property
    def address(self) -> str:
        """Where it listens. It holds no secret."""
        return f"{HOST}:{self.port}"

    def setting(self) -> str:
        """Give the value of `variable`."""
        return self.address

    # What its owner does with it.

    def start(self) -> Self:
        """Prepare, launch and wait until it answers."""
        self.stop_leftovers()
        self.prepare()
        self.launch()
        self.wait()
        return self

    def stop_leftovers(self) -> None:
        """Stop the processes that a killed run left, those of `prepare` included."""
        for record in (self.record, *self.record.parent.glob(f"{self.name}-*.json")):
            stop_recorded(record)

    def launch(self) -> None:
        """Start it without waiting."""
        self.port = self.port or free_port()
        self.before_launch()
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self._supervisor = self._supervise(self.name, self.command())

    def before_launch(self) -> None:
        """Do what each start needs; the port is known."""

    def wait(self) -> None:
        """Wait until it answers."""
        until = time.monotonic() + self.deadline
        while not self.answers():
            if self._supervisor is not None and self._supervisor.poll() is not None:
                raise DeploymentFault(f"{self.name} ended while starting (log: {self.log}){self._last_log_lines()}")
            if time.monotonic() > until:
                raise DeploymentFault(f"{self.name} does not answer after {self.deadline:.0f} s (log: {self.log})")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it; after its grace, kill it. A frozen server is thawed first. Data and port stay."""
        self.ask_to_stop()
        self.wait_stopped()

    def ask_to_stop(self) -> None:
        """Ask its supervisor to end it, without waiting."""
        if self._supervisor is not None and self._supervisor.poll() is None:
            self._supervisor.terminate()

    def wait_stopped(self) -> None:
        """Wait until it has ended."""
        if self._supervisor is not None:
            self._supervisor.wait(self.grace + 10)
            self._supervisor = None

    def poll(self) -> int | None:
        """Give its exit code, None while it runs."""
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
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
                until = time.monotonic() + self.deadline
                while not _is_stopped(process) and time.monotonic() < until:
                    time.sleep(0.002)

    def thaw(self) -> None:
        """Let it go on."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # a server's children come and go
                process.resume()

    def process(self) -> psutil.Process:
        """Give the server's process. Raises `DeploymentFault` if it does not run."""
        found = read_record(self.record)
        if found is None or "server" not in found:
            raise DeploymentFault(f"{self.name} does not run: start it first")
        return psutil.Process(found["server"])

    def release(self) -> None:
        """Leave it running after this process; its supervisor knows so by the file `keep`."""
        if self._supervisor is not None:
            self._supervisor.returncode = 0  # this process does not wait for it as its child any more
            self._supervisor = None

    def borrow(self) -> bool:
        """Use the server that `lovelace up` left running; False if there is none that answers."""
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
        """Run a preparing program to its end, under a supervisor like a server."""
        done = self._supervise(f"{self.name}-{step}", argv).wait(120)
        if done != 0:
            raise DeploymentFault(f"{self.name}: {step} failed with {done} (log: {self.log}){self._last_log_lines()}")

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
        """Give the environment of the server: ours."""
        return dict(os.environ)

    def _processes(self) -> Iterator[psutil.Process]:
        server = self.process()
        yield server
        for child in server.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                yield child

    def _last_log_lines(self) -> str:
        """Read the last lines of this start. They hold no value of a record: no client has connected yet."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read()[-4096:].decode(errors="replace").splitlines()[-5:]
            return "".join(f"\n  {line}" for line in lines)
        return ""


class Program(ManagedServer):
    """Any other program that ends with its owner: a worker, the API.

    `ready` tells whether it serves. Without `ready`, `start` does not wait.
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
        """Prepare nothing."""

    def command(self) -> list[str]:
        """Give the arguments as they were passed."""
        return self.argv

    def answers(self) -> bool:
        """Ask the `ready` that was passed."""
        return self._ready is None or self._ready()

    def environment(self) -> dict[str, str]:
        """Give the environment that was passed, else ours."""
        return super().environment() if self._environment is None else self._environment


def listens(port: int | None) -> bool:
    """Whether a server accepts connections on this port of the loopback."""
    try:
        socket.create_connection((HOST, port or 0), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """Find a port of `PORTS` without a listener, below those that the kernel gives to outgoing connections.

    A client may get a port of that range while its server is down. The client may even be the one that tries to reach
    the server: a TCP socket can connect to itself.
    """
    for port in random.SystemRandom().sample(PORTS, 200):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise DeploymentFault(f"no port from {PORTS.start} to {PORTS.stop} is free: stop the programs that listen there")


def write_secret(path: Path, text: str) -> None:
    """Write a file that only this user may read, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.rename(path)


def read_record(record: Path) -> dict[str, Any] | None:
    """Read the record of a supervisor that still runs; its command line names the record."""
    found = _parse(record)
    return found if found is not None and _runs(found.get("supervisor"), SUPERVISOR, str(record)) else None


def stop_recorded(record: Path) -> None:
    """End the processes of an earlier run by their recorded ids, if those ids still belong to them."""
    found = _parse(record)
    if found is None:
        return
    if _runs(found.get("supervisor"), SUPERVISOR, str(record)):
        keeper = psutil.Process(found["supervisor"])
        with contextlib.suppress(psutil.NoSuchProcess):
            keeper.terminate()
            _wait_or_kill(keeper, found["grace"] + 5)
    if _runs(found.get("server"), *found["argv"]):  # its supervisor was killed, so that nothing ended it
        supervisor.end(psutil.Process(found["server"]), signal.Signals(found["stop"]), found["grace"])
    record.unlink(missing_ok=True)


def _parse(record: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(record.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _runs(pid: object, *arguments: str) -> bool:
    """Whether the process with this id has these arguments: the system may have given a dead one's id to another."""
    if not isinstance(pid, int):
        return False
    try:
        command = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return all(argument in command for argument in arguments)


def _wait_or_kill(process: psutil.Process, seconds: float) -> None:
    try:
        process.wait(seconds)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(5)


def _is_stopped(process: psutil.Process) -> bool:
    """Whether all its threads are stopped: on a busy machine a thread runs on for a while after the signal."""
    states = set()
    for thread in Path(f"/proc/{process.pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            states.add(thread.read_text().rpartition(")")[2].split()[0])
    if not states:  # not Linux, or the process has ended
        return process.status() in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}
    return states <= {"T", "t", "Z", "X"}
