"""The local stack: reachable while it is wanted, gone when it is not, whatever was killed before."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.local import LocalStack, down, java, registry, status, up
from lovelace_streams.local.kafka import PROGRAM, Kafka
from lovelace_streams.local.postgres import Postgres
from lovelace_streams.local.processes import Program, free_port, listens, stop_recorded
from lovelace_streams.local.progress import ProgressService
from lovelace_streams.local.registry import Registry
from lovelace_streams.settings import Settings

ROOT = Path(__file__).parents[2]

OWNER = """
import signal, sys, time
from lovelace_streams.local import LocalStack
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
with LocalStack(sys.argv[1], parts=sys.argv[2].split(",")) as stack:
    print(stack.env, flush=True)
    time.sleep(600)
"""


def until(condition: Callable[[], object], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def running_in(home: Path) -> list[str]:
    """The command lines that name this home (owners and supervisors included)."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if process.status() != psutil.STATUS_ZOMBIE and any(str(home) in argument for argument in command):
                found.append(" ".join(command)[:200])
    return found


@contextlib.contextmanager
def owner(home: Path, parts: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that runs a stack; it has started all of it when this gives it."""
    command = [sys.executable, "-c", OWNER, str(home), parts]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("{")
            yield process
        finally:
            process.kill()


def server_of(home: Path, part: str) -> psutil.Process:
    return psutil.Process(json.loads((home / "run" / f"{part}.json").read_text())["server"])


# Reachable.


def test_a_message_of_thirty_megabytes_goes_through(make_topic, brokers: str) -> None:
    topic, size = make_topic(partitions=1), 30_000_000
    producer = Producer({"bootstrap.servers": brokers, "message.max.bytes": 64_000_000})
    producer.produce(topic, b"x" * size)
    assert producer.flush(30) == 0
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": topic,
            "auto.offset.reset": "earliest",
            "fetch.max.bytes": 64_000_000,
        }
    )
    consumer.subscribe([topic])
    message = consumer.poll(30)
    consumer.close()
    assert message is not None
    assert message.error() is None
    assert len(message.value()) == size


def test_a_topic_is_made_with_its_partitions_and_settings(make_topic, brokers: str) -> None:
    topic = make_topic("named", partitions=5, retention_ms=-1)
    assert topic.startswith("named-")
    assert len(AdminClient({"bootstrap.servers": brokers}).list_topics(topic, timeout=10).topics[topic].partitions) == 5


def test_topics_are_not_made_by_looking_for_them(brokers: str) -> None:
    admin = AdminClient({"bootstrap.servers": brokers})
    assert admin.list_topics("nobody-made-this", timeout=10).topics["nobody-made-this"].error is not None


def test_a_database_is_the_test_s_own_and_durable(database: str) -> None:
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
        settings = ("fsync", "synchronous_commit", "server_encoding", "listen_addresses")
        assert [connection.execute(f"SHOW {name}").fetchone()[0] for name in settings] == [
            "on",
            "on",
            "UTF8",
            "127.0.0.1",
        ]


def test_postgres_wants_its_password_and_does_not_tell_it(postgres_server: Postgres) -> None:
    password = (postgres_server.data / "password").read_text()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres_server.dsn.replace(password, "guess"))
    assert password not in postgres_server.record.read_text()
    assert password not in " ".join(postgres_server.process().cmdline())
    assert all(password not in entry.address for entry in status(postgres_server.home))


def test_no_value_gets_into_the_log_of_postgres(database: str, postgres_server: Postgres) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (name text CHECK (name <> 'hunter2'), n int)")
        for statement in ("INSERT INTO t VALUES ('hunter2', 1)", "SELECT 'hunter2'::int"):
            with pytest.raises(psycopg.DataError if "int" in statement[-4:] else psycopg.IntegrityError):
                connection.execute(statement)
    assert "hunter2" not in postgres_server.log.read_text()


def test_the_registry_listens_on_the_loopback_alone(registry_server: Registry) -> None:
    sockets = registry_server.process().net_connections()
    listening = {each.laddr.ip.removeprefix("::ffff:") for each in sockets if each.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


# Faults that tests ask for.


def test_postgres_comes_back_on_its_port_with_its_data(tmp_path: Path) -> None:
    server = Postgres(tmp_path).start()
    dsn = server.dsn
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    server.stop()
    assert not listens(server.port)
    server.start()
    server.kill()
    assert until(lambda: not listens(server.port))
    server.start()
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    server.stop()
    assert until(lambda: not running_in(tmp_path))


def test_a_frozen_postgres_is_silent_and_goes_on_when_thawed(tmp_path: Path) -> None:
    server = Postgres(tmp_path).start()
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        server.freeze()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn, connect_timeout=2)
        server.thaw()
        assert connection.execute("SELECT 1").fetchone() == (1,)
    server.freeze()
    server.stop()
    assert until(lambda: not running_in(tmp_path))


def test_a_restarted_broker_keeps_its_topics(kafka_server: Kafka, make_topic, brokers: str) -> None:
    topic = make_topic()
    kafka_server.restart()
    assert kafka_server.brokers == brokers
    assert topic in AdminClient({"bootstrap.servers": brokers}).list_topics(timeout=20).topics


# Gone with the owner.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_its_owner(tmp_path: Path, number: signal.Signals) -> None:
    with owner(tmp_path, "postgres") as process:
        process.send_signal(number)
        process.wait(60)
        assert until(lambda: not running_in(tmp_path)), running_in(tmp_path)


@pytest.mark.slow
def test_a_run_after_a_killed_one_finds_its_data_and_nothing_outlives_either(tmp_path: Path) -> None:
    with owner(tmp_path, "kafka,postgres,temporal") as process:
        process.kill()
        process.wait()
        with LocalStack(tmp_path, parts=("kafka", "postgres")) as stack:  # while the old servers still end
            with psycopg.connect(stack.env["POSTGRES_DSN"]) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            assert AdminClient({"bootstrap.servers": stack.env["KAFKA_BROKERS"]}).list_topics(timeout=10).brokers
    assert until(lambda: not running_in(tmp_path)), running_in(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_server_does_not_outlive_its_supervisor(tmp_path: Path) -> None:
    server = Postgres(tmp_path).start()
    postmaster = server.process()
    postmaster.parent().kill()
    assert until(lambda: not postmaster.is_running() or postmaster.status() == psutil.STATUS_ZOMBIE)
    server.wait_stopped()
    server.start().stop()


def test_a_program_ends_with_its_owner_too(tmp_path: Path) -> None:
    program = Program(tmp_path, "worker", [sys.executable, "-c", "import time; time.sleep(600)", str(tmp_path)]).start()
    assert program.poll() is None
    program.stop()
    assert until(lambda: not running_in(tmp_path))
    failing = Program(tmp_path, "failing", [sys.executable, "-c", "raise SystemExit(78)"]).start()
    assert until(lambda: failing.poll() is not None)
    assert failing.poll() == 78
    failing.stop()


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(DeploymentFault, match=r"broken ended while starting \(log: .*\n  no such luck"):
        Program(tmp_path, "broken", ["/bin/sh", "-c", "echo no such luck; exit 3"], ready=lambda: False).start()


# Restart on what was left.


def test_half_made_data_is_made_again(tmp_path: Path) -> None:
    for part in (Kafka(tmp_path), Postgres(tmp_path)):
        (part.data / "data.part" / "rubbish").mkdir(parents=True)
        part.prepare()
        assert not (part.data / "data.part").exists()
        assert not (part.data / "data" / "rubbish").exists()


def test_the_lock_of_a_killed_server_does_not_count(tmp_path: Path) -> None:
    server = Postgres(tmp_path).start()
    server.stop()
    (server.data / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n")  # its id has gone to us
    server.start().stop()


def test_a_recorded_id_that_has_gone_to_another_process_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as bystander:
        record = tmp_path / "kafka.json"
        content = {"supervisor": bystander.pid, "server": bystander.pid, "argv": ["java"], "stop": 15, "grace": 1}
        record.write_text(json.dumps(content))
        stop_recorded(record)
        assert bystander.poll() is None
        assert not record.exists()
        record.write_text("{half")
        stop_recorded(record)
        bystander.kill()


def test_two_runs_do_not_share_a_home(tmp_path: Path) -> None:
    with owner(tmp_path, "postgres") as process, pytest.raises(DeploymentFault, match=f"process {process.pid}"):
        LocalStack(tmp_path, parts=("postgres",)).start()


def test_a_run_whose_starter_was_killed_is_taken_over(tmp_path: Path) -> None:
    """`make` killed, and what it ran goes on: the next run is not kept waiting by it."""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {OWNER!r}, *sys.argv[1:]])"
    command = [sys.executable, "-c", code, str(tmp_path), "postgres"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline().startswith(b"{")
        first = server_of(tmp_path, "postgres")
        starter.kill()
        starter.wait()
        with LocalStack(tmp_path, parts=("postgres",)) as stack:
            assert stack.postgres.process() != first
    assert until(lambda: not running_in(tmp_path))


# Left running on purpose.


def test_up_outlives_its_owner_until_down(tmp_path: Path) -> None:
    code = f"from lovelace_streams.local import up; up({str(tmp_path)!r}, parts=('postgres',))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)
    try:
        env = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
        assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600
        assert len(env["PROGRESS_API_TOKEN"]) >= 32
        with psycopg.connect(env["POSTGRES_DSN"]) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        found = {entry.part: entry for entry in status(tmp_path)}
        assert (found["postgres"].state, found["kafka"].state) == ("running", "stopped")
        assert found["postgres"].pid == server_of(tmp_path, "postgres").pid
        with LocalStack(tmp_path, parts=("postgres",)) as borrowed:
            assert borrowed.env["POSTGRES_DSN"] == env["POSTGRES_DSN"]
        assert listens(borrowed.postgres.port)
        assert up(tmp_path, parts=("postgres",)) == env
    finally:
        assert down(tmp_path) == ["postgres"]
    assert not running_in(tmp_path)
    assert not (tmp_path / "env").exists()
    assert {entry.state for entry in status(tmp_path)} == {"stopped"}


@pytest.mark.xdist_group("port_8000")  # as the test of the quickstart: on API_PORT's default
def test_the_service_is_found_where_up_said_it_would_be(tmp_path: Path) -> None:
    """`lovelace up`, then `lovelace api` in the same folder, and a worker or a submitter: nothing is typed."""
    env = up(tmp_path / ".lovelace", parts=("postgres",))
    ours = {name.upper() for name in Settings.model_fields}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    try:
        api = subprocess.Popen(
            [sys.executable, "-m", "lovelace_streams.api"],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(ROOT), "TEMPORAL_ADDRESS": ""},
        )
        try:
            token = {"authorization": f"Bearer {env['PROGRESS_API_TOKEN']}"}

            def answers() -> bool:
                assert api.poll() is None
                with contextlib.suppress(httpx.HTTPError):
                    url = f"{env['PROGRESS_API_URL']}/jobs"
                    return httpx.get(url, headers=token, trust_env=False, timeout=5).status_code == 200
                return False

            assert until(answers)
        finally:
            api.terminate()
            api.wait(60)
    finally:
        down(tmp_path / ".lovelace")


@pytest.mark.slow
@pytest.mark.xdist_group("port_8000")
def test_up_starts_the_progress_service_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ".lovelace"
    monkeypatch.setenv("TEMPORAL_ADDRESS", "")
    monkeypatch.setenv("POSTGRES_DSN", "postgresql://elsewhere.invalid/none")
    env = up(home, parts=("postgres",), api=True)
    try:
        token = {"authorization": f"Bearer {env['PROGRESS_API_TOKEN']}"}
        job = {"job_id": "j", "source": "s", "total_items": 0}
        opened = httpx.post(f"{env['PROGRESS_API_URL']}/jobs", json=job, headers=token, trust_env=False, timeout=20)
        assert opened.json()["status"] == "completed"
        with psycopg.connect(env["POSTGRES_DSN"]) as connection:
            assert connection.execute("select job_id from lovelace.game_onboarding_progress").fetchall() == [("j",)]
        [service] = [entry for entry in status(home) if entry.part == "api"]
        assert (service.state, f"http://{service.address}") == ("running", env["PROGRESS_API_URL"])
        sockets = psutil.Process(service.pid).net_connections()
        assert {each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
        assert env["PROGRESS_API_TOKEN"] not in (home / "run" / "api.json").read_text()
        assert up(home, parts=("postgres",), api=True) == env, "a second call leaves it running"
        assert psutil.pid_exists(service.pid)
    finally:
        assert down(home) == ["api", "postgres"]
    assert not running_in(tmp_path)
    assert {entry.state for entry in status(home)} == {"stopped"}


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(DeploymentFault, match=rf"another program listens on 127\.0\.0\.1:{port}"):
            ProgressService(tmp_path, port).start()


def test_ports_are_kept_where_they_are_given(tmp_path: Path) -> None:
    port = free_port()
    with LocalStack(tmp_path, parts=("postgres",), ports={"postgres": port}) as stack:
        assert f":{port}/" in stack.env["POSTGRES_DSN"]


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(DeploymentFault, match="not mysql"):
        LocalStack("unused", parts=("mysql",))


# Jars.


def test_what_is_cached_needs_no_network(kafka_server: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert len(java.classpath(PROGRAM).split(os.pathsep)) > 40


def test_an_unpacked_archive_needs_no_network(registry_server: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert (java.unpacked(registry.PROGRAM) / "quarkus-run.jar").is_file()


def test_without_network_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DeploymentFault, match=r"can.t download .*HTTPS_PROXY"):
        java.classpath(PROGRAM)
    assert [entry.name for entry in java.cache().iterdir() if not entry.name.endswith((".part", "lock"))] == []
