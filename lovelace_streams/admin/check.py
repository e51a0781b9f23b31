"""Everything that a flow stands on, looked at before it runs: servers, topics, tables, and records on trial.

Nothing is written: no offset, no topic, no row. The records of a sample go through the flow's own decoder and
normalizer, and their rows through the destination's own rules in a transaction that is rolled back (`Writer.dry_run`).
What is said of a record is what its dead letter would say: a reason, a path or rule, an offset, never a value.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import httpx
import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient, ConfigResource, NewTopic, ResourceType

from lovelace_streams.dead_letters.sender import HEADER_BYTES_MAX, NOT_MAKEABLE
from lovelace_streams.delivery.blocks import entries_of, outcomes_of
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.flows.topology import Route, Topology
from lovelace_streams.formats.decoder import Ports
from lovelace_streams.kafka.client import DEPLOYMENT_ERRORS, LOGIN_REJECTED, common_config
from lovelace_streams.kafka.headers import record_of
from lovelace_streams.kafka.topic_ids import REQUEST_SECONDS, TopicIds
from lovelace_streams.kafka.topic_reader import messages
from lovelace_streams.operators.normalize import sort
from lovelace_streams.records import DeadLetter, Envelope, Record
from lovelace_streams.rows.normalizer import normalizer
from lovelace_streams.runtime.in_flight import Assignment
from lovelace_streams.settings import ProgressSettings
from lovelace_streams.sources.kafka import KafkaSource
from lovelace_streams.writers import SupportsEvolution, Writer, check_capabilities, dry_run

P = ParamSpec("P")
"""What a look is told."""
T = TypeVar("T")
"""What it gives."""

COMING = {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS}
"""What a broker answers about groups until it has found out who keeps them."""
PATIENCE = 120.0
"""Seconds that a call of a writer may take in all."""

FAILS, AWAY, DEPLOYMENT = 1, 75, 78
"""Exit codes: records would fail; something is away (EX_TEMPFAIL); something can't be right (EX_CONFIG)."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at: `ok`, `note` (it works, but), `away` or `deployment`."""

    state: str
    text: str


class SampleFailure(msgspec.Struct):
    """Items of the sample that would be dead-lettered for one cause."""

    reason: str
    step: str
    detail: str
    """Path and what was expected, or the constraint or column: never a value."""
    items: int
    example: str
    """`topic/partition/offset`, with `#item` where the message holds several."""


class Trial(msgspec.Struct):
    """What became of the sample, by items."""

    messages: int = 0
    items: int = 0
    ends: dict[str, int] = msgspec.field(default_factory=dict)
    """`written`, `superseded`, `suppressed`; `checked` where a destination can't roll back; skips by their reason."""
    failures: list[SampleFailure] = msgspec.field(default_factory=list)

    def end(self, name: str, items: int = 1) -> None:
        """Count items that came to an end."""
        self.ends[name] = self.ends.get(name, 0) + items

    def fail(self, letter: DeadLetter) -> None:
        """Count a dead letter with those of its cause."""
        record = letter.record
        detail = " ".join(filter(None, (letter.detail, f"({letter.code})" if letter.code else "")))
        for known in self.failures:
            if (known.reason, known.step, known.detail) == (letter.reason, letter.step, detail):
                known.items += letter.count
                return
        place = f"{record.topic}/{record.partition}/{record.offset}"
        example = place if record.items <= 1 or letter.count > 1 else f"{place}#{letter.item}"
        self.failures.append(SampleFailure(str(letter.reason), letter.step, detail, letter.count, example))


class CheckReport(msgspec.Struct):
    """All that `check` found out about a flow."""

    flow: str
    findings: list[Finding]
    sample: Trial

    @property
    def exit(self) -> int:
        """The exit code: the worst of it."""
        states = {finding.state for finding in self.findings}
        if "deployment" in states:
            return DEPLOYMENT
        if "away" in states:
            return AWAY
        return FAILS if self.sample.failures else 0


def check(journey: Topology, sample: int) -> CheckReport:
    """Look at everything, also after something was found wrong; `sample` messages of each end of each partition."""
    return _Check(journey, sample).run()


