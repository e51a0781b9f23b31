"""Send dead letters to their topic, and settle their items when the broker has acknowledged them (law 2).

It is done in `serve`, because a letter must be sent although its topic is silent and no step runs.
"""

import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from lovelace_streams.dead_letters.collector import DeadLetterCollector
from lovelace_streams.dead_letters.fail_fast import HELD_BYTES_MAX, STREAK_ITEMS_MAX
from lovelace_streams.dead_letters.headers import letter_headers
from lovelace_streams.dead_letters.letter import LetterState, PendingDeadLetter
from lovelace_streams.kafka.admin import MAX_MESSAGE_BYTES_DEFAULT, max_message_bytes
from lovelace_streams.kafka.client import common_config
from lovelace_streams.kafka.faults import ErrorKind, Refusals, kind_of, name_of, refused_write
from lovelace_streams.kafka.own_topics import OwnTopic, dead_letter_topic
from lovelace_streams.kafka.topic_ids import REQUEST_SECONDS
from lovelace_streams.observability import metrics, tracing
from lovelace_streams.records import DeadLetter, Envelope, Outcome, Settled
from lovelace_streams.runtime.backoff import Backoff
from lovelace_streams.runtime.service import Service
from lovelace_streams.runtime.worker import WorkerContext

log = structlog.get_logger(__name__)

HEADER_BYTES_MAX = 64 * 1024
"""How many bytes a letter's headers may add to the source's largest message."""
MESSAGE_BYTES_MAX = 1_000_000_000
"""librdkafka's own bound of `message.max.bytes`."""
DELIVERY_MS = 120_000
"""How long librdkafka tries to deliver a letter before it reports a failure."""
TOPIC_IS_GONE = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}  # noqa: SLF001
)


