"""Write a block over several connections at the same time (`POSTGRES_POOL`); a key always takes the same connection.

The rows of a block are partitioned by key, so rows of one key stay in order. Each writer writes its partition in
transactions of at most `block_rows`: while one waits for its commit to reach the disk, the others work. One thread
drives all connections, as long as each transaction is taken at the first attempt; what is left takes a thread a writer.

This is only for tables where nothing depends on the order of rows of different keys, or on rows that are not committed
yet (`TargetTable.key_independent`). All other tables take one connection.
"""

from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, Protocol

from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn

from lovelace_streams.writers import Entry, RowResult, superseded
from lovelace_streams.writers.column_block import PreparedBlock
from lovelace_streams.writers.postgres.encoded_block import EncodedBlock
from lovelace_streams.writers.postgres.grouping import TargetTable
from lovelace_streams.writers.postgres.together import together

ROWS_MIN = 100
"""Fewer rows are not worth a partition, nor a transaction: to hand them over costs as much as to write them."""
CALL_ROWS = 2000
"""Rows of one call where transactions are smaller. They have one deadline, even if all go to one connection."""


class ConnectionWriter(Protocol):
    """Writes over one connection."""

    @property
    def pgconn(self) -> PGconn: ...

    def encode_whole(self, block: Sequence[Entry]) -> EncodedBlock: ...

    def encode_some(self, block: EncodedBlock, rows: Sequence[int]) -> EncodedBlock: ...

    def first_attempts(self, blocks: Sequence[EncodedBlock]) -> PQGen[list[list[RowResult]]]: ...

    def write_alone(self, block: Sequence[Entry]) -> list[RowResult]: ...


class TransactionRows(NamedTuple):
    """The rows of one transaction, and their indexes in the block."""

    indexes: list[int]
    block: EncodedBlock


class PartitionedBlock(PreparedBlock):
    """A block with its keys, the writers that it is partitioned for, and the transactions of each writer."""

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


def partition_indexes(
    keys: Sequence[Hashable], writers: int, rows_max: int, order: Iterable[int] | None = None
) -> list[list[list[int]]]:
    """Return for each writer its transactions: the indexes of their rows, in the order given.

    >>> sorted([len(rows) for rows in writer] for writer in partition_indexes([8] * 5, writers=2, rows_max=2))
    [[], [2, 2, 1]]
    """
    partitions: list[list[int]] = [[] for _ in range(writers)]
    for index in range(len(keys)) if order is None else order:
        partitions[hash((keys[index],)) % writers].append(index)  # an int is its own hash, and ids often grow in steps
    return [[indexes[at : at + rows_max] for at in range(0, len(indexes), rows_max)] for indexes in partitions]


class ParallelWriters:
    """Writers of one connection each, which are open: the first in the caller's thread, the others in their own."""

    def __init__(self, writers: Sequence[ConnectionWriter], block_rows: int) -> None:
        self._writers = writers
        self._rows_max = max(block_rows, ROWS_MIN)
        self._threads = ThreadPoolExecutor(len(writers) - 1, thread_name_prefix="parallel-writer")

    def partition(self, block: Sequence[Entry], table: TargetTable) -> PartitionedBlock | None:
        """Partition and encode a block; None if its rows are too few, or a key is not of its declared type.

        Uniform rows are encoded at once, whatever transactions they go to.
        """
        if len(block) < ROWS_MIN or (keys := table.partition_keys(block)) is None:
            return None
        whole = self._writers[0].encode_whole(block)
        order = whole.groups[0].key_order if len(whole.groups) == 1 else None
        partitions = partition_indexes(keys, len(self._writers), self._rows_max, order)
        return PartitionedBlock(
            block,
            keys,
            self,
            [
                [TransactionRows(indexes, writer.encode_some(whole, indexes)) for indexes in transactions]
                for writer, transactions in zip(self._writers, partitions, strict=True)
            ],
        )

    def write(self, block: PartitionedBlock) -> list[RowResult]:
        """Return the results of all rows when all writers are done. Raises what one of them raised."""
        each = list(zip(self._writers, block.partitions, strict=True))
        results = together(
            [(writer.pgconn, writer.first_attempts([rows.block for rows in own])) for writer, own in each]
        )
        left = [(n, *each[n]) for n, written in enumerate(results) if len(written) < len(each[n][1])]
        for n, written in self._write_left([(n, writer, own[len(results[n]) :]) for n, writer, own in left]):
            results[n] += written
        by_index: list[Any] = [None] * len(block)
        for transactions, of_writer in zip(block.partitions, results, strict=True):
            for rows, found in zip(transactions, of_writer, strict=True):
                for index, result in zip(rows.indexes, found, strict=True):
                    by_index[index] = result
        return superseded(by_index, block.keys) if len(set(block.keys)) < len(block) else by_index

    def _write_left(
        self, left: Sequence[tuple[int, ConnectionWriter, Sequence[TransactionRows]]]
    ) -> list[tuple[int, list[list[RowResult]]]]:
        """Write what was not taken at the first attempt, each writer in a thread, and one in this one."""
        if not left:
            return []
        own, *others = left
        futures: list[Future[list[list[RowResult]]]] = [self._threads.submit(_write, *each[1:]) for each in others]
        try:
            results = [_write(*own[1:])]
        finally:
            wait(futures)  # or a thread would still be writing when its rows are tried again
        results += [future.result() for future in futures]
        return [(each[0], written) for each, written in zip(left, results, strict=True)]

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False)


def _write(writer: ConnectionWriter, transactions: Sequence[TransactionRows]) -> list[list[RowResult]]:
    return [writer.write_alone(rows.block) for rows in transactions]
