"""Write a block over several connections at the same time (`POSTGRES_POOL`); a key always takes the same connection.

The rows of a block are partitioned by key, so rows of one key stay in order. Each writer writes its partition in
transactions of at most `block_rows`: while one waits for its commit to reach the disk, the others work. This is only
for tables where nothing depends on the order of rows of different keys, or on rows that are not committed yet
(`TargetTable.key_independent`). All other tables take one connection.
"""

from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple, Protocol

from lovelace_streams.writers import Entry, RowResult, superseded
from lovelace_streams.writers.postgres.grouping import TargetTable

ROWS_MIN = 100
"""Fewer rows are not worth a partition, nor a transaction: to hand them over costs as much as to write them."""
CALL_ROWS = 2000
"""Rows of one call where transactions are smaller. They have one deadline, even if all go to one connection."""


class ConnectionWriter(Protocol):
    """Writes over one connection."""

    def encode_alone(self, block: Sequence[Entry]) -> Sequence[Entry]: ...

    def write_alone(self, block: Sequence[Entry]) -> list[RowResult]: ...


class TransactionRows(NamedTuple):
    """The rows of one transaction, and their indexes in the block."""

    indexes: list[int]
    block: Sequence[Entry]


class PartitionedBlock(list[Entry]):
    """A block with its keys, the writers that it is partitioned for, and the transactions of each writer."""

    __slots__ = ("keys", "partitions", "writers")

    def __init__(
        self,
        entries: Sequence[Entry],
        keys: Sequence[Hashable],
        writers: "ParallelWriters",
        partitions: list[list[TransactionRows]],
    ) -> None:
        super().__init__(entries)
        self.keys = keys
        self.writers = writers
        self.partitions = partitions


def partition_indexes(keys: Iterable[Hashable], writers: int, rows_max: int) -> list[list[list[int]]]:
    """Return for each writer its transactions: the indexes of their rows, in the order given.

    >>> sorted([len(rows) for rows in writer] for writer in partition_indexes([8] * 5, writers=2, rows_max=2))
    [[], [2, 2, 1]]
    """
    partitions: list[list[int]] = [[] for _ in range(writers)]
    for index, key in enumerate(keys):
        partitions[hash((key,)) % writers].append(index)  # an int is its own hash, and ids often grow in steps
    return [[indexes[at : at + rows_max] for at in range(0, len(indexes), rows_max)] for indexes in partitions]


class ParallelWriters:
    """Writers of one connection each, which are open: the first in the caller's thread, the others in their own."""

    def __init__(self, writers: Sequence[ConnectionWriter], block_rows: int) -> None:
        self._writers = writers
        self._rows_max = max(block_rows, ROWS_MIN)
        self._threads = ThreadPoolExecutor(len(writers) - 1, thread_name_prefix="parallel-writer")

    def partition(self, block: Sequence[Entry], table: TargetTable) -> PartitionedBlock | None:
        """Partition and encode a block; None if its rows are too few, or a key is not of its declared type."""
        if len(block) < ROWS_MIN or (keys := table.partition_keys(block)) is None:
            return None
        partitions = partition_indexes(keys, len(self._writers), self._rows_max)
        return PartitionedBlock(
            block,
            keys,
            self,
            [
                [
                    TransactionRows(indexes, writer.encode_alone([block[index] for index in indexes]))
                    for indexes in transactions
                ]
                for writer, transactions in zip(self._writers, partitions, strict=True)
            ],
        )

    def write(self, block: PartitionedBlock) -> list[RowResult]:
        """Return the results of all rows when all writers are done. Raises what one of them raised."""
        own, *others = zip(self._writers, block.partitions, strict=True)
        futures: list[Future[list[list[RowResult]]]] = [self._threads.submit(_write, *other) for other in others]
        try:
            results = [_write(*own)]
        finally:
            wait(futures)  # or a thread would still be writing when its rows are tried again
        results += [future.result() for future in futures]
        by_index: dict[int, RowResult] = {}
        for transactions, written in zip(block.partitions, results, strict=True):
            for rows, found in zip(transactions, written, strict=True):
                by_index.update(zip(rows.indexes, found, strict=True))
        return superseded([by_index[index] for index in range(len(block))], block.keys)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False)


def _write(writer: ConnectionWriter, transactions: Sequence[TransactionRows]) -> list[list[RowResult]]:
    return [writer.write_alone(rows.block) for rows in transactions]
