"""Collects, holds, sends and settles dead letters.

A letter waits for three things: until every item of its message has an outcome (law 7), until `FailFast` lets it go
(law 5), and until the broker has acknowledged it; only then are its items settled (law 2). All of it goes on in
`serve`, because a letter must go out although its topic falls silent.
"""

from collections import deque
from typing import Any, cast

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from lovelace_streams.dead_letters.fail_fast import HELD_BYTES, STREAK_ITEMS_MAX, FailFast
from lovelace_streams.dead_letters.headers import letter_headers
from lovelace_streams.dead_letters.letter import PendingDeadLetter
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.kafka.client import common_config
from lovelace_streams.kafka.topic_ids import REQUEST_SECONDS
from lovelace_streams.observability import metrics, tracing
from lovelace_streams.records import DeadLetter, Envelope, Outcome, Settled
from lovelace_streams.sources.kafka import KafkaSource

log = structlog.get_logger(__name__)


ROOM = 64 * 1024
"""What a letter's headers may add to the source's largest message."""
FORBIDDEN = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
FINAL = FORBIDDEN | {KafkaError.POLICY_VIOLATION, KafkaError.INVALID_CONFIG, KafkaError.TOPIC_EXCEPTION}
"""Answers to making a topic that waiting does not change; all others come while brokers start."""
MESSAGE_MAX = 1_000_000_000
"""librdkafka's own bound of `message.max.bytes`."""


