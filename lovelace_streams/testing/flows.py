"""Run a whole flow in a second: its own operators on the real engine; broker, tables and services in memory.

`run` builds the flow, then replaces its ends: the clients and the process of the source, each writer, the clients of
the progress service and of the schema registry (docs/decisions/0013-users-tests.md).
"""

import inspect
import sys
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
from lovelace_streams.errors import shown
from lovelace_streams.flows.topology import topology_of
from lovelace_streams.reporting.client import ProgressClient
from lovelace_streams.reporting.reporter import Reporter
from lovelace_streams.reporting.status import StatusReporter
from lovelace_streams.settings import ProgressSettings, Settings
from lovelace_streams.sources.kafka import KafkaSource
from lovelace_streams.testing.broker import Broker, PartitionKey, QuietProcess
from lovelace_streams.testing.lives import Life
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
    repeated: Counter[PartitionKey] = msgspec.field(default_factory=Counter)
    """(topic, partition) → messages that a worker read again, because the one before it had not committed them."""
    personal: dict[str, str] = msgspec.field(default_factory=dict)
    """Column → the kind of personal data that it holds, for columns marked `Pii`: errors do not show their values."""

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
        values = [{name: self._shown(name, row.get(name)) for name in columns} for row in rows[:5]]
        raise AssertionError(f"expected one row with {wanted}, got {len(found)} of {len(rows)}: {values}; {self}")

    def _shown(self, column: str, value: Any) -> Any:
        return value if value is None or column not in self.personal else f"<{self.personal[column]}>"

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
        parts += [f"{count} read again in {topic}-{partition}" for (topic, partition), count in self.repeated.items()]
        return "; ".join(parts)


