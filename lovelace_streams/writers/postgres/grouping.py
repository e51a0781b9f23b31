"""Group the rows of a block into statements, so that its items end as if each had been written alone, in order.

What the writer does follows from two facts of the catalogue: the row order of each table
(docs/decisions/0004-writers.md) and the relation of the tables to each other (docs/decisions/0011-several-tables.md).

    order of the rows   ANY                        AS_READ                       ONE_BY_ONE
    ------------------  -------------------------  ----------------------------  -------------------
    one table           a statement a round: the   a statement a run of          a statement a row
                        n-th row of each key is    consecutive rows, cut before
                        in round n, by key         a key that the run has or
                                                   refers to
    INDEPENDENT tables  as above, for the rows of each table
    REFERENCING tables  in phases; within a phase as above, table by table       (such tables are OPAQUE)
    OPAQUE tables       a statement a row, item by item

INDEPENDENT: no table looks at another. REFERENCING: foreign keys refer to the key of another table. OPAQUE: triggers,
policies or rules may look at another table, or a foreign key can't be compared here.

    block ──▶ UniformRows, … ───────────────────────▶ COPY, or a StatementRows a round
      │       each of one class, the same columns
      │       absent, in one table with the order ANY
      └─────▶ phase 1, phase 2, … ─▶ TableRows ─────▶ StatementRows, StatementRows, …
              cut before a new key    the rows that   the rows that share
              that an earlier row     go to one       a statement (or a pair)
              refers to               table
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from functools import cached_property, partial
from itertools import chain, compress, groupby
from operator import attrgetter
from typing import Any, NamedTuple, cast
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from lovelace_streams.columns import Columns, Part, Slice
from lovelace_streams.errors import DestinationFault
from lovelace_streams.rows.declaration import Column
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.types import scalar
from lovelace_streams.writers import Entry, attributes_of
from lovelace_streams.writers.column_block import ColumnBlock, RowKind
from lovelace_streams.writers.postgres.catalog import ForeignKey, RowOrder, TableSchema
from lovelace_streams.writers.postgres.sql import EncodeError, Plan
from lovelace_streams.writers.postgres.stored import comparable_values, identity_of, key_compares_as_is
from lovelace_streams.writers.postgres.types import EncodedColumn, Pick, exact_key, joined, lines, picker, read_lines

KeysAreNew = Callable[[Plan, Sequence[Entry]], list[bool]]
"""Tells of each row whether its key is new to the table."""

NONE_ABSENT: frozenset[str] = frozenset()
EXACT_KEY_TYPES: frozenset[Any] = frozenset({int, str, UUID, date, datetime})
"""Types whose values are equal here exactly where they are equal in the database; a float's NaN is not."""


class StatementRows:
    """Rows of a block that share a statement (or a pair), by their indexes in the block."""

    __slots__ = ("indexes", "plan", "table")

    def __init__(self, table: "TargetTable", plan: Plan, indexes: list[int]) -> None:
        self.table = table
        self.plan = plan
        self.indexes = indexes

    @property
    def are_told(self) -> bool:
        """Whether the server's answer tells of each row whether it was written, however many were."""
        return len(self.indexes) == 1 or not self.table.schema.may_suppress


