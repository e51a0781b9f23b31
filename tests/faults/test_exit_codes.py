"""A wrong deployment ends a worker with one line and exit code 78, wherever it shows: no traceback, no panic."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lovelace_streams.local.kafka import Kafka
from lovelace_streams.local.processes import free_port
from tests.faults.harness import Fleet, Worker

SASL = """
listeners=SASL_PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=SASL_PLAINTEXT://127.0.0.1:{broker}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT
inter.broker.listener.name=SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
username="us" password="right" user_us="right";
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Workers of the thinnest flow, without any server."""
    environment = {"KAFKA_BROKERS": "127.0.0.1:1", "TOPIC": "t", "PROGRESS_API_URL": ""}
    with Fleet("tests.faults.keyvalue", environment, tmp_path) as started:
        yield started


def ended(worker: Worker) -> str:
    """The last line of a worker that has stopped for a reason."""
    last = worker.stopped()
    text = worker.log.read_text()
    assert "Traceback" not in text
    assert "panicked" not in text
    return last


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("POLL_SIZE", "many", "POLL_SIZE"),  # while the flow is built
        ("METRICS_PORT", "80000", "METRICS_PORT"),
        ("BYTEWAX_WORKERS_PER_PROCESS", "2", "one worker a process"),  # in the engine
        ("METRICS_HOST", "192.0.2.1", "METRICS_HOST"),
        ("KAFKA_SECURITY_PROTOCOL", "none", "KAFKA_"),  # in the client
    ],
)
def test_a_setting_that_can_not_be_stops_with_one_line(fleet: Fleet, setting: str, value: str, said: str) -> None:
    worker = fleet.start(**{"METRICS_PORT": str(free_port())} | {setting: value})

    assert said in ended(worker)


@pytest.mark.parametrize("port", ["decode.errs", "upsert.errs", "normalize.skipped", "validate.errs", "keep.skipped"])
def test_a_forgotten_port_stops_with_one_line(tmp_path: Path, port: str) -> None:
    environment = {"KAFKA_BROKERS": "127.0.0.1:1", "PROGRESS_API_URL": "", "LEFT": port}
    with Fleet("tests.unit.sources.leaving", environment, tmp_path) as started:
        step, _, name = port.partition(".")

        assert f"no step takes port '{name}' of step '{step}'" in ended(started.start())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"PROGRESS_API_URL": "https://127.0.0.1:1", "SSL_CERT_FILE": "/nowhere.pem"}, "SSL_CERT_FILE"),
        ({"PROGRESS_API_URL": "http://u:hunter2@127.0.0.1:1"}, "PROGRESS_API_URL"),
        ({"PROGRESS_API_URL": "http://127.0.0.1:1", "PROGRESS_API_TOKEN": "hunter2\n"}, "PROGRESS_API_TOKEN"),
    ],
)
def test_a_client_of_http_that_can_not_be_made_stops_with_one_line(
    fleet: Fleet, settings: dict[str, str], said: str
) -> None:
    last = ended(fleet.start(**{"METRICS_PORT": str(free_port())} | settings))

    assert said in last
    assert "hunter2" not in last


class Guarded(Kafka):
    """A broker that asks for a password."""

    def answers(self) -> bool:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        user = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}
        user |= {"sasl.username": "us", "sasl.password": "right", "log_level": 0}
        try:
            return bool(AdminClient({"bootstrap.servers": self.address, **user}).list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def _configure(self, name: str, data: Path, *, broker: int, controller: int) -> Path:
        path = super()._configure(name, data, broker=broker, controller=controller)
        with path.open("a") as file:  # the last line of a name counts
            file.write(SASL.format(broker=broker, controller=controller))
        return path


@pytest.mark.slow
def test_a_wrong_password_stops_with_one_line(fleet: Fleet, tmp_path: Path) -> None:
    server = Guarded(tmp_path / "guarded").start()
    try:
        settings = {
            "KAFKA_BROKERS": server.brokers,
            "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "KAFKA_SASL_MECHANISM": "PLAIN",
            "KAFKA_SASL_USERNAME": "us",
        }
        wrong = fleet.start(**settings, KAFKA_SASL_PASSWORD="wrong")
        right = fleet.start(**settings, KAFKA_SASL_PASSWORD="right")

        assert "KAFKA_SASL_PASSWORD" in ended(wrong)
        assert "reads topic 't'" in ended(right)  # it was let in, and found no such topic
    finally:
        server.stop()
