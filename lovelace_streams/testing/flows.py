"""Run a whole flow in a second: its own operators on the real engine; broker, tables and services in memory.

`run` builds the flow, then replaces its ends: the clients and the process of the source, each writer, the clients of
the progress service and of the schema registry (docs/decisions/0013-users-tests.md).
"""

import inspect
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import httpx
import msgspec
import structlog
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main

from lovelace_streams.dead_letters.reader import StoredDeadLetter, letter_of
from lovelace_streams.delivery.block_writer import BlockWriter
from lovelace_streams.flows.topology import topology_of
from lovelace_streams.records import Outcome, Settled
from lovelace_streams.reporting.client import ProgressClient
from lovelace_streams.reporting.reporter import Reporter
from lovelace_streams.reporting.status import StatusReporter
from lovelace_streams.runtime.in_flight import InFlight
from lovelace_streams.settings import ProgressSettings, Settings
from lovelace_streams.sources.kafka import KafkaSource
from lovelace_streams.testing.broker import Broker, PartitionKey, QuietProcess
from lovelace_streams.testing.messages import Message
from lovelace_streams.testing.schemas import AnySchema, MemoryRegistry, framings
from lovelace_streams.writers import Writer
from lovelace_streams.writers.memory import MemoryWriter

SERVICE_URL = "http://progress.memory"
MEMORY_SERVICE = ProgressSettings(SERVICE_URL, "memory")
MEMORY_SETTINGS: dict[str, Any] = {
    "kafka_brokers": "memory",
    "postgres_dsn": "postgresql://memory/memory",
    "clickhouse_dsn": "http://memory/memory",
    "drain_seconds": 0.0,
    "schema_registry_url": "http://registry.memory",
    "progress_api_token": "memory",
}


class Result(msgspec.Struct, frozen=True):
    """The result of `run`: the tables, the dead letters, and the accounts of a flow."""

    tables: dict[str, list[dict[str, Any]]]
    """Table → its rows, in the order of their first write."""
    letters: list[StoredDeadLetter]
    """The dead-letter topic, read as `lovelace dlq` reads it: `reason`, `detail`, `items`, `step`, `value`."""
    outcomes: Counter[str]
    """Items by how they ended: `written`, `superseded`, `dead_lettered`, `skipped`."""
    skipped: Counter[str]
    """Skipped items by their reason."""
    committed: dict[PartitionKey, int]
    """(topic, partition) → the group's committed offset: where a restart would begin."""
    jobs: dict[str, Any]
    """Job → its state at the progress service: `status`, `succeeded`, `failed`, `skipped`."""
    signals: list[dict[str, Any]]
    """The signals that workflows waiting for their jobs would get."""
    sent: dict[str, list[bytes | None]]
    """Topic → the values that the flow sent to it."""

    def rows(self, table: str | None = None) -> list[dict[str, Any]]:
        """Give the rows of a table, or of the only one. Raises `AssertionError` if the flow does not write it."""
        if table is None and len(self.tables) == 1:
            return next(iter(self.tables.values()))
        if table not in self.tables:
            raise AssertionError(f"the flow writes {', '.join(self.tables)}, not {table}")
        return self.tables[table]

    def row(self, table: str | None = None, **columns: Any) -> dict[str, Any]:
        """Give the only row with these values. Raises `AssertionError`, with rows and failures, if it is not one."""
        rows = self.rows(table)
        found = [row for row in rows if all(row.get(name, None) == value for name, value in columns.items())]
        if len(found) == 1:
            return found[0]
        wanted = ", ".join(f"{name}={value!r}" for name, value in columns.items()) or "anything"
        values = [{name: row.get(name) for name in columns} for row in rows[:5]]
        raise AssertionError(f"expected one row with {wanted}, got {len(found)} of {len(rows)}: {values}; {self}")

    def letter(self, reason: str | None = None) -> StoredDeadLetter:
        """Give the only dead letter (with this reason). Raises `AssertionError`, with the result, if it is not one."""
        found = [letter for letter in self.letters if letter.matches(reason, None)]
        if len(found) == 1:
            return found[0]
        raise AssertionError(f"expected one dead letter{f' for {reason}' if reason else ''}, got {len(found)}; {self}")

    def all_written(self) -> "Result":
        """Return this result. Raises `AssertionError` if an item did not become a row."""
        if self.letters or self.skipped:
            raise AssertionError(f"expected every item to be written; {self}")
        return self

    def __str__(self) -> str:
        parts = [f"{count} {outcome}" for outcome, count in self.outcomes.items()] or ["nothing read"]
        parts += [f"dead letter in {d.step}: {d.failed}{f': {d.detail}' if d.detail else ''}" for d in self.letters[:5]]
        parts += [f"{count} skipped as {reason}" for reason, count in self.skipped.items()]
        return "; ".join(parts)