class DeadLetterSender(Service):
    """Sends the letters that the collector releases, and waits for the broker's acknowledgements.

    `erasable`: the topic is compacted, so that letters can be erased by their key, and keeps them for this time.
    """

    def __init__(
        self,
        context: WorkerContext,
        destination_steps: frozenset[str] = frozenset({"upsert"}),
        erasable: timedelta | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self.erasable = erasable
        """How long letters that can be erased by their key are kept; None if they can't."""
        self._clock = clock
        self._refusals = Refusals(context.settings.brokers, clock)
        self._backoff = Backoff()
        self._failures = 0
        self._try_at = float("-inf")
        """Nothing is sent, and the topic is not asked for, before this time."""
        self._collector = DeadLetterCollector(context, destination_steps)
        self._queue: list[PendingDeadLetter] = []
        self._in_flight: dict[int, PendingDeadLetter] = {}
        """Letters that are `SENT`, by identity."""
        self._unacknowledged_bytes = 0
        """Bytes of the values that are queued or sent."""
        self._settled: deque[Envelope[Any]] = deque(maxlen=1000)
        self._reasons_to_count: list[str] = []
        self._producer: Producer | None = None
        self._span = tracing.OFF
        self._topic = ""
        self._topic_is_gone = False

    def take(self, letters: list[DeadLetter], order: int = 0) -> list[Settled]:
        """Take items that failed in the `order`-th step of the flow; returns those acknowledged since the last call."""
        self._collector.take(letters, order)
        if not self._settled:
            return []
        settled = Settled(Outcome.DEAD_LETTERED, list(self._settled))
        self._settled.clear()
        return [settled]

    # -- as a service ---------------------------------------------------------------------------------------------

    def serve(self, *, idle: bool, between_windows: bool) -> None:
        """Send the letters that may be sent, settle those that were acknowledged."""
        waits = self._clock() < self._try_at
        if self._producer is None and (waits or not self._open()):
            return
        assert self._producer is not None
        if self._topic_is_gone and not waits:
            self._topic_is_gone = self._topic_bytes_max() is None
        if between_windows:
            self._release_letters(idle=idle)
        if between_windows and not self._topic_is_gone and not waits:
            self._send()
        self._producer.poll(0)
        metrics.failures(self._context.pipeline, self._reasons_to_count)
        self._reasons_to_count.clear()
        if not self._in_flight:
            self._span.end()
            self._span = tracing.OFF

    def unfinished(self) -> bool:
        """Whether letters are collected, queued or not acknowledged. Held ones are in flight as records."""
        return bool(self._collector or self._queue or self._in_flight)

    def revoke(self, seconds: float) -> None:
        """Wait for acknowledgements; held items are dropped, because the next owner reads their records again."""
        if self._producer is not None and self._in_flight:
            self._producer.flush(seconds)

    def full(self) -> bool:
        """Whether more than a thousand letters or 64 MiB are not acknowledged."""
        letters = len(self._queue) + len(self._in_flight)
        return letters > STREAK_ITEMS_MAX or self._unacknowledged_bytes > HELD_BYTES_MAX

    def close(self) -> None:
        """Wait a second for the last acknowledgements."""
        if self._producer is not None:
            self._producer.flush(1.0)

    # -- sending --------------------------------------------------------------------------------------------------

    def _release_letters(self, *, idle: bool) -> None:
        for letter in self._collector.release(idle=idle):
            self._unacknowledged_bytes += letter.size
            self._enqueue(letter)

    def _enqueue(self, letter: PendingDeadLetter) -> None:
        letter.state = LetterState.QUEUED
        self._queue.append(letter)

    def _send(self) -> None:
        queue, self._queue = self._queue, []
        if queue and not self._in_flight:  # the span ends when all of them are acknowledged
            self._span = tracing.step("dead_letter", queue[0], letters=len(queue))
        for index, letter in enumerate(queue):
            if not self._context.is_current(letter.record):
                self._unacknowledged_bytes -= letter.size
                continue
            try:
                self._produce(letter, letter.record.value)
            except BufferError:  # the client's queue is full: the rest goes with the next call
                self._queue += queue[index:]
                return

    def _produce(self, letter: PendingDeadLetter, value: bytes | None) -> None:
        assert self._producer is not None

        def on_delivery(error: KafkaError | None, _message: Message) -> None:
            self._delivered(letter, value, error)

        truncated = value is None and letter.record.value is not None
        headers = letter_headers(letter, self._context, truncated=truncated)
        key = letter.record.key
        if key is None and self.erasable is not None:  # a compacted topic takes no message without a key
            key = dict(headers)["lovelace-origin"]
        try:
            self._producer.produce(self._topic, value, key, headers=cast("Any", headers), on_delivery=on_delivery)
        except KafkaException as error:
            self._refused(letter, value, error.args[0])
        else:
            letter.state = LetterState.SENT
            self._in_flight[id(letter)] = letter

    def _delivered(self, letter: PendingDeadLetter, value: bytes | None, error: KafkaError | None) -> None:
        """Handle the broker's answer: settle the letter's items, send it without its value, or send it again."""
        del self._in_flight[id(letter)]
        if error is not None:
            self._refused(letter, value, error)
            return
        self._failures = 0
        for kind in (ErrorKind.LOGIN, ErrorKind.GROUP):
            self._refusals.accepted(kind)
        self._settle(letter)

    def _refused(self, letter: PendingDeadLetter, value: bytes | None, error: KafkaError) -> None:
        """Send a letter again without its value if it is too large, else as it is, later and later."""
        if kind_of(error) is ErrorKind.SIZE and value is not None:
            try:
                self._produce(letter, None)
            except BufferError:
                self._enqueue(letter)
            return
        self._enqueue(letter)
        self._topic_is_gone = self._topic_is_gone or error.code() in TOPIC_IS_GONE  # then it is made again
        self._note(error, "a dead letter was not taken; trying again")

    def _note(self, error: KafkaError, event: str) -> None:
        """Stop the worker for an error that waiting does not change; else wait longer than the last time."""
        if kind_of(error) in {ErrorKind.DEPLOYMENT, ErrorKind.SIZE}:
            self._stop(error)
            return
        if (fault := self._refusals.hear(error)) is not None:
            login = kind_of(error) is ErrorKind.LOGIN
            self._context.note(fault if login else refused_write("dead-letter topic", self._topic, error))
        elif self._refusals.is_news(error):
            log.warning(event, topic=self._topic, error=name_of(error))
        if self._clock() >= self._try_at:  # many letters may be refused at once: that is one failure
            self._failures += 1
            self._try_at = self._clock() + self._backoff.seconds(self._failures)

    def _stop(self, error: KafkaError) -> None:
        self._context.note(refused_write("dead-letter topic", self._topic, error))
        self._try_at = float("inf")

    def _on_error(self, error: KafkaError) -> None:
        """Note what kills the producer, or keeps it from sending anything at all; its letters tell the rest."""
        if kind_of(error) is ErrorKind.DEPLOYMENT:
            self._stop(error)

    def _settle(self, letter: PendingDeadLetter) -> None:
        """Settle a letter's items at once: no step may run again if the topic is silent."""
        self._unacknowledged_bytes -= letter.size
        failures: dict[int, str] = {item: reason.value for item, reason in letter.failures.items()}
        if self._context.in_flight.fail(letter.record, failures):
            self._reasons_to_count += failures.values()
        self._settled.append(Envelope(letter.record, letter.first.item, None, letter.items))

    # -- the topic ------------------------------------------------------------------------------------------------

    def _open(self) -> bool:
        """Make the topic and a producer for it; returns False while the broker is away."""
        settings = self._context.settings
        self._topic = settings.dead_letter_topic or f"{self._context.pipeline}.dlq"
        bytes_max = self._topic_bytes_max()
        if bytes_max is None:
            return False
        self._producer = self._context.clients.producer(
            common_config(
                settings,
                **{
                    "message.max.bytes": min(bytes_max, MESSAGE_BYTES_MAX),
                    "enable.idempotence": True,
                    "acks": "all",
                    "linger.ms": 5,
                    "compression.type": "lz4",
                    "delivery.timeout.ms": DELIVERY_MS,
                    "error_cb": self._on_error,
                },
            )
        )
        return True

    def _topic_bytes_max(self) -> int | None:
        """Make the topic, or compare the one that exists; gives its largest message, None while it can't be used."""
        try:
            admin = self._context.clients.admin(common_config(self._context.settings))
            wanted = self._wanted(admin)
            topic = dead_letter_topic(self._topic, wanted, HEADER_BYTES_MAX, self.erasable)
            if self._topic not in admin.list_topics(timeout=REQUEST_SECONDS).topics:
                return self._made(admin, topic, wanted)
            if (fault := topic.judge(admin)) is not None:
                self._context.note(fault)
                return None
            return max(wanted, max_message_bytes(admin, self._topic))
        except KafkaException as error:
            self._note(error.args[0], "waiting for the broker to make the dead-letter topic")
            return None

    def _wanted(self, admin: AdminClient) -> int:
        """Give the bytes of the largest letter: the source's largest message, and its headers."""
        sources = (max_message_bytes(admin, topic) for topic in self._context.topics)
        return max(sources, default=MAX_MESSAGE_BYTES_DEFAULT) + HEADER_BYTES_MAX

    def _made(self, admin: AdminClient, topic: OwnTopic, wanted: int) -> int | None:
        """Make the topic; None where the broker chose its settings, so that they are compared, or refused it."""
        try:
            return wanted if topic.make(admin) else None
        except KafkaException as error:
            if kind_of(error) is not ErrorKind.DEPLOYMENT:
                raise
            self._context.note(topic.not_made(self._context.settings.brokers, error))
            return None
