"""Connecting to a destination that is away or refuses: seldom, with few lines; a refusal counts when it lasts."""

from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from lovelace_streams.delivery.block_writer import BlockWriter
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.rows import Row
from lovelace_streams.runtime.backoff import Backoff
from lovelace_streams.runtime.grace import LOGIN_SECONDS, Grace
from lovelace_streams.settings import KafkaSettings
from lovelace_streams.sources.kafka import KafkaSource
from lovelace_streams.writers.memory import MemoryWriter

AWAY = DestinationFault("08001", "db refuses connections: start it")
STARTING = DestinationFault("57P03", "db is starting")
REFUSED = DeploymentFault("db refuses the password (SQLSTATE 28P01)", "28P01", may_pass=True)
FINAL = DeploymentFault("db has no table things", "42P01")


class Thing(Row, table="things", primary_key="id"):
    id: int


class Opening(MemoryWriter):
    """A writer whose `open` raises, while there is a fault."""

    def __init__(self) -> None:
        super().__init__(Thing)
        self.fault: DestinationFault | DeploymentFault | None = None
        self.opened = 0

    def open(self) -> None:
        self.opened += 1
        if self.fault is not None:
            raise self.fault
        super().open()


@pytest.fixture
def writer() -> Opening:
    return Opening()


@pytest.fixture
def source() -> KafkaSource:
    source = KafkaSource(KafkaSettings("127.0.0.1:1"), ["t"])
    source.pipeline = "p"
    return source


@pytest.fixture
def serve(writer: Opening, source: KafkaSource) -> Callable[..., BlockWriter]:
    """Serve so many windows that have no record."""
    made = BlockWriter("upsert", writer, source)

    def go(windows: int = 1, *, at_once: bool = False) -> BlockWriter:
        for _ in range(windows):
            if at_once:
                made._connect_at = 0.0
            made.serve(idle=True, between_windows=True)
        return made

    yield go
    made.close()


def test_a_silent_topic_does_not_make_a_worker_hammer_a_database_that_is_away(writer, serve) -> None:
    writer.fault = AWAY

    with capture_logs() as lines:
        serve(500)

    assert writer.opened <= 4, "every window connected again"
    assert [line["event"] for line in lines if line["log_level"] != "debug"] == ["waiting for the destination"]


def test_an_outage_has_a_line_for_each_reason_and_one_for_its_end(writer, serve) -> None:
    writer.fault = AWAY
    with capture_logs() as lines:
        for writer.fault in (AWAY, AWAY, STARTING, AWAY, STARTING):
            serve(10, at_once=True)
        writer.fault = None
        serve(at_once=True)

    told = [(line["event"], line.get("fault")) for line in lines if line["log_level"] != "debug"]
    wait = "waiting for the destination"
    assert told == [(wait, str(AWAY)), (wait, str(STARTING)), ("back", None)]
    assert lines[-1]["failures"] == 50


def test_what_the_database_answers_ends_the_waiting_at_once(writer, serve) -> None:
    writer.fault = AWAY
    serve(3, at_once=True)
    writer.fault = None
    block_writer = serve(at_once=True)
    opened = writer.opened

    serve(100, at_once=True)

    assert writer.opened == opened
    assert block_writer._failures == 0


def test_a_refused_login_stops_the_worker_when_it_has_lasted(writer, serve, source) -> None:
    writer.fault = REFUSED
    block_writer = serve(5, at_once=True)
    assert source.fault is None, "a server that is starting does not know its users yet"

    block_writer._login = Grace(seconds=0.0)
    serve(at_once=True)

    assert source.fault is REFUSED


def test_a_refused_login_that_passes_stops_nobody(writer, serve, source) -> None:
    block_writer = serve(0)
    for writer.fault in (REFUSED, None):
        serve(at_once=True)

    assert source.fault is None
    assert not block_writer._login.is_suspected(0.0)


def test_an_outage_after_a_refused_login_begins_the_grace_again(writer, serve, source) -> None:
    block_writer = serve(0)
    for writer.fault in (REFUSED, AWAY):
        serve(at_once=True)

    assert not block_writer._login.is_suspected(0.0)
    assert source.fault is None


def test_what_can_not_pass_stops_the_worker_at_once(writer, serve, source) -> None:
    writer.fault = FINAL
    serve()

    assert source.fault is FINAL


def test_the_longest_pause_is_about_as_long_as_the_grace() -> None:
    """So a refusal is judged soon after its grace is over."""
    assert Backoff().longest <= LOGIN_SECONDS
