"""Several connections of one writer (`POSTGRES_POOL`): rows of a key always take the same one, so they stay in order.

A block is dealt out by key. Each connection, a *lane*, writes its rows in transactions of at most `block_rows`, and the
lanes do so beside each other: while one waits for its commit to reach the disk, the others work. Only for tables where
nothing depends on the order of rows of different keys, or on what is not committed yet (`OneTable.apart`); everything
else goes by one connection.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from lovelace_streams.writers import Entry, RowResult, superseded

DEALT = 100
"""Fewer rows are not worth dealing out, nor a transaction: handing them over costs as much as writing them."""
CALL = 2000
"""Rows that a call carries where transactions are smaller. Should all be one lane's, they have one deadline."""


class Part(NamedTuple):
    """Rows of one transaction, and their places in the block."""

    places: list[int]
    block: Sequence[Entry]


class Dealt(list[Entry]):
    """A block with its keys, the lanes that it was dealt out for, and what each of them writes."""

    __slots__ = ("keys", "lanes", "parts")

    def __init__(
        self, entries: Sequence[Entry], keys: Sequence[Hashable], lanes: "Lanes", parts: list[list[Part]]
    ) -> None:
        super().__init__(entries)
        self.keys = keys
        self.lanes = lanes
        self.parts = parts


def places_of(keys: Iterable[Hashable], lanes: int, rows: int) -> list[list[list[int]]]:
    """Of each lane its transactions: the places of their rows, of at most so many, in the order given.

    >>> sorted([len(part) for part in lane] for lane in places_of([8] * 5, lanes=2, rows=2))
    [[], [2, 2, 1]]
    """
    dealt: list[list[int]] = [[] for _ in range(lanes)]
    for place, key in enumerate(keys):
        dealt[hash((key,)) % lanes].append(place)  # an int is its own hash, and ids often go in steps
    return [[lane[at : at + rows] for at in range(0, len(lane), rows)] for lane in dealt]


class Lanes:
    """Threads beside the caller's own, a lane each."""

    def __init__(self, writes: Sequence[Callable[[Sequence[Entry]], list[RowResult]]]) -> None:
        self._own, *self._others = writes
        self._threads = ThreadPoolExecutor(len(self._others), thread_name_prefix="lane")

    def write(self, dealt: Dealt) -> list[RowResult]:
        """What became of the rows, when all lanes are through. Raises what one of them raised."""
        own, *others = dealt.parts
        flights: list[Future[list[list[RowResult]]]] = [
            self._threads.submit(_write, write, parts) for write, parts in zip(self._others, others, strict=True)
        ]
        try:
            results = [_write(self._own, own)]
        finally:
            wait(flights)  # or a lane would still be writing when its rows are tried again
        results += [flight.result() for flight in flights]
        ends: dict[int, RowResult] = {}
        for parts, lane in zip(dealt.parts, results, strict=True):
            for part, found in zip(parts, lane, strict=True):
                ends.update(zip(part.places, found, strict=True))
        return superseded([ends[place] for place in range(len(dealt))], dealt.keys)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False)


def _write(write: Callable[[Sequence[Entry]], list[RowResult]], parts: Sequence[Part]) -> list[list[RowResult]]:
    return [write(part.block) for part in parts]