class UniformRows:
    """Rows of one class, with the same columns absent, in a table with the order ANY: they share a plan.

    Encoding them needs no connection, so `encode` does it while another block is being written. COPY and the statement
    that merges use the same texts.
    """

    def __init__(
        self,
        table: "TargetTable",
        plan: Plan,
        columns: Mapping[str, Sequence[Any]],
        indexes: Sequence[int] | None = None,
        keys: Sequence[Any] | None = None,
    ) -> None:
        self.table = table
        self.plan = plan
        self.keys = table.keys_of(columns) if keys is None else keys
        self.indexes = range(len(self.keys)) if indexes is None else indexes
        """Their places in the block."""
        self._columns = columns
        self._encoded: dict[str, EncodedColumn] | None = None
        self._lines: list[str] | None = None
        self._key_order: Sequence[int] | None = None
        self._subset_of: tuple[UniformRows, Sequence[int]] | None = None
        """The rows that these are some of, and which."""
        self._pieces: Sequence[RowsOfPiece] = ()
        """The rows that these are put together of, if they are."""
        self._like: dict[str, EncodedColumn] | None = None
        """The columns without their texts, if the lines are all that was kept of them."""

    @classmethod
    def joined(
        cls, pieces: "Sequence[RowsOfPiece]", columns: Mapping[str, Sequence[Any]], indexes: Sequence[int]
    ) -> "UniformRows":
        """Put rows of one plan together that were encoded piece by piece; `columns` are the values of all."""
        first = pieces[0].rows
        keys = [*chain.from_iterable([piece.rows.keys[piece.start : piece.stop] for piece in pieces])]
        rows = cls(first.table, first.plan, columns, indexes, keys)
        rows._pieces = pieces
        return rows

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def is_current(self) -> bool:
        """Whether the table's schema is still the one that the rows were encoded for: `open` reads it again."""
        return self.plan.schema is self.table.schema

    @cached_property
    def has_distinct_keys(self) -> bool:
        """Whether no key repeats. Raises `TypeError` for keys that can't be compared."""
        if self._subset_of is not None and self._subset_of[0].has_distinct_keys:
            return True
        return len(set(self.keys)) == len(self.keys)

    @property
    def encoded(self) -> dict[str, EncodedColumn]:
        """Every column as texts. Raises `EncodeError`."""
        if self._encoded is None:
            if self._subset_of is not None:
                rows, some = self._subset_of
                pick = picker(some)
                self._encoded = {name: column.picked(pick) for name, column in rows.encoded.items()}
            elif self._pieces:
                each = [piece.encoded() for piece in self._pieces]
                self._encoded = {name: joined([columns[name] for columns in each]) for name in self.plan.names}
            elif self._lines is not None and self._like is not None:
                self._encoded = dict(zip(self._like, read_lines(self._lines, list(self._like.values())), strict=True))
            else:
                self._encoded = self.plan.encode_columns(self._columns)
        return self._encoded

    @property
    def lines(self) -> list[str]:
        """The lines of a COPY, in the order of the rows. Raises `EncodeError`."""
        if self._lines is None:
            if self._subset_of is not None and self._subset_of[0]._lines is not None:  # noqa: SLF001 - of this class
                rows, some = self._subset_of
                self._lines = picker(some)(rows.lines)
            elif self._pieces:
                self._lines = [line for piece in self._pieces for line in piece.rows.lines[piece.start : piece.stop]]
            else:
                self._lines = lines(list(self.encoded.values()))
        return self._lines

    def encode(self, *, as_lines: bool) -> None:
        """Encode the rows for COPY or for statements, and let go of all values but the keys'. Raises `EncodeError`."""
        columns = self.encoded
        if as_lines:
            _ = self.lines
            self._like = {name: column.without_texts() for name, column in columns.items()}
            self._encoded = None
        self._columns = {name: self._columns[name] for name in self.table.table.key}

    def copy_data(self) -> bytes:
        """Return the input of a COPY, in the order of the keys. Raises `EncodeError`."""
        return ("\n".join(picker(self.key_order)(self.lines)) + "\n").encode()

    @property
    def key_order(self) -> Sequence[int]:
        """The rows by their keys: two writers that lock the same keys in one order do not deadlock."""
        if self._key_order is None:
            self._key_order = self.table.sorted_by_key(self._columns, range(len(self.keys)))
        return self._key_order

    def literals(self, names: Sequence[str], rows: Sequence[int] | None = None) -> list[str]:
        """Return an array literal a column, of all rows, or of these in this order. Raises `EncodeError`."""
        columns = [self.encoded[name] for name in names]
        if rows is not None:
            pick = picker(rows)
            columns = [column.picked(pick) for column in columns]
        return [column.literal() for column in columns]

    def some(self, rows: Sequence[int], *, by_key: bool = False) -> "UniformRows":
        """Return some of the rows, in this order, with everything that was already worked out of them.

        `by_key`: that is the order of their keys.
        """
        pick = picker(rows)
        of_key = {name: pick(self._columns[name]) for name in self.table.table.key}
        some = UniformRows(self.table, self.plan, of_key, keys=pick(self.keys))
        some._subset_of = self, rows
        if by_key:
            some._key_order = range(len(rows))
        return some

    def key_column(self, name: str) -> Sequence[Any]:
        """Return the values of one column of the key."""
        return self._columns[name]

    def value(self, name: str, row: int) -> Any:
        """Return the value of a column of one row."""
        if self._subset_of is None:
            return self._columns[name][row]
        rows, some = self._subset_of
        return rows.value(name, some[row])


class RowsOfPiece(NamedTuple):
    """Rows of a block that are a part of those encoded together: from `start` to `stop`."""

    rows: UniformRows
    start: int
    stop: int

    def encoded(self) -> dict[str, EncodedColumn]:
        """Every column as texts. Raises `EncodeError`."""
        if self.start == 0 and self.stop == len(self.rows):
            return self.rows.encoded
        return {name: column.between(self.start, self.stop) for name, column in self.rows.encoded.items()}