def run(
    flow: Callable[..., Dataflow] | Dataflow,
    messages: Iterable[Any],
    *,
    jobs: Mapping[str, int | None] | None = None,
    schemas: Mapping[int, AnySchema] | None = None,
    writers: Sequence[MemoryWriter] = (),
    timeout: float = 30.0,
    restart_after: int | Sequence[int] = (),
    **settings: Any,
) -> Result:
    """Run a flow until its messages are settled and committed; opens no connection and starts no server.

    `flow` is the function that `python -m bytewax.run` takes, or the `Dataflow` that it returns. The function is called
    with settings that no environment changes, only keywords (`batch_size=2`). Its source reads `messages`, payloads or
    `Message`s, in their order. Each writer is replaced by a `MemoryWriter` for the same rows, or by the one of
    `writers` for the same tables, which may have rows or rules of its own. `jobs` opens jobs at the progress service,
    each with its total (needs the extra `api`); `schemas` are the schema registry's, by id.

    `restart_after=3` kills the worker after three messages have been through its steps, builds the flow again and goes
    on with the same topics, offsets, tables and jobs; `(3, 5)` kills the second worker too, after five messages that it
    has read itself. The rows of a worker's last window are written; its letters are not sent, and nothing of it is
    reported or committed, so that the next worker repeats it. The result is that of all workers together.

    Raises the `DeploymentFault` that would stop the worker with exit code 78, `TimeoutError` if messages of one worker
    are not settled after `timeout` seconds, `ValueError` for a message to a topic that the flow does not read and for a
    restart that never comes, and `TypeError` for a flow with several sources, for `jobs` or `writers` that the flow has
    no use for, and for a restart of a flow that is built already.

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
    values = settings | ({"progress_api_url": SERVICE_URL} if jobs else {})
    world = _World(writers, schemas or {}, MemoryProgressService(jobs or {}))
    sent = [Message.of(message) for message in messages]
    for messages_max in (*_restarts(flow, restart_after), None):
        world.live(_build(flow, values), sent, messages_max, timeout)
    return world.result()


def _restarts(flow: Callable[..., Dataflow] | Dataflow, restart_after: int | Sequence[int]) -> Sequence[int]:
    restarts = [restart_after] if isinstance(restart_after, int) else restart_after
    if any(messages < 1 for messages in restarts):
        raise ValueError(f"restart_after={restart_after!r} counts the messages that a worker reads: expected 1 or more")
    if restarts and isinstance(flow, Dataflow):
        raise TypeError(
            f"{flow.flow_id} is built already, and a restart builds the flow again: hand over the function that "
            "builds it, run(flow, …, restart_after=…), not run(flow(), …)"
        )
    return restarts


class _World:
    """What outlives a worker: topics and offsets, tables, a schema registry, the progress service."""

    def __init__(
        self, writers: Sequence[MemoryWriter], schemas: Mapping[int, AnySchema], service: "MemoryProgressService"
    ) -> None:
        self.given = writers
        self.schemas = schemas
        self.service = service
        self.broker = Broker(on_silence=lambda: None)
        self.partitions: set[PartitionKey] = set()
        """The partitions that the flow reads: all others were made by it."""
        self.flows: list[Dataflow] = []
        self.lives: list[Life] = []
        self.into: list[MemoryWriter] = []
        """The flow's writers, in the order in which it makes them."""
        self.letters = ""
        """The dead-letter topic."""

    def live(self, built: Dataflow, messages: Sequence[Message], messages_max: int | None, timeout: float) -> None:
        """Run one worker to its end. Raises what `run` does."""
        if any(built is before for before in self.flows):
            raise TypeError(f"{built.flow_id}: a restart builds the flow again, and the function gave the same one")
        self.flows.append(built)
        source = source_of(built)
        source.clients = self.broker
        source.process = QuietProcess()
        life = Life(source, self.broker, messages_max, timeout)
        for route in topology_of(built).routes:
            for framing in framings(route.decoder):
                framing.registry = MemoryRegistry(self.schemas)
        self.into = _replace_ends(source, self.given, self.service, self.into)
        self.service.life = life
        if not self.lives:
            _send(self.broker, source, messages)
            self.partitions = set(self.broker.partitions(source.topics))
        self.lives.append(life)
        with _quiet():
            run_main(built)  # type: ignore[no-untyped-call]
        self.letters = source.settings.dead_letter_topic or f"{source.pipeline}.dlq"
        if life.was_killed:
            return
        if source.fault is not None:
            raise source.fault
        if life.in_flight.left:
            raise TimeoutError(f"{life.in_flight.left} messages are not settled after {timeout:g} s")
        if messages_max is not None:
            read = len(life.in_flight.positions)
            raise ValueError(f"restart_after={messages_max}: the worker was never killed, it has read {read} messages")

    def result(self) -> Result:
        """What all workers together made of the messages."""
        logs = self.broker.logs
        sent: dict[str, list[bytes | None]] = {}
        for topic, partition in logs.keys() - self.partitions:
            if log := logs[topic, partition]:
                sent.setdefault(topic, []).extend(message.value() for message in log)
        outcomes: Counter[str] = Counter()
        skipped: Counter[str] = Counter()
        reads: Counter[tuple[str, int, int]] = Counter()
        for life in self.lives:
            outcomes.update({outcome: count for outcome, count in life.in_flight.totals.items() if count})
            skipped.update(life.in_flight.skipped)
            reads.update(life.in_flight.positions)
        repeated: Counter[PartitionKey] = Counter()
        for (topic, partition, _), times in reads.items():
            repeated.update({(topic, partition): times - 1} if times > 1 else {})
        return Result(
            tables={name: list(table.values()) for writer in self.into for name, table in writer.tables.items()},
            letters=[letter_of(cast("Any", message), with_value=True) for message in logs.get((self.letters, 0), [])],
            outcomes=outcomes,
            skipped=skipped,
            committed=self.broker.committed,
            jobs=self.service.jobs,
            signals=self.service.signals,
            sent=sent,
            repeated=repeated,
            personal={
                column.name: column.pii
                for writer in self.into
                for row in writer.rows
                for column in row.__table__.columns
                if column.pii is not None
            },
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
    if not callable(flow):
        raise TypeError(f"run takes the function that builds a flow, or the Dataflow itself, not {shown(flow)}")
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
    source: KafkaSource,
    writers: Sequence[MemoryWriter],
    progress: "MemoryProgressService",
    before: Sequence[MemoryWriter],
) -> list[MemoryWriter]:
    """Replace each writer by one in memory, and the reporter's connection by the service in memory.

    After a restart these are the writers of the worker before, which the flow makes in the same order.
    """
    given = {frozenset(writer.tables): writer for writer in writers}
    kept = iter(before)
    into = []
    for service in source.services:
        if isinstance(service, BlockWriter):
            service.writer = writer = next(kept, None) or _in_memory(service.writer, given)
            into.append(writer)
        if isinstance(service, Reporter | StatusReporter):
            service.client.close()
            service.client = ProgressClient(MEMORY_SERVICE, transport=httpx.MockTransport(progress.answer))
    if progress.opened and not any(isinstance(service, Reporter) for service in source.services):
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


class MemoryProgressService:
    """The progress service in memory: its own ledger, behind the client's requests."""

    def __init__(self, jobs: Mapping[str, int | None]) -> None:
        self.opened = jobs
        self.life: Life | None = None
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
        """Answer a worker's request; a worker that is about to be killed gets no answer."""
        from lovelace_streams.api.models import ProgressRequest

        if self.life is not None and self.life.has_read_all:
            raise httpx.ConnectError("the worker is killed before it reports its last window")
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
