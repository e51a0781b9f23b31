"""What a source makes of headers that anybody may have written."""

from typing import Any, cast

import pytest

from lovelace_streams.kafka.headers import parse_origin, record_of, records_of
from lovelace_streams.observability.metrics import BAD_HEADERS
from lovelace_streams.runtime.in_flight import Assignment
from lovelace_streams.testing.broker import StoredMessage

JOB = [("lovelace-job-id", b"a"), ("lovelace-job-attempt", b"2"), ("lovelace-items", b"1")]
ODD = [
    JOB,
    JOB,
    [],
    JOB,
    [*JOB, ("traceparent", b"00-1")],
    [*JOB[:2], ("lovelace-items", b"3")],
    [("lovelace-job-id", b"b")],
    [("lovelace-job-id", b"b"), ("lovelace-job-id", b"c")],
    [("lovelace-job-id", None)],
    [("lovelace-job-id", b"no job")],
    [("lovelace-job-id", b"no job")],
    [("lovelace-origin", b"id/t/0/7"), ("lovelace-failed-items", b"0-1:check")],
    [("lovelace-origin", b"id/t/0/8"), ("lovelace-failed-items", b"0-1:check")],
    JOB,
]


def messages(headers: list[Any], topic: str) -> list[Any]:
    return [StoredMessage((topic, 0), n, n, b"%d" % n, b"key", each, 1000 + n) for n, each in enumerate(headers)]


@pytest.mark.parametrize("topic", ["t", "flow.replay"])
def test_each_message_says_what_its_own_headers_say(topic: str) -> None:
    alone = [
        record_of(message, Assignment(4, topic, "id", 0, 0, message.offset(), 0)) for message in messages(ODD, topic)
    ]
    together = records_of(messages(ODD, topic), Assignment(4, topic, "id", 0, 0, 0, 0))

    assert together == alone
    assert [record.job for record in together] == ["a", "a", None, "a", "a", "a", "b", "c", *[None] * 5, "a"]
    assert [record.headers for record in together] == ODD
    assert [record.origin.offset for record in together if record.origin] == ([7, 8] if topic == "flow.replay" else [])


def test_what_was_read_before_is_not_read_again_and_gaps_are_said() -> None:
    kept = [message for message in messages([JOB] * 9, "t") if message.offset() != 6]

    records = records_of(kept, Assignment(4, "t", "id", 0, 0, 4, 0))

    assert [(record.after, record.offset) for record in records] == [(4, 4), (5, 5), (6, 7), (8, 8)]


def test_a_header_that_is_not_valid_is_counted_for_every_message() -> None:
    counter = cast("Any", BAD_HEADERS.labels("lovelace-job-id"))._value
    before = counter.get()

    records_of(messages([[("lovelace-job-id", b"no job")]] * 5, "t"), Assignment(4, "t", "id", 0, 0, 0, 0))

    assert counter.get() == before + 5


def test_an_origin_as_a_letter_names_it() -> None:
    origin = parse_origin(b"a-b_c/topic.x/3/42", b"1700000000000", b"0-1:check, 7-7:null")

    assert origin is not None
    assert (origin.topic_id, origin.topic, origin.partition, origin.offset) == ("a-b_c", "topic.x", 3, 42)
    assert (origin.timestamp, origin.items) == (1700000000000, (0, 1, 7))


@pytest.mark.parametrize(
    ("origin", "items"),
    [
        (b"/t/3/42", b"0-0:check"),
        (b"id/t/99999999999/42", b"0-0:check"),
        (b"id/t/-1/42", b"0-0:check"),
        (b"id/t/0/9223372036854775807", b"0-0:check"),
        (b"id/t/0/1", b"0-30000000:x"),
        (b"id/t/0/1", b"5-2:x"),
        (b"id/t", b"0-0:check"),
        (b"\xff/t/0/1", b"0-0:check"),
        (b"x" * 256 + b"/t/0/1", b"0-0:check"),
        (b"a\nb/t/0/1", b"0-0:check"),
        (b"id/t/2147483647/1", b"0-0:check"),
    ],
)
def test_an_origin_that_cannot_be_is_none(origin: bytes, items: bytes) -> None:
    assert parse_origin(origin, b"1", items) is None
