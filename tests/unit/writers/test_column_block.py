"""A block of columns is a sequence of the same entries, and its columns are theirs."""

from operator import attrgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams import Row
from lovelace_streams.columns import Part, Slice
from lovelace_streams.writers import Entry, sequence_of
from lovelace_streams.writers.column_block import ColumnBlock
from tests.columns import column_block


class One(Row, table="t", primary_key="id"):
    id: int
    text: str = ""


class Two(Row, table="t", primary_key="id"):
    text: str = ""
    id: int
    more: int = 0


ONE = st.builds(One, id=st.integers(0, 9), text=st.sampled_from("ab"))
ROWS = ONE | ONE | st.builds(Two, id=st.integers(0, 9))
PLACES = st.tuples(st.integers(0, 9), st.integers(0, 3))
DRAWN = st.lists(
    st.builds(
        lambda row, place, replayed: Entry(row, replayed, sequence_of(*place)),
        ROWS,
        PLACES,
        st.sampled_from([False] * 9 + [True]),
    ),
    min_size=1,
)
ENTRIES = DRAWN | DRAWN.map(lambda entries: sorted(entries, key=attrgetter("sequence")))


@given(ENTRIES)
def test_its_columns_are_those_of_its_entries(entries: list[Entry]) -> None:
    block = column_block(entries)

    assert list(block) == entries
    assert len(block) == len(entries)
    assert block.sequences == [entry.sequence for entry in entries]
    assert block.classes == [type(entry.row) for entry in entries]
    assert list(block.column("id")) == [entry.row.id for entry in entries]
    names = {name for entry in entries for name in entry.row.__struct_fields__}
    common = {name for name in names if all(hasattr(entry.row, name) for entry in entries)}
    assert {name: list(values) for name, values in block.columns.items()} == {
        name: [getattr(entry.row, name) for entry in entries] for name in common
    }


@given(ENTRIES)
def test_rows_that_are_gathered_are_the_same_rows(entries: list[Entry]) -> None:
    gathered = column_block(entries).gathered()
    assert sorted(gathered, key=repr) == sorted(entries, key=repr)
    assert sorted(gathered.sequences) == sorted(map(attrgetter("sequence"), entries))


@given(ENTRIES, st.integers(1, 5))
def test_slices_may_begin_and_end_within_a_message(entries: list[Entry], size: int) -> None:
    cut: list[Part] = []
    for part in column_block(entries).parts:
        if isinstance(part, Slice):
            starts = range(part.start, part.stop, size)
            cut += [Slice(part.columns, start, min(start + size, part.stop)) for start in starts]
        else:
            cut.append(part)
    block = ColumnBlock(cut)
    assert list(block) == entries
    assert block.sequences == [entry.sequence for entry in entries]


@pytest.mark.parametrize("row", [One, Two])
def test_classes_that_take_turns_are_a_slice_each_once_they_are_gathered(row: type[Row]) -> None:
    entries = [Entry((One, Two)[n % 2](id=n), sequence=sequence_of(n, 0)) for n in range(100)]
    block = column_block(entries)
    assert len(block.parts) == 100

    gathered = block.gathered()
    assert [(part.start, part.stop) for part in gathered.parts if isinstance(part, Slice)] == [(0, 50), (0, 50)]
    assert [entry.row.id for entry in gathered if type(entry.row) is row] == [*range(row is Two, 100, 2)]
