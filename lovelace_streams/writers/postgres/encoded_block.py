"""A block of entries beside its rows as they are sent, which were worked out while another block was written."""

from collections.abc import Iterator, Sequence
from typing import overload

from lovelace_streams.writers import Entry
from lovelace_streams.writers.column_block import PreparedBlock
from lovelace_streams.writers.postgres.grouping import BlockStatements, UniformRows


class SomeEntries(Sequence[Entry]):
    """Some entries of a block, which are made when somebody looks at one."""

    def __init__(self, block: Sequence[Entry], indexes: Sequence[int]) -> None:
        self._block = block
        self._indexes = indexes

    def __len__(self) -> int:
        return len(self._indexes)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(index, slice):
            indexes = self._indexes[index]
            if len(indexes) == 1:
                return self._block[indexes[0] : indexes[0] + 1]
            return SomeEntries(self._block, indexes)
        return self._block[self._indexes[index]]

    def __iter__(self) -> Iterator[Entry]:
        return map(self._block.__getitem__, self._indexes)


class EncodedBlock(PreparedBlock):
    """A block with its rows as uniform ones, a group for each class and set of absent columns, encoded ahead.

    There are none if they have to go another way, or could not be encoded.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        super().__init__(entries)
        self.groups: Sequence[UniformRows] = ()
        self.statements: BlockStatements | None = None
        """The statements that write them, if they were worked out ahead."""