class EncodedPieces(NamedTuple):
    """What a table's writer made of columns at once: a group of rows for each set of columns that are absent."""

    table: "TargetTable"
    groups: list[UniformRows]

    @property
    def is_current(self) -> bool:
        """Whether the table's schema is still the one that they were encoded for."""
        return all(rows.is_current for rows in self.groups)


class _ColumnsOfBlock(dict[str, Sequence[Any]]):
    """The columns of some rows of a block, by name: the key's, and any other once it is asked for, by `make`."""

    def __init__(self, key: Sequence[str], pieces: Sequence[RowsOfPiece], make: Callable[[str], Sequence[Any]]) -> None:
        for name in key:
            self[name] = [
                *chain.from_iterable([piece.rows.key_column(name)[piece.start : piece.stop] for piece in pieces])
            ]
        self._make = make

    def __missing__(self, name: str) -> Sequence[Any]:
        column = self[name] = self._make(name)
        return column


class BlockStatements(NamedTuple):
    """The statements that write a block, and the parameters of each."""

    rows: list[StatementRows]
    parameters: list[list[str]]


def repeated_keys(groups: Sequence[UniformRows]) -> Sequence[Any] | None:
    """Return the key of each row of the block, if one repeats; None if none does. Raises `TypeError`."""
    first, *others = groups
    if first.has_distinct_keys and (
        not others or len(set().union(*[rows.keys for rows in groups])) == sum(map(len, groups))
    ):
        return None
    keys: dict[int, Any] = {}
    for rows in groups:
        keys.update(zip(rows.indexes, rows.keys, strict=True))
    return [keys[index] for index in range(len(keys))]


def statements_of(groups: Sequence[UniformRows]) -> BlockStatements:
    """Return the statements that write all rows of groups: the n-th row of each key in round n, a round after another.

    A round has a statement for each group, with its rows in the order of their keys. Raises `EncodeError`, or
    `TypeError` for keys that can't be compared.
    """
    keys = repeated_keys(groups)
    if keys is None:
        return _block_statements((rows, rows.key_order) for rows in groups)
    count = Counter(keys)
    rounds: dict[tuple[int, int], list[int]] = {}
    repeated: list[tuple[int, int, int]] = []
    for number, rows in enumerate(groups):
        alone = [count[key] == 1 for key in rows.keys]
        rounds[0, number] = [row for row in rows.key_order if alone[row]]
        repeated += [(rows.indexes[row], number, row) for row, is_alone in enumerate(alone) if not is_alone]
    seen: Counter[Any] = Counter()
    for index, number, row in sorted(repeated):
        rounds.setdefault((seen[keys[index]], number), []).append(row)
        seen[keys[index]] += 1
    in_order = sorted([each for each in rounds.items() if each[1]], key=lambda each: each[0][0])
    return _block_statements(
        (groups[number], sorted(rows, key=groups[number].keys.__getitem__)) for (_, number), rows in in_order
    )


def _block_statements(chosen: Iterable[tuple[UniformRows, Sequence[int]]]) -> BlockStatements:
    statements = BlockStatements([], [])
    for rows, some in chosen:
        statements.rows.append(StatementRows(rows.table, rows.plan, picker(some)(rows.indexes)))
        statements.parameters.append(rows.literals(rows.plan.names, some))
    return statements


