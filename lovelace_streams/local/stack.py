"""The stack as a whole: several servers in one home folder, started together and stopped together."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec
import psutil

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.local.kafka import Kafka
from lovelace_streams.local.postgres import Postgres
from lovelace_streams.local.processes import (
    HOST,
    ManagedServer,
    free_port,
    listens,
    read_record,
    stop_recorded,
    write_secret,
)
from lovelace_streams.local.progress import ProgressService
from lovelace_streams.local.registry import Registry
from lovelace_streams.local.temporal import Temporal
from lovelace_streams.settings import Settings

HOME = Path(".lovelace")
API_PORT = int(Settings.model_fields["api_port"].default)
SERVERS: dict[str, type[ManagedServer]] = {server.name: server for server in (Kafka, Registry, Postgres, Temporal)}


class LocalStack:
    """Real servers for as long as a `with` block lasts; they also end when this process is killed.

    Servers that `lovelace up` left running in the same home are used and left running. Servers that a killed run left
    are stopped. Raises `DeploymentFault` if another run uses the home, or if a server does not start.
    """

    def __init__(
        self,
        home: Path | str = HOME,
        parts: Iterable[str] = tuple(SERVERS),
        ports: Mapping[str, int] | None = None,
    ) -> None:
        self.home = Path(home).resolve()
        unknown = set(parts) - set(SERVERS)
        if unknown:
            raise DeploymentFault(
                f"the local stack has {', '.join(SERVERS)}, not {', '.join(sorted(unknown))}: choose among those"
            )
        self.kafka = Kafka(self.home, (ports or {}).get("kafka"))
        self.registry = Registry(self.home, (ports or {}).get("registry"))
        self.postgres = Postgres(self.home, (ports or {}).get("postgres"))
        self.temporal = Temporal(self.home, (ports or {}).get("temporal"))
        every: tuple[ManagedServer, ...] = (self.kafka, self.registry, self.postgres, self.temporal)
        self.servers = [server for server in every if server.name in set(parts)]
        self._lock: IO[str] | None = None

    @property
    def env(self) -> dict[str, str]:
        """Its addresses as settings: `KAFKA_BROKERS`, `SCHEMA_REGISTRY_URL`, `POSTGRES_DSN`, `TEMPORAL_ADDRESS`."""
        return {server.variable: server.setting() for server in self.servers}

    def start(self) -> Self:
        """Start the servers that do not run, all at once, and wait until all answer."""
        self._take_home()
        try:
            ours = [server for server in self.servers if not server.borrow()]
            for server in ours:
                server.stop_leftovers()
            for server in ours:
                server.prepare()
            for server in ours:
                server.launch()
            for server in ours:
                server.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def add(self, server: ManagedServer) -> None:
        """Start one more server, if it does not run, and wait until it answers."""
        self.servers.append(server)
        if not server.borrow():
            server.start()

    def stop(self) -> None:
        """Stop the servers that this stack started; data and logs stay."""
        ours = [server for server in self.servers if not server.borrowed]
        for server in ours:
            server.ask_to_stop()
        for server in ours:
            server.wait_stopped()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def release(self) -> None:
        """Leave all of it running until `down`."""
        (self.home / "run" / "up").touch()
        for server in self.servers:
            server.release()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _take_home(self) -> None:
        """Let one run use a home: by a lock that the kernel releases when this process dies."""
        try:
            (self.home / "run").mkdir(parents=True, exist_ok=True)
            lock = (self.home / "run" / "lock").open("a+")
        except OSError as error:
            raise DeploymentFault(f"can't write to {self.home} ({error.strerror}): choose another home") from error
        if not _lock(lock):
            _take_over(lock, self.home)
        lock.truncate(0)
        lock.write(f"{os.getpid()} {os.getppid()}")
        lock.flush()
        self._lock = lock


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _take_over(lock: IO[str], home: Path) -> None:
    """End the run that holds the lock if its starter has ended (a killed `make` leaves its children), else refuse."""
    lock.seek(0)
    pid, starter = map(int, (lock.read().split() or ["0", "0"])[:2])
    with contextlib.suppress(psutil.NoSuchProcess):
        owner = psutil.Process(pid)
        if owner.ppid() == starter:
            lock.close()
            raise DeploymentFault(f"another run (process {pid}) uses {home}: wait for it, stop it, or use another home")
        owner.terminate()
        _, alive = psutil.wait_procs([owner], timeout=10)
        for process in alive:
            process.kill()
            process.wait(5)
    if not _lock(lock):
        lock.close()
        raise DeploymentFault(f"another run uses {home}: wait for it, stop it, or use another home")


class PartStatus(msgspec.Struct, frozen=True):
    """The state of a server: `running`, `not answering` or `stopped`; its address, process and log."""

    part: str
    state: str
    address: str
    pid: int | None
    log: Path


def up(
    home: Path | str = HOME,
    parts: Iterable[str] = tuple(SERVERS),
    ports: Mapping[str, int] | None = None,
    *,
    api: bool = False,
) -> dict[str, str]:
    """Start the stack, write `<home>/env` (mode 0600) and leave it running until `down`; give what the file says.

    The file also holds the address at which the progress service serves, and the token that it and the workers share,
    so that they find each other in any order of start. With `api` the service is started too; else `lovelace api`
    starts it later. A second call starts the servers that are missing and keeps both. If it is killed half-way, no
    server stays.
    """
    stack = LocalStack(home, parts, ports).start()
    try:
        env = {**stack.env, **_service(stack.home / "env")}
        if api:
            stack.add(ProgressService(stack.home, int(env["API_PORT"]), env))
        write_secret(stack.home / "env", "".join(f"{name}={value}\n" for name, value in env.items()))
        stack.release()
    except BaseException:
        stack.stop()
        raise
    return env


def down(home: Path | str = HOME) -> list[str]:
    """Stop every server of this home and remove `<home>/env`; give the names of the stopped ones."""
    home = Path(home).resolve()
    for name in ("run/up", "env"):  # without the first, supervisors end by themselves if we are killed here
        (home / name).unlink(missing_ok=True)
    records = sorted((home / "run").glob("*.json"))
    for record in records:
        stop_recorded(record)
    return [record.stem for record in records]


def status(home: Path | str = HOME) -> list[PartStatus]:
    """Tell the state of each server of this home."""
    home = Path(home).resolve()
    return [_status(server(home)) for server in (*SERVERS.values(), ProgressService)]


def _status(server: ManagedServer) -> PartStatus:
    found = read_record(server.record)
    if found is None or "server" not in found:
        return PartStatus(server.name, "stopped", "", None, server.log)
    server.port = found["port"]
    state = "running" if server.answers() else "not answering"
    return PartStatus(server.name, state, found["address"], found["server"], server.log)


def _service(path: Path) -> dict[str, str]:
    """Choose the progress service's address and token: those of the file, else API_PORT's default or a free port."""
    with contextlib.suppress(FileNotFoundError):
        saved = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
        if saved.keys() >= {"PROGRESS_API_TOKEN", "PROGRESS_API_URL", "API_PORT"}:
            return {name: saved[name] for name in ("PROGRESS_API_TOKEN", "PROGRESS_API_URL", "API_PORT")}
    port = free_port() if listens(API_PORT) else API_PORT
    token = secrets.token_urlsafe(24)
    return {"PROGRESS_API_TOKEN": token, "PROGRESS_API_URL": f"http://{HOST}:{port}", "API_PORT": str(port)}
