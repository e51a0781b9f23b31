"""What a source makes of headers that anybody may have written."""

import pytest

from lovelace_streams.headers import parse_origin


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
