"""Who takes part in the contest: how each is built or installed, and how it is started.

Each at batch 100 and at its best: the setting that was quickest here of those its documentation names; what they are
stands in README.md beside this file.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.common import SETTINGS as OUR_SETTINGS
from benchmarks.common import say
from benchmarks.peers.records import avro, flat, nested
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.local import java
from lovelace_streams.local.processes import free_port

HERE = Path(__file__).parent
SETTINGS = ("batch 100", "best")
"""Everybody takes part twice."""
CONNECT = "+".join(
    [
        "io.debezium:debezium-connector-jdbc:3.5.0.Final",
        *(f"org.apache.kafka:connect-{part}:4.1.1" for part in ("runtime", "json", "transforms")),
        "org.slf4j:slf4j-simple:1.7.36",
    ]
)
JVM = (
    "-Xms256M", "-Xmx2G", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true",
)  # fmt: skip
"""What Kafka's own scripts give a Connect worker."""

ARRAYS = "create cast (text as bigint[]) with inout as assignment"
"""Debezium's `unnest` gives text for an array, which Postgres takes for one only by such a cast."""


@dataclass(frozen=True)
class Contender:
    """Somebody who does the job, with one setting."""

    who: str
    setting: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    form: Callable[[dict[str, Any]], bytes] = nested
    """The messages that it reads."""
    setup: str = ""
    """What it asks of the database beyond the table."""
    makes_dead_letters: bool = False
    """Whether it makes the topic of its dead letters itself."""

    @property
    def name(self) -> str:
        """What it is called in the results."""
        return f"{self.who}, {self.setting}" + (", Avro" if self.form is avro else "")

    def variables(self, topic: str, brokers: str, dsn: str, *, bad: bool) -> dict[str, str]:
        """The environment of its process; all are told the same, each in its own words."""
        where = urlsplit(dsn)
        return {
            **os.environ,
            "TOPIC": topic,
            "BENCH_TOPIC": topic,
            "CONSUMER_GROUP_ID": topic,
            "DEAD_LETTERS": f"{topic}.dlq",
            "KAFKA_BROKERS": brokers,
            "POSTGRES_DSN": dsn,
            "POSTGRES_URL": f"{dsn}?sslmode=disable",
            "JDBC_URL": f"jdbc:postgresql://{where.hostname}:{where.port}{where.path}",
            "JDBC_USER": where.username or "",
            "JDBC_PASSWORD": where.password or "",
            "TOLERANCE": "all" if bad else "none",
            "REST_PORT": str(free_port()),
            "OFFSETS": os.devnull,
            **self.environment,
        }


class AbsentError(Exception):
    """Somebody can't be built or installed here."""


def contenders(home: Path, *, bad: bool = False, only: str | None = None) -> list[Contender]:
    """All that can take part here; of the others it is said why not."""
    makers: dict[str, Callable[[], list[Contender]]] = {
        "lovelace_streams": ours,
        "bento": lambda: bento(home, bad=bad),
        "kafka connect": kafka_connect,
        "quix streams": lambda: quix(home),
        "bytewax": plain_bytewax,
    }
    found = []
    for who, make in makers.items():
        if not any(is_named(only, f"{who}, {setting}") for setting in SETTINGS):
            continue  # not even built
        try:
            found += [each for each in make() if is_named(only, each.name)]
        except AbsentError as reason:
            say(f"{who} is left out: {reason}")
    if not found:
        sys.exit("nobody is left to take part")
    return found


def is_named(only: str | None, name: str) -> bool:
    """Whether a contender is asked for: by one of several texts with commas between, or by none at all.

    >>> is_named("bento,kafka", "kafka connect, best"), is_named(None, "quix streams, best")
    (True, True)
    """
    return any(text in name for text in (only or "").split(","))


def ours() -> list[Contender]:
    """This project's worker, as in production."""
    command = (sys.executable, "-m", "bytewax.run", "benchmarks.members_flow")
    return [
        Contender("lovelace_streams", name, command, setting, makes_dead_letters=True)
        for name, setting in OUR_SETTINGS.items()
    ]


