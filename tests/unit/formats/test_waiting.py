"""A decoder that asks somebody, on a clock that the test turns."""

from types import SimpleNamespace
from typing import Any

from lovelace_streams.formats.waiting import WaitingDecoder
from lovelace_streams.records import Envelope, Record

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
