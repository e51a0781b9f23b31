"""A decoder that asks somebody, on a clock that the test turns."""

from types import SimpleNamespace
from typing import Any

from lovelace_streams.columns import Chunk, Columns, Mapped, Run, Slice
from lovelace_streams.errors import DestinationFault
from lovelace_streams.formats.decoder import sort_chunks
from lovelace_streams.formats.waiting import WaitingDecoder
from lovelace_streams.records import Envelope, Record, envelopes_of
from lovelace_streams.rows import Row

SECONDS = 4.0
"""What each record's question takes."""


def test_however_many_slow_questions_a_window_has_the_membership_lives_on() -> None:
    now = 0.0
    kept: list[float] = []
    decoded: list[int] = []

    def decode(record: Record, *_: Any) -> None:
        nonlocal now
        now += SECONDS
        decoded.append(record.offset)

    def keep_alive(_seconds: float) -> bool:
        kept.append(now)
        source.ending = len(kept) == 5
        return not source.ending

    source = SimpleNamespace(pipeline="orders", ending=False, keep_alive=keep_alive)
    window = [Envelope(Record("t", 0, n, n, 0, None, b"", [], 0), 0, b"") for n in range(100)]
    decoder = SimpleNamespace(decode=decode, waits=True)
    waiting = WaitingDecoder(decoder, source, on_wait=lambda *_: None, clock=lambda: now)  # type: ignore[arg-type]
    waiting.sort(window)

    assert max(after - before for before, after in zip([0.0, *kept], kept, strict=False)) <= SECONDS + 1
    assert decoded == list(range(5))  # the worker ends: the rest is read again


class Order(Row, table="orders", primary_key="id"):
    id: int


def chunk_of(topic: str, left: list[int]) -> Chunk:
    """Ten messages, which a loop maps but for some."""
    chunk = Chunk(topic, 0, 0, range(10), [None] * 10, [b""] * 10, [0] * 10, [Run(0, 10, 0, 0, [])])
    places = [place for place in range(10) if place not in left]
    columns = Columns(chunk, Order, {"id": places}, places)
    chunk.loop = lambda *_: Mapped([Slice(columns, 0, 4), Slice(columns, 4, len(places))], left)
    return chunk


def test_nothing_of_a_chunk_passes_a_message_that_is_not_waited_for() -> None:
    """Without a version the later row wins: what is read again must not come after what stood behind it."""

    def decode(record: Record, oks: list[Any], *_: Any) -> None:
        if record.offset == 6:
            raise DestinationFault("down", "the registry")
        oks.append(Envelope(record, 0, Order(id=record.offset)))

    source = SimpleNamespace(ending=True, keep_alive=lambda *_: False)
    decoder = SimpleNamespace(decode=decode, waits=True)
    waiting = WaitingDecoder(decoder, source, on_wait=lambda *_: None)  # type: ignore[arg-type]
    window = [chunk_of("first", [3]), chunk_of("second", [1, 6, 7]), chunk_of("third", []), chunk_of("fourth", [0])]
    passed = envelopes_of(sort_chunks(waiting.sort, window).oks)

    assert [each.payload.id for each in passed if each.record.topic == "first"] == list(range(10))
    assert [each.payload.id for each in passed if each.record.topic == "second"] == list(range(6))
    assert {each.record.topic for each in passed} == {"first", "second"}
