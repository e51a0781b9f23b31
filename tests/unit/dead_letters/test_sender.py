"""What a dead letter says of itself, and that it comes back as it went."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams.dead_letters.fail_fast import HELD_BYTES_MAX
from lovelace_streams.dead_letters.headers import FAILED_ITEMS_BYTES_MAX, failed_items_header, letter_headers
from lovelace_streams.dead_letters.letter import PendingDeadLetter
from lovelace_streams.dead_letters.sender import DeadLetterSender
from lovelace_streams.kafka.headers import parse_origin
from lovelace_streams.records import DeadLetter, Origin, Outcome, Reason, Record
from lovelace_streams.settings import KafkaSettings
from lovelace_streams.sources.kafka import KafkaSource
from lovelace_streams.testing.broker import Broker, MemoryProducer

SECRET = b"a value that is nobody's business"


def source() -> KafkaSource:
    made = KafkaSource(KafkaSettings("127.0.0.1:9092"), topics=["raw"])
    made.in_flight.assign("raw", "T-1", 2, 77)
    return made


def letter(failures: dict[int, Reason], *, origin: Origin | None = None, headers=None) -> PendingDeadLetter:
    record = Record("raw", 2, 77, 77, 1, SECRET, SECRET, headers or [], 1_700_000_000_000, items=3, origin=origin)
    first = DeadLetter(record, min(failures), 1, "normalize", Reason.NULL, "expected int, got null at $.d.id")
    return PendingDeadLetter(record, failures, first)


def test_headers_are_the_original_ones_kafka_connects_and_ours() -> None:
    original = [
        ("trace", b"1"),
        ("lovelace-job-id", b"j"),
        ("trace", b"2"),
        ("lovelace-reason", b"stale"),
        ("nil", None),
    ]

    headers = letter_headers(letter({0: Reason.NULL, 1: Reason.NULL, 7: Reason.CHECK}, headers=original), source())

    assert headers[:4] == [("trace", b"1"), ("lovelace-job-id", b"j"), ("trace", b"2"), ("nil", None)]
    assert dict(headers[4:]) == {
        "__connect.errors.topic": b"raw",
        "__connect.errors.partition": b"2",
        "__connect.errors.offset": b"77",
        "__connect.errors.stage": b"normalize",
        "__connect.errors.exception.class.name": b"lovelace_streams.errors.RecordFault.null",
        "lovelace-origin": b"T-1/raw/2/77",
        "lovelace-origin-timestamp": b"1700000000000",
        "lovelace-failed-items": b"0-1:null, 7-7:check",
        "lovelace-reason": b"null",
        "lovelace-detail": b"expected int, got null at $.d.id",
        "lovelace-step": b"normalize",
        "lovelace-replays": b"0",
    }
    assert SECRET not in b"".join(value or b"" for _, value in headers)
    assert len({name for name, _ in headers[4:]}) == len(headers[4:])


@pytest.mark.parametrize("code", ["23514", "MY001", "349"])
def test_a_letter_carries_the_code_of_the_destination_that_refused_its_item(code: str) -> None:
    refused = letter({0: Reason.CHECK})
    refused.first.code = code

    assert dict(letter_headers(refused, source()))["lovelace-code"] == code.encode()


def test_a_value_that_did_not_fit_is_named_by_its_size() -> None:
    headers = dict(letter_headers(letter({0: Reason.NULL}), source(), truncated=True))

    assert headers["lovelace-truncated"] == str(len(SECRET)).encode()


def test_a_replay_keeps_where_it_came_from_and_counts_itself() -> None:
    origin = Origin("T-0", "older", 5, 6, 123, (1,))

    headers = dict(
        letter_headers(letter({1: Reason.CHECK}, origin=origin, headers=[("lovelace-replays", b"3")]), source())
    )

    assert headers["lovelace-origin"] == b"T-0/older/5/6"
    assert headers["lovelace-origin-timestamp"] == b"123"
    assert headers["__connect.errors.topic"] == b"raw"
    assert headers["lovelace-replays"] == b"3"


@given(st.dictionaries(st.integers(0, 99_999), st.sampled_from(list(Reason)), min_size=1, max_size=300))
def test_what_failed_comes_back_from_the_headers(failures: dict[int, Reason]) -> None:
    headers = dict(letter_headers(letter(failures), source()))

    origin = parse_origin(
        headers["lovelace-origin"], headers["lovelace-origin-timestamp"], headers["lovelace-failed-items"]
    )

    assert origin == Origin("T-1", "raw", 2, 77, 1_700_000_000_000, tuple(sorted(failures)))


def test_too_many_names_end_with_how_many_more_and_still_come_back() -> None:
    failures = dict.fromkeys(range(0, 99999, 2), Reason.HARMS_DESTINATION)

    text = failed_items_header(failures)

    assert len(text.encode()) <= FAILED_ITEMS_BYTES_MAX
    named = text.count("harms_destination")
    assert text.endswith(f", …{len(failures) - named} more")
    origin = parse_origin(b"T/raw/0/1", b"5", text.encode())
    assert origin is not None, "a letter that names only some is a replay all the same"
    assert origin.items == tuple(sorted(failures))[:named]


def test_a_topic_may_have_slashes_in_no_place_and_headers_that_are_not_ours_are_none() -> None:
    assert parse_origin(b"T/raw/0", b"5", b"") is None
    assert parse_origin(b"\xff/raw/0/1", b"5", b"") is None
    assert parse_origin(b"T/raw/x/1", b"5", b"") is None


def test_nothing_more_is_read_while_a_thousand_letters_or_too_many_bytes_of_them_are_owed() -> None:
    """What is owed is counted as it comes and goes: acknowledged, or not ours to send any more."""
    for size, letters in ((1, 1001), (HELD_BYTES_MAX // 10, 11)):
        held = source()
        sender = DeadLetterSender(held)
        sender._producer, sender._topic = MemoryProducer(broker := Broker(lambda: None)), "raw.dlq"
        sender.take([refused(held, size) for _ in range(letters)])
        sender.serve(idle=True, between_windows=False)
        assert not sender.full(), "what is not judged yet is bounded by its window"

        sender._release_letters(idle=True)
        assert sender.full()
        sender.serve(idle=True, between_windows=True)
        assert not sender.full()
        assert len(broker.logs["raw.dlq", 0]) == held.in_flight.totals[Outcome.DEAD_LETTERED] == letters
        [settled] = sender.take([])
        assert sum(envelope.count for envelope in settled.envelopes) == min(letters, 1000)

        sender.take([refused(held, size) for _ in range(letters)])
        sender._release_letters(idle=True)
        held.in_flight.end("raw", 2)
        sender.serve(idle=True, between_windows=True)
        assert not sender.full()
        assert not sender.unfinished()
        assert len(broker.logs["raw.dlq", 0]) == letters, "the next owner meets them again"


def test_what_a_later_step_refuses_has_passed_the_earlier_ones() -> None:
    """Whatever the steps are called: their order is that of the ports handed to `dead_letter`."""
    held = source()
    sender = DeadLetterSender(held)
    sender._producer, sender._topic = MemoryProducer(broker := Broker(lambda: None)), "raw.dlq"

    sender.take([refused(held, 1, step="validate")], 0)
    sender.serve(idle=False, between_windows=True)
    assert ("raw.dlq", 0) not in broker.logs, "nothing has passed `validate` yet"
    sender.take([refused(held, 1, step="score")], 1)
    sender.serve(idle=False, between_windows=True)

    sent = [dict(message.headers())["lovelace-step"] for message in broker.logs["raw.dlq", 0]]
    assert sent == [b"validate"]


def refused(held: KafkaSource, size: int, step: str = "upsert") -> DeadLetter:
    [assignment] = held.in_flight.current.values()
    at = assignment.next
    record = Record("raw", 2, at, at, assignment.number, None, bytes(size), [], 5, items=1)
    held.in_flight.read(record)
    return DeadLetter(record, 0, 1, step, Reason.CHECK, f"rule {at % 7}", "23514")


class Refusing:
    """A producer whose broker refuses every message, by `error`, until that is None."""

    def __init__(self, broker: Broker, error: KafkaError | None, *, at_once: bool) -> None:
        self.inner = MemoryProducer(broker)
        self.error = error
        self.at_once = at_once
        self.tries = 0
        self._refused: list[Any] = []

    def produce(self, *message: Any, on_delivery: Any, headers: Any) -> None:
        self.tries += 1
        if self.error is None:
            self.inner.produce(*message, on_delivery=on_delivery, headers=headers)
        elif self.at_once:
            raise KafkaException(self.error)
        else:
            self._refused.append(on_delivery)

    def poll(self, seconds: float = 0) -> int:
        refused, self._refused = self._refused, []
        for on_delivery in refused:
            on_delivery(self.error, None)
        return self.inner.poll(seconds)

    def flush(self, seconds: float = -1) -> int:
        return self.poll(seconds)


def refusing(code: int, *, at_once: bool, letters: int = 5) -> tuple[DeadLetterSender, Refusing, list[float]]:
    """A sender of some letters, its producer, and its clock."""
    held, clock = source(), [0.0]
    sender = DeadLetterSender(held, clock=lambda: clock[0])
    sender._topic = "raw.dlq"
    producer = Refusing(Broker(lambda: None), KafkaError(code), at_once=at_once)
    sender._producer = producer  # type: ignore[assignment]
    sender.take([refused(held, 1) for _ in range(letters)])
    return sender, producer, clock


FINAL = ["INVALID_RECORD", "INVALID_TIMESTAMP", "INVALID_REQUIRED_ACKS", "POLICY_VIOLATION", "_FATAL"]
FINAL += ["TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED", "UNSUPPORTED_COMPRESSION_TYPE"]
PASSING = ["NOT_ENOUGH_REPLICAS", "_MSG_TIMED_OUT", "_TRANSPORT", "KAFKA_STORAGE_ERROR", "THROTTLING_QUOTA_EXCEEDED"]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("name", FINAL)
def test_what_waiting_does_not_change_stops_the_worker_and_names_the_topic(name: str, at_once: bool) -> None:
    sender, producer, _ = refusing(getattr(KafkaError, name), at_once=at_once)

    for _ in range(10):
        sender.serve(idle=True, between_windows=True)

    fault = sender._context.fault
    assert fault is not None
    assert "raw.dlq" in str(fault)
    assert name in str(fault)
    assert "\n" not in str(fault)
    assert producer.tries <= 5


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_tried_less_and_less_often_and_then_sent(name: str) -> None:
    sender, producer, clock = refusing(getattr(KafkaError, name), at_once=False, letters=1)

    for tenth in range(600):  # a minute, ten rounds a second
        clock[0] = tenth / 10
        sender.serve(idle=True, between_windows=True)
    assert sender._context.fault is None
    assert 5 <= producer.tries <= 25
    producer.error = None
    for tenth in range(600, 750):
        clock[0] = tenth / 10
        sender.serve(idle=True, between_windows=True)

    assert sender._context.in_flight.totals[Outcome.DEAD_LETTERED] == 1
    assert not sender.unfinished()


def test_a_letter_that_is_too_large_without_its_value_stops_the_worker() -> None:
    sender, producer, _ = refusing(KafkaError.MSG_SIZE_TOO_LARGE, at_once=True, letters=1)

    sender.serve(idle=True, between_windows=True)

    assert producer.tries == 2
    assert "max.message.bytes" in str(sender._context.fault)