def run(
    flow: Callable[..., Dataflow] | Dataflow,
    messages: Iterable[Any],
    *,
    jobs: Mapping[str, int | None] | None = None,
    schemas: Mapping[int, AnySchema] | None = None,
    writers: Sequence[MemoryWriter] = (),
    timeout: float = 30.0,
    **settings: Any,
) -> Result:
    """Run a flow until its messages are settled and committed; opens no connection and starts no server.

    `flow` is the function that `python -m bytewax.run` takes, or the `Dataflow` that it returns. The function is called
    with settings that no environment changes, only keywords (`batch_size=2`). Its source reads `messages`, payloads or
    `Message`s, in their order. Each writer is replaced by a `MemoryWriter` for the same rows, or by the one of
    `writers` for the same tables, which may have rows or rules of its own. `jobs` opens jobs at the progress service,
    each with its total (needs the extra `api`); `schemas` are the schema registry's, by id.

    Raises the `DeploymentFault` that would stop the worker with exit code 78, `TimeoutError` if messages are not
    settled after `timeout` seconds, `ValueError` for a message to a topic that the flow does not read, and `TypeError`
    for a flow with several sources, or `jobs` or `writers` that it has no use for. A restart is a second call: its
    group has committed nothing, so hand over the same writers to keep their rows.

    >>> from bytewax.dataflow import Dataflow
    >>> import lovelace_streams as ls
    >>> class Order(ls.Row, table="orders", primary_key="id"):
    ...     id: int
    >>> def flow(settings):
    ...     source = ls.KafkaSource(settings.kafka, topics=["orders"])
    ...     flow = Dataflow("orders")
    ...     decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(Order))
    ...     orders = ls.normalize("normalize", decoded.oks, Order)
    ...     written = ls.upsert("upsert", ls.batch("batch", orders.oks, settings.batch), MemoryWriter(Order), source)
    ...     dead = ls.dead_letter("dead_letter", source, decoded.errs, orders.errs, written.errs)
    ...     ls.commit("commit", source, written.settled, dead.settled, decoded.skipped, orders.skipped)
    ...     return flow
    >>> result = run(flow, [{"id": 7}, {"id": "seven"}])
    >>> result.rows(), result.letter().detail, result.committed["orders", 0]
    ([{'id': 7}], 'expected int, got str at $.id', 2)
    """
    ledger = MemoryProgressService(jobs or {})
    built = _build(flow, settings | ({"progress_api_url": SERVICE_URL} if jobs else {}))
    source = source_of(built)
    broker = Broker(on_silence=StopWhenSettled(source, timeout).end)
    source.clients = broker
    source.process = QuietProcess()
    source.in_flight = in_flight = RecordingInFlight()
    for route in topology_of(built).routes:
        for framing in framings(route.decoder):
            framing.registry = MemoryRegistry(schemas or {})
    into = _replace_ends(source, writers, ledger)
    _send(broker, source, [Message.of(message) for message in messages])
    given = set(broker.partitions(source.topics))
    with _quiet():
        run_main(built)  # type: ignore[no-untyped-call]
    if source.fault is not None:
        raise source.fault
    if in_flight.left:
        raise TimeoutError(f"{in_flight.left} messages are not settled after {timeout:g} s")
    letters = source.settings.dead_letter_topic or f"{source.pipeline}.dlq"
    sent: dict[str, list[bytes | None]] = {}
    for topic, partition in broker.logs.keys() - given:
        if log := broker.logs[topic, partition]:
            sent.setdefault(topic, []).extend(message.value() for message in log)
    return Result(
        tables={name: list(table.values()) for writer in into for name, table in writer.tables.items()},
        letters=[letter_of(cast("Any", message), with_value=True) for message in broker.logs.get((letters, 0), [])],
        outcomes=Counter({outcome: count for outcome, count in source.in_flight.totals.items() if count}),
        skipped=in_flight.skipped,
        committed=broker.committed,
        jobs=ledger.jobs,
        signals=ledger.signals,
        sent=sent,
    )


def source_of(flow: Dataflow) -> KafkaSource:
    """Find the source that a flow reads. Raises `DeploymentFault` if there is none, `TypeError` for several."""
    found = {id(route.source): route.source for route in topology_of(flow).routes}
    if len(found) > 1:
        raise TypeError(f"{flow.flow_id}: expected a flow with one KafkaSource, got {len(found)}")
    return next(iter(found.values()))


def _build(flow: Callable[..., Dataflow] | Dataflow, values: Mapping[str, Any]) -> Dataflow:
    if isinstance(flow, Dataflow):
        return flow
    return flow(OwnSettings(**{**MEMORY_SETTINGS, **values})) if inspect.signature(flow).parameters else flow()


@contextmanager
def _quiet() -> Iterator[None]:
    """Write the worker's log to standard error, where pytest shows it with a failing test."""
    if structlog.is_configured():
        yield
        return
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(sys.stderr))
    try:
        yield
    finally:
        structlog.reset_defaults()


