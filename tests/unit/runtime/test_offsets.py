"""A set of offsets against a plain set of integers: what a worker covers, and what the ledger counts."""

from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams.runtime.offsets import Offsets

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=40)


@given(SPANS)
def test_offsets_are_a_set_of_integers(spans: list[tuple[int, int]]) -> None:
    offsets, model = Offsets(), set[int]()
    for first, length in spans:
        added = set(range(first, first + length + 1))
        assert offsets.touches(first, first + length) == (not added.isdisjoint(model))
        assert offsets.add(first, first + length) == len(added - model), "only what is new counts"
        model |= added

        assert {n for first, last in offsets for n in range(first, last + 1)} == model
        assert sum(last + 1 - first for first, last in offsets) == len(model)

    intervals = list(offsets)
    assert list(Offsets(intervals)) == intervals
    assert all(a[1] + 1 < b[0] for a, b in zip(intervals, intervals[1:], strict=False)), "disjoint, not touching"
    for offset in range(75):
        assert (offset in offsets) == offsets.touches(offset, offset) == (offset in model)
        end = offset
        while end in model:
            end += 1
        assert offsets.end_of(offset) == end


@given(SPANS, st.integers(0, 75), st.integers(0, 75))
def test_a_range_touches_the_set_where_it_shares_an_offset(
    spans: list[tuple[int, int]], first: int, length: int
) -> None:
    ranges = [(first, first + length) for first, length in spans]
    model = {n for first, last in ranges for n in range(first, last + 1)}

    assert Offsets(ranges).touches(first, first + length) == any(n in model for n in range(first, first + length + 1))


def test_offsets_at_the_end_of_a_bigint_are_counted_exactly() -> None:
    offsets = Offsets()

    assert (offsets.add(0, 2**63 - 3), offsets.add(5, 2**63 - 2)) == (2**63 - 2, 1)
    assert list(offsets) == [(0, 2**63 - 2)]
