"""A destination that takes everything at once, for benchmarks of what comes before it."""

from collections.abc import Callable, Sequence

from dataflows import discord
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers import Capabilities, Entry, RowOutcome, RowResult
from lovelace_streams.writers.column_block import ColumnBlock


class Nowhere:
    """A writer that is always done; it takes columns, and has no row made. `look` is told how many rows a block has.

    Its blocks are as large as those of the writer for Postgres that is told nothing. With a call for each batch of 100
    rows the engine would wait for the writer's thread twenty times a window, which no job does that is told nothing.
    """

    rows = discord.SOURCE.rows
    capabilities = Capabilities(block_rows=PostgresSettings("postgresql://nowhere/nowhere").block_rows)
    deadline = 30.0
    name = "nowhere"

    def __init__(self, look: Callable[[int], object] = lambda _rows: None) -> None:
        self._look = look

    def ddl(self) -> str:
        """There is no table."""
        return ""

    def open(self) -> None:
        """Nothing to connect to."""

    def encode_columns(self, block: ColumnBlock) -> Sequence[Entry]:
        """Nothing is encoded."""
        return block

    def write(self, block: Sequence[Entry]) -> list[RowResult]:
        """All written."""
        self._look(len(block))
        return [RowOutcome.WRITTEN] * len(block)

    dry_run = write

    def probe(self, others: Sequence[Entry] = ()) -> bool | None:  # noqa: ARG002
        """It could."""
        return True

    def abort(self) -> None:
        """Nothing to shut."""

    def close(self) -> None:
        """Nothing to let go of."""
