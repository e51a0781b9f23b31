"""How a window is cut: nothing is lost, moved or cut through, and no batch is larger than it has to be."""

from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams.operators.batch import cut
from lovelace_streams.records import Envelope, Record
from lovelace_streams.settings import BatchPolicy


def envelope(rows: int, size: int) -> Envelope:
    record = Record("t", 0, 0, 0, 1, None, b"x" * size, [], -1, items=1)
    return Envelope(record, 0, tuple(range(rows)) if rows != 1 else "row")


def rows_of(each: Envelope) -> int:
    return len(each.payload) if isinstance(each.payload, tuple) else 1


@given(
    window=st.lists(st.builds(envelope, st.integers(1, 5), st.integers(0, 60)), max_size=60),
    rows=st.integers(1, 12),
    size=st.integers(1, 200),
)
def test_a_window_is_cut_in_order_and_as_late_as_allowed(window: list[Envelope], rows: int, size: int) -> None:
    batches = list(cut(window, BatchPolicy(rows=rows, bytes=size)))

    assert [each for batch in batches for each in batch.envelopes] == window
    for batch in batches:
        count = sum(map(rows_of, batch.envelopes))
        taken = sum(len(each.record.value) for each in batch.envelopes)
        before = batch.envelopes[:-1]
        assert sum(map(rows_of, before)) < rows
        assert sum(len(each.record.value) for each in before) < size
        assert batch.reason == ("rows" if count >= rows else "bytes" if taken >= size else "window")
    assert all(batch.reason != "window" for batch in batches[:-1])


def test_a_chunk_shares_its_bytes_among_its_items() -> None:
    chunk = Record("t", 0, 0, 0, 1, None, b"x" * 1000, [], -1, items=100)

    batches = list(cut([Envelope(chunk, item, "row") for item in range(100)], BatchPolicy(rows=1000, bytes=500)))

    assert [(len(batch.envelopes), batch.reason) for batch in batches] == [(50, "bytes"), (50, "bytes")]


def test_no_window_gives_no_batch() -> None:
    assert list(cut([], BatchPolicy())) == []
