"""Send dead letters to `<pipeline>.replay`: decide which are replayed, say why the others are not, send them.

Theory of this file. A replay is exact although nothing here is: the worker counts each item of an origin once, and
writes a row only where it cannot replace a newer one. So a replay may be interrupted and repeated. The decision needs
three things that can be looked up: the newest letter of each origin, the letters that the replay topic holds already,
and the failed items that the progress service knows. Nothing else is remembered (docs/dead-letters.md).

Letters go newest first within a partition. A row without version is inserted only if its key is absent, so of several
letters of one key the first to arrive decides the row.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from lovelace_streams.dead_letters.reader import Filter, LetterPosition, StoredDeadLetter, replays_of
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.kafka.admin import max_message_bytes, set_max_message_bytes
from lovelace_streams.kafka.client import common_config
from lovelace_streams.kafka.faults import ErrorKind, kind_of, name_of, refused_write
from lovelace_streams.kafka.headers import Headers, headers_of
from lovelace_streams.kafka.own_topics import REPLAY_HEADER_BYTES_MAX, replay_topic
from lovelace_streams.kafka.topic_ids import REQUEST_SECONDS
from lovelace_streams.kafka.topic_reader import NoSuchTopic, OffsetRanges, messages, messages_within
from lovelace_streams.reporting.client import ProgressClient
from lovelace_streams.runtime.ranges import FailedItems, failed_items
from lovelace_streams.settings import KafkaSettings, ProgressSettings

MAX_REPLAYS = 3
CHUNK_LETTERS_MAX, CHUNK_BYTES_MAX = 1000, 64 * 1024 * 1024
"""How many letters are read and sent together, and their bytes."""
FIND_ORIGINS_MAX = 1000
"""How many messages one request asks the progress service about."""
DELIVERY_SECONDS = 30.0
LETTER_HEADERS = (
    "lovelace-reason",
    "lovelace-detail",
    "lovelace-step",
    "lovelace-code",
    "lovelace-truncated",
    "lovelace-failed-items",
    "lovelace-replays",
)
"""Headers about the failure, not about the message; a replay leaves them out and writes two of them itself."""

OriginPosition = tuple[str, int, int]
"""Topic id, partition and offset at which a message was first read."""


class ReplayStatus(StrEnum):
    """Whether a letter is replayed, or why it is not."""

    REPLAY = "replay"
    FILTERED = "filtered"
    NOT_OURS = "not_ours"  # no origin, no failed items, or another flow's topic: another program wrote it
    VOID = "void"  # the progress service knows no failed item of it
    RESOLVED = "resolved"  # a replay has written all of its items
    REPLAYED = "replayed"  # the replay topic holds it, and it has not failed again
    TRUNCATED = "truncated"  # its value was too large for the dead-letter topic
    MAX_REPLAYS = "max_replays"
    OVER_LIMIT = "over_limit"


class ReplayDecision(msgspec.Struct, frozen=True):
    """A letter, its status, and the items concerned: those to replay, or all that the letter names."""

    letter: StoredDeadLetter
    status: ReplayStatus
    items: Sequence[FailedItems]

    def reasons(self) -> Iterator[tuple[str, int]]:
        """Yield (reason, number of items)."""
        for run in self.items:
            yield run.reason, run.last + 1 - run.first

    @property
    def length(self) -> int:
        """The number of items."""
        return sum(count for _, count in self.reasons())


class FailedItemIndex:
    """The failed items of messages at the progress service: item → (reason, whether it is resolved)."""

    def __init__(self, known: dict[OriginPosition, dict[int, tuple[str, bool]]]) -> None:
        self._known = known

    def items(self, position: OriginPosition) -> dict[int, tuple[str, bool]]:
        """Give the failed items of a message; none if its letter is void."""
        return self._known.get(position, {})

    @classmethod
    def ask(cls, settings: ProgressSettings, pipeline: str, positions: Iterable[OriginPosition]) -> "FailedItemIndex":
        """Ask the service. Raises `DestinationFault` if it is away, `DeploymentFault` if it refuses."""
        settings.check()
        known: dict[OriginPosition, dict[int, tuple[str, bool]]] = {}
        wanted = list(dict.fromkeys(positions))
        with ProgressClient(settings) as client:
            for start in range(0, len(wanted), FIND_ORIGINS_MAX):
                for row in _find(client, pipeline, wanted[start : start + FIND_ORIGINS_MAX]):
                    items = known.setdefault((row.topic_id, row.partition, row.offset), {})
                    items.update(row.items())
        return cls(known)


class FailedItemsRow(msgspec.Struct):
    """One row of the service's answer: items of a message that failed for one reason."""

    topic_id: str
    partition: int
    offset: int
    first: int
    last: int
    reason: str
    resolved: list[tuple[int, int]]

    def items(self) -> Iterator[tuple[int, tuple[str, bool]]]:
        """Yield each item with its reason, and whether it is resolved."""
        for item in range(self.first, self.last + 1):
            yield item, (self.reason, any(first <= item <= last for first, last in self.resolved))