class DeadLetterSender:
    """Collects, holds, sends and settles letters; served by the source."""

    def __init__(self, source: KafkaSource, destination_steps: frozenset[str] = frozenset({"upsert"})) -> None:
        self._source = source
        self._destination_steps = destination_steps
        self._order: dict[str, int] = {}
        """Step → where it stands in the flow, learned from the first letter that it sends."""
        self._fail_fast: FailFast[DeadLetter] = FailFast(destination_steps, source.settings.accept_refusals)
        self._arrived: list[DeadLetter] = []
        self._letters: dict[tuple[int, int], PendingDeadLetter] = {}
        """Those of messages of which other items may still be on their way."""
        self._to_send: list[PendingDeadLetter] = []
        self._under_way: dict[int, PendingDeadLetter] = {}
        self._owed = 0
        """Bytes of the values that are to be sent or under way."""
        self._judged: frozenset[int] = frozenset()
        """The assignments that were current when it was judged last."""
        self._settled: deque[Envelope[Any]] = deque(maxlen=1000)
        self._counted: list[str] = []
        self._producer: Producer | None = None
        self._sending = tracing.OFF
        self._topic = ""
        self._passed_before = 0
        self._reached_before = 0
        self._topic_gone = False

    def take(self, letters: list[DeadLetter], order: int = 0) -> list[Settled]:
        """Take what failed in the step that is the `order`-th of the flow; give what has been acknowledged meanwhile.

        A name that two steps share stands where the first of them does: what that one refuses has passed neither.
        """
        for step in {letter.step for letter in letters}:
            self._order[step] = min(order, self._order.get(step, order))
        self._arrived += letters
        if not self._settled:
            return []
        settled = Settled(Outcome.DEAD_LETTERED, list(self._settled))
        self._settled.clear()
        return [settled]

    # -- what the source serves -----------------------------------------------------------------------------------

    def serve(self, *, idle: bool, between: bool) -> None:
        """Send what may go, settle what was acknowledged."""
        if self._producer is None and not self._open():
            return
        assert self._producer is not None
        if self._topic_gone:
            self._topic_gone = self._ready_topic() is None
        if between:
            self._judge(idle=idle)
        if between and not self._topic_gone:
            self._send()
        self._producer.poll(0)
        metrics.failures(self._source.pipeline, self._counted)
        self._counted.clear()
        if not self._under_way:
            self._sending.end()
            self._sending = tracing.OFF

    def unfinished(self) -> bool:
        """Letters that are held or not acknowledged yet."""
        return bool(self._arrived or self._letters or self._to_send or self._under_way)

    def revoke(self, seconds: float) -> None:
        """Have what is under way acknowledged; held letters are dropped, the next owner meets their records again."""
        if self._producer is not None and self._under_way:
            self._producer.flush(seconds)

    def full(self) -> bool:
        """Whether the broker owes us acknowledgements of a thousand letters, or of 64 MiB."""
        return len(self._to_send) + len(self._under_way) > STREAK_ITEMS_MAX or self._owed > HELD_BYTES

    def close(self) -> None:
        """A last chance for what is under way."""
        if self._producer is not None:
            self._producer.flush(1.0)

    # -- hold ------------------------------------------------------------------------------------------------------

    def _judge(self, *, idle: bool) -> None:
        """A window has been through every step: what may go, and is the deployment wrong?"""
        arrived, self._arrived = [*self._arrived, *self._source.take_failed()], []
        passed = self._passed(arrived)
        for step in passed:
            self._fail_fast.passed(step)
        current = self._source.in_flight.current
        if self._judged != current.keys():
            self._judged = frozenset(current)
            self._fail_fast.drop(lambda letter: letter.record.assignment not in current)
        for letter in arrived:
            if letter.record.assignment not in current:
                continue
            if letter.step in passed or letter.record.origin is not None:
                self._collect(letter)  # a replay was refused before: that says nothing of the deployment
            elif tripped := self._hold(letter):
                self._source.note(_wrong_deployment(tripped))
                return
        if (idle or self._source.draining_since is not None) and not self._source.carrying:
            self._fail_fast.idle()
        for letter in self._fail_fast.take():
            self._collect(letter)
        self._close_letters()

    def _passed(self, arrived: list[DeadLetter]) -> set[str]:
        """Steps that an item of the last window passed: all if it was written, the earlier if a later refused it."""
        totals = self._source.in_flight.totals
        through = totals[Outcome.WRITTEN] + totals[Outcome.SUPERSEDED]
        steps = self._fail_fast.steps | {letter.step for letter in arrived}
        passed = set(steps) if through > self._passed_before else set()
        self._passed_before = through
        if reached := self._source.reached:  # what is being written passed what lies before, and nothing more yet
            passed &= self._destination_steps
            passed |= steps - self._destination_steps if reached > self._reached_before else set()
            self._reached_before = reached
        last = max((self._place(letter.step) for letter in arrived), default=0)
        return passed | {step for step in steps if self._place(step) < last}

    def _place(self, step: str) -> float:
        """Where a step stands in the flow; one that only ever failed outside of a call is a destination's, the last."""
        return self._order.get(step, float("inf"))

    def _hold(self, letter: DeadLetter) -> tuple[str, ...] | None:
        record = letter.record
        return self._fail_fast.refused(
            letter,
            step=letter.step,
            cause=(letter.reason, letter.code, letter.detail),
            message=(record.assignment, record.offset),
            job=record.job,
            items=letter.count,
            size=len(record.value or b"") // max(1, record.items),
        )

    def _collect(self, failed: DeadLetter) -> None:
        record = failed.record
        if record.origin is None and failed.count == record.items:  # nothing else of its message: as most letters
            failures = dict.fromkeys(range(failed.item, failed.item + failed.count), failed.reason)
            self._close(PendingDeadLetter(record, failures, failed))
            return
        key = (record.assignment, record.offset)
        letter = self._letters.setdefault(key, PendingDeadLetter(record, {}, failed))
        items = record.origin.items if record.origin and failed.count > 1 else None
        for item in items or range(failed.item, failed.item + failed.count):
            letter.failures[item] = failed.reason

    def _close_letters(self) -> None:
        for key, letter in list(self._letters.items()):
            if not self._source.is_current(letter.record):
                del self._letters[key]
            elif letter.complete:
                del self._letters[key]
                self._close(letter)

    def _close(self, letter: PendingDeadLetter) -> None:
        self._to_send.append(letter)
        self._owed += letter.size

    # -- send ------------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        waiting, self._to_send = self._to_send, []
        if waiting and not self._under_way:  # a span until all of them are acknowledged
            self._sending = tracing.step("dead_letter", waiting[0].record, letters=len(waiting))
        for at, letter in enumerate(waiting):
            if not self._source.is_current(letter.record):
                self._owed -= letter.size
                continue
            try:
                self._produce(letter, letter.record.value)
            except BufferError:  # the local queue is full: the rest goes with the next call
                self._to_send += waiting[at:]
                return

    def _produce(self, letter: PendingDeadLetter, value: bytes | None) -> None:
        assert self._producer is not None

        def delivered(error: KafkaError | None, _message: Message) -> None:
            del self._under_way[id(letter)]
            if error is None:
                self._settle(letter)
            elif error.code() == KafkaError.MSG_SIZE_TOO_LARGE and value is not None:
                try:
                    self._produce(letter, None)
                except BufferError:
                    self._to_send.append(letter)
            else:
                if error.code() in FORBIDDEN:
                    self._source.note(_forbidden(self._topic, error))
                log.warning("a dead letter was not taken; trying again", error=error.name())
                self._to_send.append(letter)

        headers = letter_headers(letter, self._source, truncated=value is None and letter.record.value is not None)
        try:
            self._producer.produce(
                self._topic, value, letter.record.key, headers=cast("Any", headers), on_delivery=delivered
            )
        except KafkaException as error:
            if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE and value is not None:
                self._produce(letter, None)
            else:  # the topic was deleted under us: it is made again
                log.warning("a dead letter was not taken; trying again", error=error.args[0].name())
                self._to_send.append(letter)
                self._topic_gone = True
        else:
            self._under_way[id(letter)] = letter

    def _settle(self, letter: PendingDeadLetter) -> None:
        """The broker has it: its items are settled, here and at once, whether or not any step runs again."""
        self._owed -= letter.size
        failures: dict[int, str] = {item: reason.value for item, reason in letter.failures.items()}
        if self._source.in_flight.fail(letter.record, failures):
            self._counted += failures.values()
        self._settled.append(Envelope(letter.record, letter.first.item, None, letter.items))

    # -- the topic -------------------------------------------------------------------------------------------------

    def _open(self) -> bool:
        settings = self._source.settings
        self._topic = settings.dead_letter_topic or f"{self._source.pipeline}.dlq"
        largest = self._ready_topic()
        if largest is None:
            return False
        self._producer = self._source.outside.producer(
            common_config(
                settings,
                **{
                    "message.max.bytes": min(largest, MESSAGE_MAX),
                    "enable.idempotence": True,
                    "acks": "all",
                    "linger.ms": 5,
                    "compression.type": "lz4",
                    "delivery.timeout.ms": 120_000,
                },
            )
        )
        return True

    def _ready_topic(self) -> int | None:
        """See to it that the topic is there; answers its largest message, None while the broker can't say."""
        settings = self._source.settings
        try:
            return self._make_topic(self._source.outside.admin(common_config(settings)))
        except KafkaException as error:
            if error.args[0].code() not in FINAL:
                log.warning("waiting for the broker to make the dead-letter topic", error=error.args[0].name())
                return None
            self._source.note(
                DeploymentFault(
                    f"the dead-letter topic {self._topic!r} can't be made on {settings.brokers} "
                    f"({error.args[0].name()}): create it with retention.ms=-1, "
                    f"or set DEAD_LETTER_TOPIC to one that exists"
                )
            )
            return None

    def _make_topic(self, admin: AdminClient) -> int:
        """Make the topic unless it is there; answers the largest message that it takes."""
        largest = max((self._largest(admin, topic) for topic in self._source.topics), default=1_048_588) + ROOM
        if self._topic in admin.list_topics(timeout=REQUEST_SECONDS).topics:
            return max(largest, self._largest(admin, self._topic))
        config = {"retention.ms": "-1", "retention.bytes": "-1", "max.message.bytes": str(largest)}
        try:
            admin.create_topics([NewTopic(self._topic, num_partitions=1, config=config)])[self._topic].result(
                REQUEST_SECONDS
            )
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        return largest

    @staticmethod
    def _largest(admin: AdminClient, topic: str) -> int:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        try:
            described = admin.describe_configs([resource])[resource].result(REQUEST_SECONDS)
            return int(described["max.message.bytes"].value)
        except KafkaException as error:
            if error.args[0].code() not in FORBIDDEN:
                raise
            return 1_048_588  # not allowed to ask: the broker's default


def _forbidden(topic: str, error: KafkaError) -> DeploymentFault:
    return DeploymentFault(f"we may not write to the dead-letter topic {topic!r} ({error.name()}): allow it")


def _wrong_deployment(tripped: tuple[str, ...]) -> DeploymentFault:
    step, reason, code, rule = tripped
    cause = ", ".join(filter(None, (reason, code, rule)))
    return DeploymentFault(
        f"a thousand items in a row were refused by {step!r} for one cause ({cause}): that looks like a wrong "
        f"deployment, so none of those still held was dead-lettered. Mend it and start again; if they are to be "
        f"dead-lettered, start with ACCEPT_REFUSALS={reason}",
        code,
    )