class OwnSettings(Settings):
    """Settings that no environment variable and no file changes."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: Any,  # noqa: ARG003
        init_settings: Any,
        env_settings: Any,  # noqa: ARG003
        dotenv_settings: Any,  # noqa: ARG003
        file_secret_settings: Any,  # noqa: ARG003
    ) -> tuple[Any, ...]:
        """Take only the values that the test gives."""
        return (init_settings,)


def _replace_ends(
    source: KafkaSource, writers: Sequence[MemoryWriter], ledger: "MemoryProgressService"
) -> list[MemoryWriter]:
    """Replace each writer by one in memory, and the reporter's connection by the service in memory."""
    given = {frozenset(writer.tables): writer for writer in writers}
    into = []
    for service in source.services:
        if isinstance(service, BlockWriter):
            service.writer = _in_memory(service.writer, given)
            into.append(service.writer)
        if isinstance(service, Reporter | StatusReporter):
            service.client.close()
            service.client = ProgressClient(MEMORY_SERVICE, transport=httpx.MockTransport(ledger.answer))
    if ledger.opened and not any(isinstance(service, Reporter) for service in source.services):
        raise TypeError("the flow ends in `commit`, which knows no jobs: let it end in `progress`")
    if unknown := given.keys() - {frozenset(writer.tables) for writer in into}:
        raise TypeError(f"the flow has no writer of {', '.join(sorted(min(unknown)))}")
    return into


def _in_memory(writer: Writer, given: Mapping[frozenset[str], MemoryWriter]) -> MemoryWriter:
    if isinstance(writer, MemoryWriter):
        return writer
    tables = frozenset(row.__table__.name for row in writer.rows)
    return given.get(tables) or MemoryWriter(*writer.rows)


def _send(broker: Broker, source: KafkaSource, messages: Sequence[Message]) -> None:
    partitions = 1 + max((message.partition for message in messages), default=0)
    for topic in source.topics:
        broker.create(topic, partitions)
    replay = f"{source.pipeline}.replay"
    broker.create(replay)
    for number, message in enumerate(messages):
        partition = (message.topic or source.topics[0], message.partition)
        if partition not in broker.logs:
            raise ValueError(
                f"message {number} is sent to {partition[0]}, which the flow does not read: {source.topics}"
            )
        broker.append(partition, message.value_sent, message.key_sent, message.headers_sent, message.ms(number))


class StopWhenSettled:
    """Ends the worker when every message is read and settled, or when the time is over."""

    def __init__(self, source: KafkaSource, seconds: float) -> None:
        self._source = source
        self._deadline = time.monotonic() + seconds

    def end(self) -> None:
        """Drain if everything is settled: the consumer has nothing left to read."""
        if not self._source.unfinished or time.monotonic() > self._deadline:
            self._source.drain()


class RecordingInFlight(InFlight):
    """Also records why items were skipped, and how many messages were not settled at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped: Counter[str] = Counter()
        self.left = 0

    def settle(self, settled: Settled) -> int:
        """Note the outcome."""
        if settled.outcome is Outcome.SKIPPED:
            self.skipped[str(settled.reason)] += sum(item.count for item in settled.envelopes)
        return super().settle(settled)

    def end(self, topic: str, partition: int) -> None:
        """End the assignment, and count the messages still in flight."""
        if (held := self.of(topic, partition)) is not None:
            self.left += len(held.in_flight)
        super().end(topic, partition)


class MemoryProgressService:
    """The progress service in memory: its own ledger, behind the client's requests."""

    def __init__(self, jobs: Mapping[str, int | None]) -> None:
        self.opened = jobs
        self._ledger: Any = None

    @property
    def jobs(self) -> dict[str, Any]:
        """The jobs with their states."""
        return self._ledger.jobs if self._ledger is not None else {}

    @property
    def signals(self) -> list[dict[str, Any]]:
        """The signals of completed jobs."""
        return list(self._ledger.signals.values()) if self._ledger is not None else []

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer a worker's request."""
        from lovelace_streams.api.models import ProgressRequest

        ledger = self._open_ledger()
        if request.method == "POST":
            report = ProgressRequest.model_validate_json(request.content)
            return httpx.Response(200, text=ledger.report(report, datetime.now(UTC)).model_dump_json())
        _, pipeline, topic_id = request.url.path.strip("/").split("/", 2)
        return httpx.Response(200, text=ledger.cover(pipeline, topic_id).model_dump_json())

    def _open_ledger(self) -> Any:
        if self._ledger is None:
            from lovelace_streams.api import ledger, models

            self._ledger = ledger.Ledger()
            for job, total in self.opened.items():
                wanted = models.OpenJob(job_id=job, source="test", total_items=total, workflow_id="workflow")
                self._ledger.open(wanted, None, datetime.now(UTC))
        return self._ledger