class _Failures(msgspec.Struct):
    failures: list[FailedItemsRow]


def _find(client: ProgressClient, pipeline: str, positions: Sequence[OriginPosition]) -> list[FailedItemsRow]:
    origins = [dict(zip(("topic_id", "partition", "offset"), position, strict=True)) for position in positions]
    body = msgspec.json.encode({"pipeline": pipeline, "origins": origins})
    answer = client.request("POST", "/failures/find", body=body)
    if answer.is_success:
        with suppress(ValueError):
            return answer.decode(_Failures).failures
    text = f"the progress service {client.url} answers {answer.status} when asked for failed items"
    raise DeploymentFault(f"{text}: {answer.detail or 'is it the progress service?'}")


def plan_replay(
    letters: Iterable[StoredDeadLetter],
    wanted: Filter,
    *,
    ledger: FailedItemIndex | None = None,
    sent: dict[str, int] | None = None,
    topics: Collection[str] = (),
    max_replays: int = MAX_REPLAYS,
    limit: int | None = None,
) -> list[ReplayDecision]:
    """Decide for each letter (one an origin) whether it is replayed; those that are come first, in sending order.

    Without a `ledger` void and resolved letters cannot be recognized, nor letters of other flows that share the topic:
    then a letter must be of one of the `topics`, or of the topic that `wanted` names. `sent`: origin → how often it was
    replayed, according to the replay topic.
    """
    known = None if ledger is not None or wanted.topic is not None or not topics else topics
    decisions = [_decide(letter, wanted, ledger, sent or {}, known, max_replays) for letter in letters]
    going = _newest_first([decision for decision in decisions if decision.status is ReplayStatus.REPLAY])
    stay = [decision for decision in decisions if decision.status is not ReplayStatus.REPLAY]
    if limit is not None:
        stay += [msgspec.structs.replace(decision, status=ReplayStatus.OVER_LIMIT) for decision in going[limit:]]
    return going[:limit] + stay


def _decide(
    letter: StoredDeadLetter,
    wanted: Filter,
    ledger: FailedItemIndex | None,
    sent: dict[str, int],
    topics: Collection[str] | None,
    max_replays: int,
) -> ReplayDecision:
    named = failed_items(dict(letter.items))
    if not wanted.takes(letter):
        return ReplayDecision(letter, ReplayStatus.FILTERED, named)
    origin = letter.source
    if origin is None or not named or (topics is not None and origin.topic not in topics):
        return ReplayDecision(letter, ReplayStatus.NOT_OURS, named)
    if ledger is not None:
        known = ledger.items((origin.topic_id, origin.partition, origin.offset))
        if not known:
            return ReplayDecision(letter, ReplayStatus.VOID, named)
        # The ledger decides, not the letter: the letter may be of another reading, or its list was cut short.
        named = failed_items({item: reason for item, (reason, resolved) in known.items() if not resolved})
        if not named:
            return ReplayDecision(letter, ReplayStatus.RESOLVED, failed_items(dict(letter.items)))
    return ReplayDecision(letter, _status_of(letter, sent.get(letter.origin, 0), max_replays), named)


def _status_of(letter: StoredDeadLetter, sent: int, max_replays: int) -> ReplayStatus:
    """Decide for a letter with items to replay."""
    if sent > letter.replays:
        return ReplayStatus.REPLAYED
    if letter.truncated:
        return ReplayStatus.TRUNCATED
    return ReplayStatus.MAX_REPLAYS if letter.replays >= max_replays else ReplayStatus.REPLAY