class _Check:
    def __init__(self, journey: Topology, sample: int) -> None:
        self.journey = journey
        self.sample = sample
        self.report = CheckReport(journey.name, [], Trial())

    def run(self) -> CheckReport:
        opened: dict[Writer, bool] = {}
        for writer in self.journey.writers:
            opened[writer] = bool(self._look(self._destination, writer))
        self._look(self._progress)
        try:
            for lane in self.journey.lanes:
                found = self._look(self._broker, lane.source)
                self._look(self._decoder, lane)
                if found is not None:
                    self._look(self._try, lane, opened)
        finally:
            for writer in self.journey.writers:
                writer.close()
        return self.report

    def _say(self, finding: Finding) -> None:
        self.report.findings.append(finding)

    def _look(self, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T | None:
        """What was found; a fault is a finding, and the look goes on with the next thing."""
        try:
            return function(*args, **options)
        except DeploymentFault as fault:
            self._say(Finding("deployment", str(fault)))
        except DestinationFault as fault:
            self._say(Finding("away", str(fault)))
        return None

    def _broker(self, source: KafkaSource) -> bool:
        for finding in _Broker(source).findings():
            self._say(finding)
        return True

    def _destination(self, writer: Writer) -> bool:
        check_capabilities(writer)
        if isinstance(writer, SupportsEvolution) and writer.evolves:
            writer.evolves = False
            lacking = writer.evolution()
            if lacking.addable:
                self._say(Finding("note", f"added at start (TABLE_EVOLUTION=add): {' '.join(lacking.statements)}"))
                self._say(Finding("note", "no row was tried: the table is not yet as it will be"))
                return False
        with _bounded(writer):
            writer.open()
        rows = ", ".join(row.__name__ for row in writer.rows)
        self._say(Finding("ok", f"{writer.name}: the table is as {rows} say"))
        return True

    def _progress(self) -> None:
        settings = self.journey.progress
        if settings is None:
            self._say(Finding("ok", "no progress service: what is settled is committed, and no job is counted"))
        else:
            settings.check()
            self._say(Finding("ok", _service(settings)))

    def _decoder(self, lane: Route) -> None:
        """What a decoder leans on (a schema registry), where it can say so."""
        look = getattr(lane.decoder, "check", None)
        if look is not None:
            self._say(Finding("ok", str(look())))

    # -- records on trial ----------------------------------------------------------------------------------------------

    def _try(self, lane: Route, opened: dict[Writer, bool]) -> None:
        if self.sample == 0:
            return
        if lane.decoder is None or lane.target is None:
            self._say(Finding("note", "no record was tried: decode and normalize do not follow kafka_source"))
            return
        if lane.writer is None:
            self._say(Finding("note", "no row was tried: the flow's own steps lie between normalize and upsert"))
        rows = list(self._rows(lane, self._records(lane.source)))
        if lane.writer is not None and opened[lane.writer]:
            self._rehearse(lane.writer, rows)

    def _records(self, source: KafkaSource) -> Iterator[Record]:
        for topic in source.topics:
            held: dict[int, Assignment] = {}
            for message in messages(source.settings, topic, newest=self.sample, oldest=self.sample):
                self.report.sample.messages += 1
                yield _record(message, topic, held)

    def _rows(self, lane: Route, records: Iterable[Record]) -> Iterator[Envelope[Any]]:
        """Items as rows; what does not decode or fit, and what is skipped, ends here."""
        assert lane.decoder is not None
        assert lane.target is not None
        trial, mapper = self.report.sample, normalizer(lane.target)
        for record in records:
            decoded = Ports()
            lane.decoder.decode(record, decoded.oks, decoded.errs, decoded.skipped)
            made = sort(mapper, decoded.oks)
            trial.items += record.items
            for letter in (*decoded.errs, *made.errs):
                trial.fail(letter)
            for reason, envelope in (*decoded.skipped, *made.skipped):
                trial.end(str(reason), envelope.count)
            yield from made.oks

    def _rehearse(self, writer: Writer, envelopes: list[Envelope[Any]]) -> None:
        trial = self.report.sample
        entries, rows_per_item = entries_of(envelopes)
        with _bounded(writer):
            results = dry_run(writer, entries)
        asked = writer.capabilities.can_dry_run
        if not asked:
            self._say(Finding("note", f"{writer.name} can't roll back: rows were held against the columns' types only"))
        for end in outcomes_of("upsert", envelopes, rows_per_item, results):
            if isinstance(end, DeadLetter):
                trial.fail(end)
            else:
                trial.end(str(end.reason or end.outcome) if asked else "checked", len(end.envelopes))


@contextmanager
def _bounded(writer: Writer) -> Iterator[None]:
    """Cut a call of the writer off that gets no answer: a frozen server keeps no timeout of its own."""
    timer = threading.Timer(PATIENCE, writer.abort)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _record(message: Message, topic: str, held: dict[int, Assignment]) -> Record:
    """The record that a worker would make of a message."""
    partition, offset = message.partition() or 0, message.offset() or 0
    assignment = held.setdefault(partition, Assignment(0, topic, "", partition, offset, offset, offset))
    assignment.next = offset
    return record_of(message, assignment)


def _service(settings: ProgressSettings) -> str:
    """That the progress service is ready and takes our token. Raises `DestinationFault` or `DeploymentFault`."""
    url = str(settings.url).rstrip("/")
    headers = {"authorization": f"Bearer {settings.token}"}
    for path in ("/readyz", "/jobs?limit=1"):
        try:
            answer = httpx.get(f"{url}{path}", headers=headers, timeout=settings.timeout, trust_env=False)
        except httpx.HTTPError as error:
            raise DestinationFault(
                "08006", f"the progress service {url} does not answer: {type(error).__name__}"
            ) from None
        if answer.status_code in {401, 403}:
            raise DeploymentFault(
                f"the progress service {url} refuses our token ({answer.status_code}): "
                f"set PROGRESS_API_TOKEN to its own"
            )
        if answer.status_code >= 500:  # noqa: PLR2004 - HTTP's server errors
            raise DestinationFault(str(answer.status_code), f"the progress service {url} is not ready")
        if not answer.is_success:
            raise DeploymentFault(f"{url} answers {answer.status_code} to {path}: is it the progress service?")
    return f"{url}: the progress service is ready and takes our token"


def _committed(consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
    """Where a group stands; a broker that has only just begun to keep groups is asked again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return list(consumer.committed(partitions, REQUEST_SECONDS))
        except KafkaException as error:
            passing = error.args[0].retriable() or error.args[0].code() in COMING
            if not passing or time.monotonic() > deadline:
                raise
        consumer.poll(0.2)


class _Broker:
    """The broker's side of a source: topics, where the group stands, where dead letters and replays go."""

    def __init__(self, source: KafkaSource) -> None:
        self.source = source
        self.settings = source.settings
        self.admin = AdminClient(common_config(source.settings))

    def findings(self) -> Iterator[Finding]:
        """All there is to say. Raises `DeploymentFault` or `DestinationFault`."""
        try:
            listed = self.admin.list_topics(timeout=REQUEST_SECONDS).topics
            for topic in self.source.topics:
                if topic not in listed:
                    raise DeploymentFault(
                        f"the broker {self.settings.brokers} has no topic {topic!r}: create it, "
                        f"or set the topic that the flow should read"
                    )
                partitions = sorted(listed[topic].partitions)
                yield Finding("ok", f"{self.settings.brokers}: topic {topic} with {len(partitions)} partitions")
                yield from self._allowed(topic, AclOperation.READ)
                yield from self._positions(topic, partitions)
            letters = self.settings.dead_letter_topic or f"{self.source.pipeline}.dlq"
            yield from self._letters(letters, there=letters in listed)
            replay = f"{self.source.pipeline}.replay"
            if replay not in listed:
                yield self._makeable(replay, "replays are off")
        except KafkaException as error:
            raise self._fault(error) from None

    def _fault(self, error: KafkaException) -> DeploymentFault | DestinationFault:
        code, name = error.args[0].code(), error.args[0].name()
        if code in DEPLOYMENT_ERRORS | LOGIN_REJECTED:
            return DeploymentFault(f"the broker {self.settings.brokers} refuses us: {name}")
        return DestinationFault(name, f"the broker {self.settings.brokers} (KAFKA_BROKERS) does not answer")

    def _allowed(self, topic: str, operation: AclOperation) -> Iterator[Finding]:
        """Whether we may; a broker without access control says that all is allowed, an old one says nothing."""
        asked = self.admin.describe_topics(
            TopicCollection([topic]), include_authorized_operations=True, request_timeout=REQUEST_SECONDS
        )
        operations = asked[topic].result(REQUEST_SECONDS).authorized_operations
        if operations and not {operation, AclOperation.ALL} & set(operations):
            yield Finding(
                "deployment", f"we may not {operation.name} topic {topic} on {self.settings.brokers}: allow it"
            )

    def _positions(self, topic: str, partitions: list[int]) -> Iterator[Finding]:
        """Where the consumer group stands in a topic."""
        topic_id = TopicIds(self.admin).now([topic]).get(topic, "")
        consumer = Consumer(
            common_config(self.settings) | {"group.id": self.source.pipeline, "enable.auto.commit": False}
        )
        try:
            begun, lag = 0, 0
            for at in _committed(consumer, [TopicPartition(topic, p) for p in partitions]):
                low, high = consumer.get_watermark_offsets(at, REQUEST_SECONDS)
                known = at.offset >= 0 and at.metadata in (None, "", topic_id)
                begun += known
                lag += high - (at.offset if known else low)
                if at.offset >= 0 and not known:
                    yield Finding("note", f"{topic}-{at.partition} was made again: it is read from its beginning")
                if known and not low <= at.offset <= high:
                    yield Finding(
                        "deployment",
                        f"offset {at.offset} of {topic}-{at.partition}, where group {self.source.pipeline} stands, "
                        f"is gone: the topic holds {low}…{high - 1}",
                    )
            group = f"group {self.source.pipeline}: {begun} of {len(partitions)} partitions begun"
            yield Finding("ok", f"{group}, {lag} offsets to read of {topic}")
        finally:
            consumer.close()

    def _letters(self, topic: str, *, there: bool) -> Iterator[Finding]:
        if not there:
            yield self._makeable(topic, "dead letters have nowhere to go")
            return
        yield from self._allowed(topic, AclOperation.WRITE)
        wanted = max(self._config(each).get("max.message.bytes", 0) for each in self.source.topics) + HEADER_BYTES_MAX
        limits = self._config(topic)
        if limits.get("max.message.bytes", wanted) < wanted:
            yield Finding(
                "note",
                f"dead-letter topic {topic}: max.message.bytes is {limits['max.message.bytes']}, below {wanted} (the "
                f"source's largest message and {HEADER_BYTES_MAX} for headers): larger letters go without their value",
            )
        if limits.get("retention.ms", -1) != -1:
            yield Finding(
                "note", f"dead-letter topic {topic}: retention.ms is {limits['retention.ms']}: letters are deleted then"
            )
        yield Finding("ok", f"dead letters go to {topic}")

    def _config(self, topic: str) -> dict[str, int]:
        """A topic's limits, as far as we may ask for them."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        try:
            described = self.admin.describe_configs([resource])[resource].result(REQUEST_SECONDS)
        except KafkaException as error:
            if error.args[0].code() in DEPLOYMENT_ERRORS | LOGIN_REJECTED:
                return {}
            raise
        return {name: int(described[name].value) for name in ("max.message.bytes", "retention.ms")}

    def _makeable(self, topic: str, otherwise: str) -> Finding:
        """Whether a worker could make a topic: asked of the broker, and not done."""
        try:
            self.admin.create_topics([NewTopic(topic, num_partitions=1)], validate_only=True)[topic].result(
                REQUEST_SECONDS
            )
        except KafkaException as error:
            if error.args[0].code() not in NOT_MAKEABLE:
                raise
            state = "note" if topic.endswith(".replay") else "deployment"
            return Finding(state, f"topic {topic} can't be made ({error.args[0].name()}): create it, or {otherwise}")
        return Finding("ok", f"topic {topic} is made at start")