def bento(home: Path, *, bad: bool) -> list[Contender]:
    """Bento, a fork of Redpanda Connect's engine."""
    config = HERE / "bento" / ("dead_letters.yaml" if bad else "members.yaml")
    command = (str(build_bento(home)), "-c", str(config))
    settings = {"batch 100": {"BATCH": "100", "IN_FLIGHT": "4"}, "best": {"BATCH": "100", "IN_FLIGHT": "16"}}
    return [Contender("bento", name, command, setting) for name, setting in settings.items()]


def on_avro(contender: Contender) -> Contender | None:
    """The same contender on Avro in Confluent's frame; None where it is not made to read it here."""
    commands = {
        "lovelace_streams": (sys.executable, "-m", "bytewax.run", "benchmarks.peers.avro.flow"),
        "bento": (contender.command[0], "-c", str(HERE / "bento" / "members_avro.yaml")),
    }
    command = commands.get(contender.who)
    return replace(contender, command=command, form=avro) if command else None


def build_bento(home: Path) -> Path:
    """Its program, built from the Go module's source at the version that go.mod names; minutes at first use."""
    program = home / "peers" / "bento"
    if not program.exists():
        if shutil.which("go") is None:
            raise AbsentError("building it takes Go 1.23 or newer on the PATH")
        say("building bento (minutes, once)")
        program.parent.mkdir(parents=True, exist_ok=True)
        half = program.with_name("bento.part")
        built = subprocess.run(["go", "build", "-o", str(half.resolve()), "."], cwd=HERE / "bento", check=False)
        if built.returncode:
            raise AbsentError(f"go build ended with {built.returncode}")
        half.rename(program)
    return program.resolve()


def kafka_connect() -> list[Contender]:
    """Kafka Connect's standalone worker with Debezium's JDBC sink, on already flat records."""
    files = [str(HERE / "kafka_connect" / name) for name in ("worker.properties", "sink.properties")]
    try:
        command = java.command(CONNECT, "org.apache.kafka.connect.cli.ConnectStandalone", *files, options=JVM)
    except DeploymentFault as fault:
        raise AbsentError(str(fault)) from None
    settings = {"batch 100": {"BATCH": "100", "POLL": "500"}, "best": {"BATCH": "500", "POLL": "500"}}
    return [
        Contender("kafka connect", name, tuple(command), setting, flat, ARRAYS) for name, setting in settings.items()
    ]


def quix(home: Path) -> list[Contender]:
    """Quix Streams with its PostgreSQLSink, in an environment of its own."""
    requirements = HERE / "quix" / "requirements.txt"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    folder = home.resolve() / "peers" / f"quix-{wanted}"
    if not folder.is_dir():
        say("installing quix streams (once)")
        half = folder.with_name(f"{folder.name}.part")
        venv.create(half, with_pip=True, clear=True, symlinks=True)
        pip = [str(half / "bin" / "python"), "-m", "pip", "install", "-q", "-r", str(requirements)]
        installed = subprocess.run(pip, check=False, stdout=sys.stderr)
        if installed.returncode:
            raise AbsentError(f"pip ended with {installed.returncode}")
        half.rename(folder)
    command = (str(folder / "bin" / "python"), str(HERE / "quix" / "flow.py"))
    settings = {"batch 100": {"BATCH": "100"}, "best": {"BATCH": "10000"}}
    return [Contender("quix streams", name, command, setting) for name, setting in settings.items()]


def plain_bytewax() -> list[Contender]:
    """Bytewax with its own connectors, in the project's environment."""
    command = (sys.executable, "-m", "bytewax.run", "benchmarks.peers.plain_bytewax.flow")
    settings = {"batch 100": {"BATCH": "100"}, "best": {"BATCH": "1000"}}
    return [Contender("bytewax", name, command, setting) for name, setting in settings.items()]