def _newest_first(decisions: Iterable[ReplayDecision]) -> list[ReplayDecision]:
    """Sort by offset within a partition; the partition with the newest message first (a topic may be made again)."""
    partitions: dict[tuple[str, int], list[tuple[int, ReplayDecision]]] = {}
    for decision in decisions:
        origin = decision.letter.source
        assert origin is not None
        partitions.setdefault((origin.topic_id, origin.partition), []).append((origin.offset, decision))
    ordered = sorted(partitions.values(), key=lambda pairs: -max(decision.letter.timestamp for _, decision in pairs))
    return [decision for pairs in ordered for _, decision in sorted(pairs, key=lambda pair: -pair[0])]


def counts_of(decisions: Iterable[ReplayDecision]) -> list[tuple[str, str, int, int]]:
    """Count decisions: (status, reason, letters, items), ordered by `ReplayStatus`, then by number of items."""
    items: Counter[tuple[str, str]] = Counter()
    letters: Counter[tuple[str, str]] = Counter()
    for decision in decisions:
        for reason, count in decision.reasons():
            items[decision.status, reason] += count
        letters.update({(decision.status, reason) for reason, _ in decision.reasons()} or {(decision.status, "")})
    order = list(ReplayStatus)
    keys = sorted(letters, key=lambda key: (order.index(ReplayStatus(key[0])), -items[key], key[1]))
    return [(*key, letters[key], items[key]) for key in keys]


def replays_sent(settings: KafkaSettings, topic: str) -> dict[str, int]:
    """Read the replay topic: origin → its highest `lovelace-replays`; empty if the topic does not exist."""
    sent: dict[str, int] = {}
    try:
        for message in messages(settings, topic):
            named = {name: value.decode("utf-8", "replace") for name, value in headers_of(message) if value}
            if origin := named.get("lovelace-origin"):
                sent[origin] = max(sent.get(origin, 0), replays_of(named.get("lovelace-replays", "")))
    except NoSuchTopic:
        return {}
    return sent


# -- sending -----------------------------------------------------------------------------------------------------------


class ReplaySender:
    """Sends letters of a dead-letter topic to a replay topic, in the given order, and waits for every delivery."""

    def __init__(self, settings: KafkaSettings, letters: str, replays: str, *, rate: float | None = None) -> None:
        self.delivered = 0
        self._settings = settings
        self._letters = letters
        self._replays = replays
        self._pause = 1 / rate if rate else 0.0
        self._due = 0.0
        self._failed: Counter[str] = Counter()
        self._refusal: DeploymentFault | None = None
        """Why the broker takes no replay; another try does not change it."""
        self._producer = Producer(
            common_config(settings)
            | {
                "enable.idempotence": True,
                "acks": "all",
                "message.max.bytes": 1_000_000_000,
                "compression.type": "lz4",
                "delivery.timeout.ms": int(DELIVERY_SECONDS * 1000),
                "log_level": 0,
            }
        )

    def run(self, decisions: Sequence[ReplayDecision], on_delivered: Callable[[], None] = lambda: None) -> int:
        """Send the letters; returns how many were delivered.

        Raises `DestinationFault` or `DeploymentFault` if one was not; the command may be run again.
        """
        make_topic(self._settings, self._replays, self._letters)
        try:
            for chunk in _chunks(decisions):
                self._send(chunk, on_delivered)
                self._raise_failures(len(decisions))
        finally:
            self._producer.flush(DELIVERY_SECONDS)
        self._raise_failures(len(decisions))
        return self.delivered

    def _send(self, chunk: Sequence[ReplayDecision], on_delivered: Callable[[], None]) -> None:
        found = self._read(chunk)
        for decision in chunk:
            message = found.pop(decision.letter.position, None)
            if message is None:  # deleted meanwhile, by the topic's retention or by hand
                self._failed["gone from the dead-letter topic"] += 1
                continue
            self._wait()
            self._produce(message, decision, on_delivered)

    def _read(self, chunk: Sequence[ReplayDecision]) -> dict[LetterPosition, Message]:
        positions = {decision.letter.position for decision in chunk}
        ranges: OffsetRanges = {}
        for partition, offset in positions:
            first, end = ranges.get(partition, (offset, offset + 1))
            ranges[partition] = min(first, offset), max(end, offset + 1)
        found = {}
        for message in messages_within(self._settings, self._letters, ranges):
            position: Any = (message.partition(), message.offset())
            if position in positions:
                found[position] = message
        return found

    def _wait(self) -> None:
        """Wait to keep the rate; deliveries are handled meanwhile."""
        self._due = max(self._due, time.monotonic() - self._pause)  # a delay is not made up for
        while (left := self._due - time.monotonic()) > 0:
            self._producer.poll(min(left, 0.1))
        self._due += self._pause

    def _produce(self, message: Message, decision: ReplayDecision, on_delivered: Callable[[], None]) -> None:
        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                self.delivered += 1
                on_delivered()
            else:
                self._refused(error)

        while True:
            try:
                self._producer.produce(
                    self._replays,
                    message.value(),
                    key_of(message),
                    headers=replay_headers(headers_of(message), decision),  # type: ignore[arg-type]
                    on_delivery=delivered,
                )
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                self._refused(error.args[0])
                return
            else:
                self._producer.poll(0)
                return

    def _refused(self, error: KafkaError) -> None:
        self._failed[name_of(error)] += 1
        if kind_of(error) in {ErrorKind.DEPLOYMENT, ErrorKind.SIZE}:
            self._refusal = refused_write("replay topic", self._replays, error)

    def _raise_failures(self, total: int) -> None:
        if not self._failed:
            return
        summary = f"{self.delivered} of {total} letters were sent to {self._replays}; run it again for the others"
        if self._refusal is not None:
            raise DeploymentFault(f"{summary}, when this is mended: {self._refusal}", self._refusal.code)
        raise DestinationFault(", ".join(sorted(self._failed)), summary)