class TargetTable:
    """One table of a writer: its row classes, the real table's schema once it was read, and plans for its rows."""

    def __init__(self, rows: Sequence[type[Row]]) -> None:
        self.rows = tuple(rows)
        self.table = rows[0].__table__
        for row in rows[1:]:
            other = row.__table__
            if (other.name, other.key, other.version) != (self.table.name, self.table.key, self.table.version):
                raise TypeError(f"{row.__name__} and {rows[0].__name__} differ in table, primary key or version")
        self.attributes = attributes_of(rows)
        self.identity: Callable[[Row], Any] = attrgetter(*map(self.attributes.__getitem__, self.table.key))
        self._key_compares_as_is = True
        self._key_types = {c.name: scalar(c.type) for c in self.table.columns if c.name in self.table.key}
        self._optional = {row: _optional(row) for row in rows}
        self._getters = {row: _getters(row) for row in rows}
        self._fields = {row: _fields(row) for row in rows}
        self._schema: TableSchema | None = None
        self._plans: dict[tuple[type[Row], frozenset[str], bool], Plan] = {}

    @property
    def schema(self) -> TableSchema:
        """The real table's schema. Raises `DestinationFault` before it was read."""
        if self._schema is None:
            raise DestinationFault("08003", f"table {self.table.name} was not opened")
        return self._schema

    def set_schema(self, schema: TableSchema) -> None:
        """Take the schema that was read now, and forget what followed from the last one."""
        self._schema = schema
        self._plans.clear()
        self.identity = identity_of(self.table, schema.types)
        self._key_compares_as_is = key_compares_as_is(self.table, schema.types)

    def notes(self) -> Iterator[str]:
        """Yield a line for each column that refuses digits of a number which its field does not limit."""
        for row in self.rows:
            for column in row.__table__.columns:
                real = self.schema.types[column.name]
                if scalar(column.type) is Decimal and column.scale is None and real.scale is not None:
                    digits = max(real.scale, 0)
                    yield (
                        f"{row.__name__}.{column.name} is a Decimal and its column {real.display_name}: a number with"
                        f" more digits is dead-lettered (out_of_range). Annotated[Decimal, Scale({digits})] says so"
                        f" in the row, Scale({digits}, ROUND_HALF_EVEN) rounds it"
                    )

    def keys_of(self, columns: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
        """Return the keys of rows from their columns, equal to those of `identity`."""
        if len(self.table.key) == 1:
            return columns[self.table.key[0]]
        return list(zip(*[columns[name] for name in self.table.key], strict=True))

    def sorted_by_key(self, columns: Mapping[str, Sequence[Any]], rows: Sequence[int]) -> Sequence[int]:
        """Return rows in the order of their keys, those of one key as they were. Raises `TypeError`."""
        for name in reversed(self.table.key):  # several sorts of numbers or texts are quicker than one of tuples
            rows = sorted(rows, key=columns[name].__getitem__)
        return rows

    @property
    def _takes_uniform_rows(self) -> bool:
        return self.schema.row_order is RowOrder.ANY and self._key_compares_as_is

    def uniform_rows(self, entries: Sequence[Entry]) -> list[UniformRows]:
        """Return these rows as uniform ones, a group for each plan; none if rows have to go another way."""
        if not self._takes_uniform_rows:
            return []
        if isinstance(entries, ColumnBlock):
            return [
                group
                for kind, (indexes, block) in entries.by_kind.items()
                for group in self._rows_of_kind(kind, indexes, block)
            ]
        uniform = self._uniform_rows_of(entries)
        return [] if uniform is None else [uniform]

    def _uniform_rows_of(self, entries: Sequence[Entry]) -> UniformRows | None:
        """Return rows that are all of one plan; else None."""
        rows = [entry.row for entry in entries]
        kinds = set(map(type, rows))
        if len(kinds) > 1 or any([entry.only_new or entry.same_item for entry in entries]):  # noqa: C419 - twice as fast
            return None
        [kind] = kinds
        columns: dict[str, list[Any]] = {}
        absent = set()
        for name, get, may_be_absent in self._getters[kind]:
            column = list(map(get, rows))
            if may_be_absent and UnsetType in (types := set(map(type, column))):
                if len(types) > 1:
                    return None
                absent.add(name)
            else:
                columns[name] = column
        plan = self.plan(kind, absent=frozenset(absent))
        return UniformRows(self, plan, columns) if plan.is_one_statement else None

    def encode_at_once(self, columns: Columns, *, as_lines: bool) -> "EncodedPieces | None":
        """Encode columns that were just made; None if they go another way. Raises `EncodeError` or `TypeError`."""
        if not self._takes_uniform_rows:
            return None
        kind = RowKind(columns.row, only_new=False)
        groups = list(self._uniform_columns(kind, range(len(columns)), columns.values))
        for rows in groups:
            rows.encode(as_lines=as_lines and rows.plan.is_one_statement)
        return EncodedPieces(self, groups)

    def _rows_of_kind(self, kind: RowKind, indexes: Sequence[int], block: ColumnBlock) -> Iterator[UniformRows]:
        """Yield rows of one kind, a group for each set of columns that are absent; what is encoded stays so."""
        if not any(map(self._is_encoded, block.parts)):
            yield from self._uniform_columns(kind, indexes, block.columns)
            return
        by_plan: dict[Plan, tuple[list[RowsOfPiece], list[int]]] = {}
        at = 0
        for groups, start, stop in self._encoded_parts(kind, block.parts):
            for rows in groups:
                first, end = bisect_left(rows.indexes, start), bisect_left(rows.indexes, stop)
                if first < end:
                    pieces, chosen = by_plan.setdefault(rows.plan, ([], []))
                    pieces.append(RowsOfPiece(rows, first, end))
                    chosen += [at - start + index for index in rows.indexes[first:end]]
            at += stop - start
        for pieces, chosen in by_plan.values():
            pick = picker(range(len(block)) if len(chosen) == len(block) else chosen)
            columns = _ColumnsOfBlock(self.table.key, pieces, partial(self._column, kind, block, pick))
            yield UniformRows.joined(pieces, columns, pick(indexes))

    def _column(self, kind: RowKind, block: ColumnBlock, pick: Pick, name: str) -> Sequence[Any]:
        attribute, _ = self._fields[kind.row][name]
        return pick(block.column(attribute))

    def _is_encoded(self, part: Part) -> bool:
        """Whether this writer has encoded the columns of a slice, for the schema that the table has now."""
        encoded = part.columns.encoded if isinstance(part, Slice) else None
        return isinstance(encoded, EncodedPieces) and encoded.table is self and encoded.is_current

    def _encoded_parts(self, kind: RowKind, parts: Sequence[Part]) -> Iterator[tuple[Sequence[UniformRows], int, int]]:
        """Yield encoded rows for parts, one after the other, and from which of them on to which they are the parts'."""
        for is_encoded, run in groupby(parts, key=self._is_encoded):
            if is_encoded:
                for part in cast("Iterator[Slice]", run):
                    yield part.columns.encoded.groups, part.start, part.stop
            else:
                block = ColumnBlock(list(run))
                yield list(self._uniform_columns(kind, range(len(block)), block.columns)), 0, len(block)

    def _uniform_columns(
        self, kind: RowKind, indexes: Sequence[int], given: Mapping[str, Sequence[Any]]
    ) -> Iterator[UniformRows]:
        """Yield rows of one kind from their columns, a group for each set of columns that are absent."""
        columns: dict[str, Sequence[Any]] = {}
        absent = set()
        mixed: dict[str, list[bool]] = {}
        for name, (attribute, may_be_absent) in self._fields[kind.row].items():
            column = columns[name] = given[attribute]
            if may_be_absent and UnsetType in (types := set(map(type, column))):
                if len(types) > 1:
                    mixed[name] = [value is UNSET for value in column]
                else:
                    absent.add(name)
                    del columns[name]
        if not mixed:
            yield UniformRows(self, self.plan(*kind, absent=frozenset(absent)), columns, indexes)
            return
        rows_of: dict[tuple[bool, ...], list[int]] = {}
        for row, lacks in enumerate(zip(*mixed.values(), strict=True)):
            rows_of.setdefault(lacks, []).append(row)
        for lacks, rows in rows_of.items():
            missing = absent | set(compress(mixed, lacks))
            pick = picker(rows)
            present = {name: pick(column) for name, column in columns.items() if name not in missing}
            yield UniformRows(self, self.plan(*kind, absent=frozenset(missing)), present, pick(indexes))

    @property
    def key_independent(self) -> bool:
        """Whether rows of different keys may be written at the same time, in transactions of their own.

        Policies and domains prevent it: they may call a function that looks at rows which another transaction has not
        committed yet.
        """
        schema = self.schema
        sees_other_rows = schema.sees_other_tables or not all(real.exact for real in schema.types.values())
        comparable = EXACT_KEY_TYPES.issuperset(self._key_types.values())
        return self._takes_uniform_rows and comparable and not sees_other_rows

    def partition_keys(self, entries: Sequence[Entry]) -> list[Hashable] | None:
        """Return the keys of rows of a `key_independent` table; None if one is not of its declared type."""
        if isinstance(entries, ColumnBlock):
            columns = {name: entries.column(self.attributes[name]) for name in self._key_types}
        else:
            if any([entry.same_item for entry in entries]):  # noqa: C419 - twice as fast
                return None
            rows = [entry.row for entry in entries]
            columns = {name: list(map(attrgetter(self.attributes[name]), rows)) for name in self._key_types}
        if any(set(map(type, columns[name])) != {kind} for name, kind in self._key_types.items()):
            return None
        return list(self.keys_of(columns))

    def plan(self, kind: type[Row], only_new: bool = False, *, absent: frozenset[str] = NONE_ABSENT) -> Plan:
        """Return the plan for rows of a class without these columns."""
        schema, plan = self.schema, self._plans.get((kind, absent, only_new))
        if plan is None or plan.schema is not schema:  # another thread may read the catalogue again meanwhile
            columns = [column for column in kind.__table__.columns if column.name not in absent]
            plan = self._plans[kind, absent, only_new] = Plan(self.table, schema, columns, only_new=only_new)
        return plan

    def plans_of(self, entries: Sequence[Entry]) -> list[Plan]:
        """Return the plan of each row."""
        plans = []
        usual = self.plan(self.rows[0])
        for entry in entries:
            row = entry.row
            kind = type(row)
            names, get = self._optional[kind]
            absent = NONE_ABSENT
            if names and UNSET in get(row):
                absent = frozenset(name for name, value in zip(names, get(row), strict=False) if value is UNSET)
            if absent or entry.only_new or kind is not self.rows[0]:
                plans.append(self.plan(kind, entry.only_new, absent=absent))
            else:
                plans.append(usual)
        return plans


class TableRows:
    """The rows of a block that go to one table, with everything that decides which of them may share a statement."""

    def __init__(
        self,
        table: TargetTable,
        indexes: Sequence[int],
        entries: Sequence[Entry],
        keys_are_new: KeysAreNew,
        *,
        singly: bool = False,
    ) -> None:
        self.table = table
        self.indexes = indexes
        self.entries = entries
        self.plans = table.plans_of(entries)
        self.keys = [table.identity(entry.row) for entry in entries]
        self.row_order = RowOrder.ONE_BY_ONE if singly and table.schema.may_suppress else table.schema.row_order
        self.may_share_statement: list[bool] = []
        self.parents: list[list[Any]] = []
        if self.row_order is RowOrder.AS_READ and len(entries) > 1:
            self.may_share_statement = self._may_share_statement(keys_are_new)
            self.parents = self._parents()

    def statement_rows(self, chosen: Sequence[int]) -> list[StatementRows]:
        """Group the chosen rows (numbers within this table's) into statements, to end as if each had its own."""
        if self.row_order is RowOrder.ONE_BY_ONE or len(chosen) == 1:
            return [self._statement(self.plans[n], [n]) for n in chosen]
        if self.row_order is RowOrder.ANY:
            return self._rounds(chosen)
        return self._runs(chosen)

    def run_lengths(self) -> list[int]:
        """Return how many consecutive rows may share a statement, run by run, in the order given; all have one plan."""
        if self.row_order is RowOrder.ONE_BY_ONE or len(self.entries) == 1:
            return [1] * len(self.entries)
        if self.row_order is RowOrder.ANY:
            self.may_share_statement, self.parents = [True] * len(self.entries), [[]] * len(self.entries)
        return [len(rows.indexes) for rows in self._runs(range(len(self.entries)))]

    def _statement(self, plan: Plan, chosen: Sequence[int]) -> StatementRows:
        return StatementRows(self.table, plan, [self.indexes[n] for n in chosen])

    def _rounds(self, chosen: Sequence[int]) -> list[StatementRows]:
        """Put the n-th row of each key into round n; sort a round by its keys, against deadlocks."""
        keys, plans = self.keys, self.plans
        if len({keys[n] for n in chosen}) == len(chosen) and len({plans[n] for n in chosen}) == 1:
            return [self._statement(plans[chosen[0]], sorted(chosen, key=keys.__getitem__))]
        rounds: dict[tuple[int, Plan], list[int]] = {}
        last_round: dict[Any, int] = {}
        for n in chosen:
            number = last_round[keys[n]] = last_round.get(keys[n], -1) + 1
            rounds.setdefault((number, plans[n]), []).append(n)
        return [
            self._statement(plan, sorted(rows, key=keys.__getitem__))
            for (_, plan), rows in sorted(rounds.items(), key=lambda item: item[0][0])
        ]

    def _runs(self, chosen: Sequence[int]) -> list[StatementRows]:
        """Group consecutive rows of distinct keys and one plan; cut before a row that an earlier one refers to."""
        runs: list[list[int]] = []
        keys: set[Any] = set()
        referred: set[Any] = set()
        for n in chosen:
            key, last = self.keys[n], runs[-1][-1] if runs else n
            continues = (
                runs
                and self.plans[last] is self.plans[n]
                and self.may_share_statement[n]
                and self.may_share_statement[last]
            )
            if not continues or key in keys or key in referred:
                runs.append([])
                keys, referred = set(), set()
            runs[-1].append(n)
            keys.add(key)
            referred.update(self.parents[n])
        return [self._statement(self.plans[run[0]], run) for run in runs]

    def _may_share_statement(self, keys_are_new: KeysAreNew) -> list[bool]:
        """Tell of each row whether it may share a statement: one writes it, or its key is new to table and block."""
        is_one_statement = [plan.is_one_statement for plan in self.plans]
        if all(is_one_statement):
            return is_one_statement
        new = keys_are_new(self.plans[0], self.entries)
        first = {key: n for n, key in reversed(list(enumerate(self.keys)))}  # later rows of a key meet the first one
        return [one or (new[n] and first[self.keys[n]] == n) for n, one in enumerate(is_one_statement)]

    def _parents(self) -> list[list[Any]]:
        """Return the keys that each row refers to by the table's foreign keys to itself; UNSET equals no key."""
        columns = self.table.schema.parents
        if not columns:
            return [[]] * len(self.entries)
        values = [comparable_values(each, self.table.schema.types, self.table.attributes) for each in columns]
        return [[of_row(entry.row) for of_row in values] for entry in self.entries]


class TableRelation(Enum):
    """How the tables of a writer look at each other."""

    INDEPENDENT = "independent"
    REFERENCING = "referencing"
    OPAQUE = "opaque"


class Tables:
    """All tables of a writer."""

    def __init__(self, rows: Sequence[type[Row]]) -> None:
        classes: dict[str, list[type[Row]]] = {}
        for row in rows:
            classes.setdefault(row.__table__.name, []).append(row)
        self.declared = [TargetTable(each) for each in classes.values()]
        self.parents_first = self.declared
        """Tables that others refer to, before those that refer to them."""
        self.relation = TableRelation.INDEPENDENT
        self._by_class = {row: table for table in self.declared for row in table.rows}
        self._references: dict[TargetTable, list[tuple[TargetTable, tuple[str, ...]]]] = {}

    def table_of(self, entry: Entry) -> TargetTable:
        """Return the table that a row goes to."""
        return self._by_class[type(entry.row)]

    def tables_of(self, entries: Sequence[Entry]) -> set[TargetTable]:
        """Return the tables that these rows go to."""
        return {self.table_of(entry) for entry in entries} if len(self.declared) > 1 else set(self.declared)

    def uniform_rows(self, entries: Sequence[Entry]) -> list[UniformRows]:
        """Return these rows as uniform ones, a group for each plan; none if rows have to go another way."""
        return self.declared[0].uniform_rows(entries) if len(self.declared) == 1 and entries else []

    @property
    def key_independent(self) -> bool:
        """Whether rows of different keys may be written at the same time; see `TargetTable.key_independent`."""
        return len(self.declared) == 1 and self.declared[0].key_independent

    def identities(self, entries: Sequence[Entry]) -> Sequence[Hashable]:
        """Return the table and key of each row."""
        if len(self.declared) == 1:
            identity = self.declared[0].identity
            return [identity(entry.row) for entry in entries]
        return [(id(table), table.identity(entry.row)) for entry in entries for table in (self.table_of(entry),)]

    def set_schemas(self, schemas: Sequence[TableSchema]) -> None:
        """Take the schemas that were read now, in the order declared, and see how the tables look at each other."""
        for table, schema in zip(self.declared, schemas, strict=True):
            table.set_schema(schema)
        self.relation, self.parents_first, self._references = TableRelation.INDEPENDENT, self.declared, {}
        if len(self.declared) == 1:
            return
        keys = [
            (table, other, key)
            for table in self.declared
            for key in table.schema.foreign_keys
            for other in self.declared
            if other is not table and key.target in other.schema.relations
        ]
        self.parents_first, acyclic = _parents_first(self.declared, [(table, other) for table, other, _ in keys])
        self.relation = self._relation(keys, acyclic=acyclic)
        if self.relation is TableRelation.REFERENCING:
            for table, other, key in keys:
                columns = dict(zip(key.others, key.columns, strict=True))
                fields = tuple(table.attributes.get(columns[name], "") for name in other.table.key)
                self._references.setdefault(table, []).append((other, fields))

    def _relation(self, keys: Sequence[tuple[TargetTable, TargetTable, ForeignKey]], *, acyclic: bool) -> TableRelation:
        comparable = all(_is_comparable(table, other, key) for table, other, key in keys)
        if any(table.schema.sees_other_tables for table in self.declared) or not (acyclic and comparable):
            return TableRelation.OPAQUE
        if not keys:
            return TableRelation.INDEPENDENT
        ordered = any(table.schema.row_order is RowOrder.ONE_BY_ONE for pair in keys for table in pair[:2])
        return TableRelation.OPAQUE if ordered else TableRelation.REFERENCING

    def statement_rows(
        self, items: Sequence[Sequence[Entry]], keys_are_new: KeysAreNew, *, singly: bool = False
    ) -> list[StatementRows]:
        """Group the rows of these items into statements. Raises `EncodeError` if keys can't be compared.

        `singly`: each row gets its own where a trigger may hold rows off, since the count of one row tells of it.
        """
        entries = [entry for item in items for entry in item]
        try:
            if len(self.declared) == 1:
                everything = range(len(entries))
                rows = TableRows(self.declared[0], everything, entries, keys_are_new, singly=singly)
                return rows.statement_rows(everything)
            return self._of_several_tables(items, entries, keys_are_new, singly=singly)
        except TypeError:  # a key of the wrong type can't be compared with the others
            raise EncodeError(self.declared[0].table.key[0]) from None

    def _of_several_tables(
        self, items: Sequence[Sequence[Entry]], entries: list[Entry], keys_are_new: KeysAreNew, *, singly: bool
    ) -> list[StatementRows]:
        order = list(self._item_by_item(items))
        by_table: dict[TargetTable, TableRows] = {}
        number: dict[int, int] = {}
        for table in self.parents_first:
            indexes = [index for index in order if self.table_of(entries[index]) is table]
            number |= {index: n for n, index in enumerate(indexes)}
            of_table = [entries[index] for index in indexes]
            by_table[table] = TableRows(table, indexes, of_table, keys_are_new, singly=singly)
        statements = []
        for phase in self._phases(entries, order):
            for table in self.parents_first:
                chosen = [number[index] for index in phase if self.table_of(entries[index]) is table]
                if chosen:
                    statements += by_table[table].statement_rows(chosen)
        return statements

    def _item_by_item(self, items: Sequence[Sequence[Entry]]) -> Iterator[int]:
        """Yield the indexes of the rows in the order that writing one item after the other has."""
        begin = 0
        for item in items:
            for table in self.parents_first:
                for index, entry in enumerate(item, begin):
                    if self.table_of(entry) is table:
                        yield index
            begin += len(item)

    def _phases(self, entries: Sequence[Entry], order: list[int]) -> list[list[int]]:
        """Cut the rows into runs within which the order between tables does not matter."""
        if self.relation is TableRelation.INDEPENDENT:
            return [order]
        if self.relation is TableRelation.OPAQUE:
            return [[index] for index in order]
        phases: list[list[int]] = []
        keys: set[Any] = set()
        referred: set[Any] = set()
        referred_whole: set[TargetTable] = set()
        for index in order:
            table, row = self.table_of(entries[index]), entries[index].row
            key = (table, table.identity(row))
            if not phases or (key not in keys and (key in referred or table in referred_whole)):
                phases.append([])
                keys, referred, referred_whole = set(), set(), set()
            phases[-1].append(index)
            keys.add(key)
            for other, columns in self._references.get(table, ()):
                values = _referred_key(row, columns)
                if values is UNSET or (isinstance(values, tuple) and UNSET in values):
                    referred_whole.add(other)  # the stored value or a default: it may refer to any key
                referred.add((other, values))
        return phases


def _referred_key(row: Row, fields: Sequence[str]) -> Any:
    values = tuple(getattr(row, field, UNSET) for field in fields)
    return values if len(values) > 1 else values[0]


def _parents_first(
    tables: list[TargetTable], references: list[tuple[TargetTable, TargetTable]]
) -> tuple[list[TargetTable], bool]:
    """Sort tables that others refer to before those that refer to them, else as declared; tell whether that works."""
    left, ordered = list(tables), []
    while left:
        waiting = {table for table, other in references if other in left}
        ready = next((table for table in left if table not in waiting), None)
        if ready is None:
            return list(tables), False
        left.remove(ready)
        ordered.append(ready)
    return ordered, True


def _is_comparable(table: TargetTable, other: TargetTable, key: ForeignKey) -> bool:
    """Whether a foreign key refers to the other's whole key, by values that are equal here where they are there."""
    own = {column.name: column.type for row in table.rows for column in row.__table__.columns}
    theirs = {column.name: column.type for column in other.table.columns}
    types = table.schema.types
    return (
        set(key.others) == set(other.table.key)
        and key_compares_as_is(other.table, other.schema.types)
        and all(
            column in own
            and own[column] == theirs[name]
            and exact_key(own[column], types[column])
            and not types[column].modified
            and exact_key(theirs[name], other.schema.types[name])
            for column, name in zip(key.columns, key.others, strict=True)
        )
    )


def _optional(row: type[Row]) -> tuple[tuple[str, ...], Callable[[Row], Any]]:
    """Return the fields that may be absent, and how to get them all as a tuple."""
    optional = [column for column in row.__table__.columns if _may_be_absent(column)]
    fields = [column.attribute for column in optional]
    get = attrgetter(*(fields * 2 if len(fields) == 1 else fields or ("__class__", "__class__")))
    return tuple(column.name for column in optional), get


def _getters(row: type[Row]) -> list[tuple[str, Callable[[Row], Any], bool]]:
    """Return for each column its name, how to get it, and whether it may be absent."""
    return [(column.name, attrgetter(column.attribute), _may_be_absent(column)) for column in row.__table__.columns]


def _fields(row: type[Row]) -> dict[str, tuple[str, bool]]:
    """Return for each column its field, and whether it may be absent."""
    return {column.name: (column.attribute, _may_be_absent(column)) for column in row.__table__.columns}


def _may_be_absent(column: Column) -> bool:
    return column.nullable and column.default is msgspec.NODEFAULT
