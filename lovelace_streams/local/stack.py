"""The stack as a whole: several parts in one home folder, started together and ended together."""

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
from lovelace_streams.local.processes import HOST, Part, free_port, listens, read_record, stop_recorded, write_secret
from lovelace_streams.local.registry import Registry
from lovelace_streams.local.temporal import Temporal
from lovelace_streams.settings import Settings

HOME = Path(".lovelace")
API_PORT = int(Settings.model_fields["api_port"].default)
PARTS: dict[str, type[Part]] = {part.name: part for part in (Kafka, Registry, Postgres, Temporal)}


class LocalStack:
    """Real servers for as long as a `with` block lasts; they also end when this process is killed.

    What `lovelace up` left running in the same home is used and left alone; what a killed run left is stopped. Raises
    `DeploymentFault` where another run uses the home or a server does not start.
    """

    def __init__(
        self,
        home: Path | str = HOME,
        parts: Iterable[str] = tuple(PARTS),
        ports: Mapping[str, int] | None = None,
    ) -> None:
        self.home = Path(home).resolve()
        unknown = set(parts) - set(PARTS)
        if unknown:
            raise DeploymentFault(f"the local stack has {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
        self.kafka = Kafka(self.home, (ports or {}).get("kafka"))
        self.registry = Registry(self.home, (ports or {}).get("registry"))
        self.postgres = Postgres(self.home, (ports or {}).get("postgres"))
        self.temporal = Temporal(self.home, (ports or {}).get("temporal"))
        every: tuple[Part, ...] = (self.kafka, self.registry, self.postgres, self.temporal)
        self.parts = [part for part in every if part.name in set(parts)]
        self._lock: IO[str] | None = None

    @property
    def env(self) -> dict[str, str]:
        """The settings that lead to it: `KAFKA_BROKERS`, `SCHEMA_REGISTRY_URL`, `POSTGRES_DSN`, `TEMPORAL_ADDRESS`."""
        return {part.variable: part.setting() for part in self.parts}

    def start(self) -> Self:
        """Start what does not run, all at once, and wait until all answer."""
        self._take_home()
        try:
            ours = [part for part in self.parts if not part.borrow()]
            for part in ours:
                part.sweep()
            for part in ours:
                part.prepare()
            for part in ours:
                part.launch()
            for part in ours:
                part.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End what was started here; data and logs stay."""
        ours = [part for part in self.parts if not part.borrowed]
        for part in ours:
            part.ask_to_stop()
        for part in ours:
            part.wait_stopped()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def release(self) -> None:
        """Leave all of it running until `down`."""
        (self.home / "run" / "up").touch()
        for part in self.parts:
            part.release()
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
        """One run a home: a lock that the kernel lets go of when we die."""
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
    """End the run that holds the lock if its starter is gone (a killed `make` leaves what it ran), else refuse."""
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
    """How a part does: `running`, `not answering` or `stopped`, where it is reached, and what its log is."""

    part: str
    state: str
    address: str
    pid: int | None
    log: Path


def up(
    home: Path | str = HOME, parts: Iterable[str] = tuple(PARTS), ports: Mapping[str, int] | None = None
) -> dict[str, str]:
    """Start the stack, write `<home>/env` (mode 0600) and leave it running until `down`; what the file says.

    The file also says where `lovelace api` serves once it is started, and the token that it and the workers share, so
    that they find each other in whatever order they come. Done again it starts what is missing and keeps both. Killed
    half-way it leaves nothing running.
    """
    stack = LocalStack(home, parts, ports).start()
    try:
        env = {**stack.env, **_service(stack.home / "env")}
        write_secret(stack.home / "env", "".join(f"{name}={value}\n" for name, value in env.items()))
        stack.release()
    except BaseException:
        stack.stop()
        raise
    return env


def down(home: Path | str = HOME) -> list[str]:
    """Stop everything that runs in this home and remove `<home>/env`; the names of what was stopped."""
    home = Path(home).resolve()
    for name in ("run/up", "env"):  # without the first, supervisors end by themselves, should we be killed here
        (home / name).unlink(missing_ok=True)
    records = sorted((home / "run").glob("*.json"))
    for record in records:
        stop_recorded(record)
    return [record.stem for record in records]


def status(home: Path | str = HOME) -> list[PartStatus]:
    """What runs in this home, one entry a part."""
    home = Path(home).resolve()
    return [_status(part(home)) for part in PARTS.values()]


def _status(part: Part) -> PartStatus:
    found = read_record(part.record)
    if found is None or "server" not in found:
        return PartStatus(part.name, "stopped", "", None, part.log)
    part.port = found["port"]
    state = "running" if part.answers() else "not answering"
    return PartStatus(part.name, state, found["address"], found["server"], part.log)


def _service(path: Path) -> dict[str, str]:
    """Where the progress service will be, and its token: as the file says, else API_PORT's default or a free port."""
    with contextlib.suppress(FileNotFoundError):
        said = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
        if said.keys() >= {"PROGRESS_API_TOKEN", "PROGRESS_API_URL", "API_PORT"}:
            return {name: said[name] for name in ("PROGRESS_API_TOKEN", "PROGRESS_API_URL", "API_PORT")}
    port = free_port() if listens(API_PORT) else API_PORT
    token = secrets.token_urlsafe(24)
    return {"PROGRESS_API_TOKEN": token, "PROGRESS_API_URL": f"http://{HOST}:{port}", "API_PORT": str(port)}