def key_of(message: Message) -> bytes | None:
    """Give the key of a letter's message: a letter whose key is its origin was made of a message without one."""
    key = message.key()
    return None if key is not None and ("lovelace-origin", key) in headers_of(message) else key


def replay_headers(headers: Headers, decision: ReplayDecision) -> Headers:
    """Make a replay's headers: the message's own, its origin, and the items to process."""
    kept = [
        (name, value)
        for name, value in headers
        if name not in LETTER_HEADERS and not name.startswith("__connect.errors.")
    ]
    named = ", ".join(f"{run.first}-{run.last}:{run.reason}" for run in decision.items)
    ours: Headers = [
        ("lovelace-failed-items", named.encode()),
        ("lovelace-replays", str(decision.letter.replays + 1).encode()),
    ]
    return kept + ours


def _chunks(decisions: Sequence[ReplayDecision]) -> Iterator[list[ReplayDecision]]:
    chunk: list[ReplayDecision] = []
    size = 0
    for decision in decisions:
        if chunk and (len(chunk) >= CHUNK_LETTERS_MAX or size + decision.letter.bytes > CHUNK_BYTES_MAX):
            yield chunk
            chunk, size = [], 0
        chunk.append(decision)
        size += decision.letter.bytes
    if chunk:
        yield chunk


# -- the topic ---------------------------------------------------------------------------------------------------------


def make_topic(settings: KafkaSettings, name: str, like: str) -> None:
    """Make a topic that takes messages as large as those of topic `like`, or enlarge its limit.

    Raises `DeploymentFault` if it can't be made, `DestinationFault` if the broker is away. If the limit may not be
    changed, sending a letter that is too large fails.
    """
    admin = AdminClient(common_config(settings) | {"log_level": 0})
    try:
        largest = max_message_bytes(admin, like)
        topic = replay_topic(name, largest)
        if name not in admin.list_topics(timeout=REQUEST_SECONDS).topics:
            topic.make(admin)
        elif (fault := topic.judge(admin)) is not None:
            raise fault
        elif max_message_bytes(admin, name) < largest:
            set_max_message_bytes(admin, name, largest + REPLAY_HEADER_BYTES_MAX)
    except KafkaException as error:
        if kind_of(error) is ErrorKind.DEPLOYMENT:
            fault = replay_topic(name, largest).not_made(settings.brokers, error)
            raise DeploymentFault(f"{fault}, and start the workers again, which read it", fault.code) from None
        text = f"the broker {settings.brokers} (KAFKA_BROKERS) does not answer: start it, or correct its address"
        raise DestinationFault(name_of(error), text) from None
