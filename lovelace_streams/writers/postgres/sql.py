"""Compose the statements of a Postgres writer: columns of a block arrive as array literals, `unnest` makes rows of
them.

All statements are composed by `psycopg.sql`. A `Plan` holds the statements for rows with one set of columns. They
depend on the columns that are absent, since a statement leaves those out to keep what is stored, and on whether a row
may overwrite (`only_new`).

What became of rows is what the server answers. A statement counts the rows that it wrote. The guard by which a stored
row holds one off counts those that it held off (`HELD_OFF`): so a row is known to be older under whatever key a trigger
gave it, and what neither counted was suppressed by a trigger. Which rows of several were written is told by their
numbers (`Plan.tells_ordinals`), never by the values that were sent, since the table may store other ones.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from operator import attrgetter
from typing import Any

from psycopg import sql

from lovelace_streams.rows.declaration import Column, Table
from lovelace_streams.rows.row import Row
from lovelace_streams.writers.postgres.catalog import RowOrder, TableSchema, identifier, name_parts
from lovelace_streams.writers.postgres.faults import ENCODE_ERROR, FOREIGN_KEY_VIOLATION, NUMBER_OUT_OF_RANGE
from lovelace_streams.writers.postgres.stored import as_stored, named, trusted
from lovelace_streams.writers.postgres.subtransactions import script
from lovelace_streams.writers.postgres.types import (
    ColumnEncoder,
    EncodedColumn,
    TooManyDigits,
    always_accepted,
    column_encoder,
    fits_bigint,
)

_SETTING = "lovelace.held_off"
_HELD_OFF = f"coalesce(nullif(current_setting('{_SETTING}', true), ''), '0')::int"
HELD_OFF = f"select {_HELD_OFF}".encode()
"""How many rows stored ones held off so far, in this transaction."""
RESET_HELD_OFF = f"select set_config('{_SETTING}', '0', true)".encode()
_HOLD_OFF = sql.SQL(f"set_config('{_SETTING}', ({_HELD_OFF} + 1)::text, true) is null")
"""False, and counts a row that is held off."""


class Plan:
    """The statements and encoders for rows that have exactly these columns."""

    def __init__(self, table: Table, schema: TableSchema, columns: Sequence[Column], *, only_new: bool) -> None:
        self.schema = schema
        self.columns = tuple(columns)
        self.only_new = only_new
        absent = frozenset(schema.types) - {column.name for column in self.columns}
        self.whole = not absent
        self.is_one_statement = self.whole or schema.may_omit(absent)
        """One statement writes the rows; else a pair does: UPDATE the keys that exist, INSERT those that do not."""
        self._encoders: dict[str, tuple[Callable[[Row], Any], ColumnEncoder]] = {
            column.name: (attrgetter(column.attribute), column_encoder(column.type, schema.types[column.name]))
            for column in self.columns
        }
        self.uncertain_columns = tuple(
            c.name
            for c in self.columns
            if not schema.types[c.name].exact or not always_accepted(c.type, schema.types[c.name])
        )
        """Columns whose type may refuse a value that can be sent."""
        self.never_null = tuple(c.name for c in self.columns if not c.nullable and c.name in schema.not_null)
        accepted = {c.name for c in self.columns if always_accepted(c.type, schema.types[c.name])}
        builder = self._builder = _StatementBuilder(
            table,
            schema,
            [column.name for column in self.columns],
            # these columns break no rule that could hide another one, so a query for violations may leave them out
            never_refused=accepted & {*self.never_null, *(set(schema.types) - set(schema.not_null))},
            only_new=only_new,
        )
        self._subtransaction_script: bytes | None = None
        # rendered once: composing takes a millisecond, as long as writing a block
        self.may_hold_off = bool(table.version) or only_new
        """Whether a stored row may keep one of these from being written."""
        self.asks_what_is_held_off = self.may_hold_off and schema.may_suppress
        """Whether a row that was not written may have been held off, or suppressed by a trigger."""
        self.tells_ordinals = (
            self.may_hold_off and not schema.may_suppress and schema.row_order is not RowOrder.ONE_BY_ONE
        )
        """Whether the statements tell which rows they wrote: an UPDATE returns their numbers, from 1, an INSERT their
        keys as stored (`ordinals_of_keys`). Where a trigger may change a key they can't: their counts tell of a single
        row, and of several if all were written."""
        self.statements = builder.writes(one_statement=self.is_one_statement, returning=self.tells_ordinals)
        self.untold_statements = builder.writes(one_statement=self.is_one_statement, returning=False)
        """The same, which tell only how many rows they wrote."""
        self.copy = builder.copy().as_bytes()
        self.checked_columns = builder.checked_columns
        self._unchecked_columns = [name for name in builder.columns if name not in self.checked_columns]
        self.violations = builder.violations().as_bytes()
        self.reference_violations = builder.violations(references=True).as_bytes()
        self.names = builder.columns
        self.key_columns = tuple(table.key)
        self.new_keys = builder.new_keys().as_bytes()
        self.ordinals_of_keys = builder.ordinals_of_keys().as_bytes()
        self._array_types = ["text" if schema.types[n].array else schema.types[n].cast_name for n in self.names]
        self.is_checkable = self.is_one_statement and not absent & set(schema.not_null)
        """Whether the catalogue's rules for a row depend on nothing but what the row says."""

    def subtransaction_script(self, tolerated: Sequence[str], retried: Sequence[str]) -> bytes:
        """Return the script that tries such rows in subtransactions, composed for the codes of the first call."""
        if self._subtransaction_script is None:
            one_row = copy(self._builder)
            one_row.single_row = True
            self._subtransaction_script = script(
                statements=self._builder.writes(one_statement=self.is_one_statement, returning=False),
                one_row_statements=one_row.writes(one_statement=self.is_one_statement, returning=False),
                held_off=HELD_OFF,
                reset_held_off=RESET_HELD_OFF,
                types=self._array_types,
                tolerated=tolerated,
                retried=retried,
                judged_first=[FOREIGN_KEY_VIOLATION] if self._builder.schema.has_unchecked_references else [],
            )
        return self._subtransaction_script

    def violation_is_certain(self, row: Row) -> bool:
        """Whether a row that breaks a rule can't be refused earlier for a column that the query left out."""
        try:
            self.encode([row], self._unchecked_columns)
        except EncodeError:
            return False
        return self.violation_of_encodable_is_certain(lambda name: self._encoders[name][0](row))

    def violation_of_encodable_is_certain(self, value: Callable[[str], Any]) -> bool:
        """Whether `violation_is_certain` holds of a row whose values can all be sent; `value` gives a column's."""
        return all(fits_bigint(value(name)) for name in self._unchecked_columns) and not any(
            value(name) is None for name in self.never_null
        )

    def encode(self, rows: Sequence[Row], names: Sequence[str] | None = None) -> list[str]:
        """Return one array literal a column, of all columns or those named. Raises `EncodeError`."""
        return [self._encode_rows(name, rows).literal() for name in (self.names if names is None else names)]

    def encode_columns(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, EncodedColumn]:
        """Encode the values of every column. Raises `EncodeError`."""
        return {name: self._encode_values(name, columns[name]) for name in self.names}

    def _encode_rows(self, name: str, rows: Sequence[Row]) -> EncodedColumn:
        return self._encode_values(name, list(map(self._encoders[name][0], rows)))

    def _encode_values(self, name: str, values: Sequence[Any]) -> EncodedColumn:
        try:
            return self._encoders[name][1](values)
        except TooManyDigits:
            raise EncodeError(name, NUMBER_OUT_OF_RANGE) from None
        except Exception as error:  # a value of the wrong type may raise anything
            raise EncodeError(name) from error


class EncodeError(Exception):
    """A value that its column's declared type, or its scale, does not admit. It carries the column, never the value."""

    def __init__(self, column: str, code: str = ENCODE_ERROR) -> None:
        super().__init__(column, code)
        self.column = column
        self.code = code


class _StatementBuilder:
    """Composes the statements of one plan: `t` the table, `s` the staged rows, `n` their numbers, `w` the written."""

    def __init__(
        self, table: Table, schema: TableSchema, columns: Sequence[str], *, never_refused: set[str], only_new: bool
    ) -> None:
        self.table = table
        self.schema = schema
        self.columns = columns
        self.never_refused = never_refused
        self.only_new = only_new
        self.single_row = False
        """Whether one row is staged and each parameter is a value; else each parameter is a column of rows."""
        self.target = trusted(identifier(table).as_string())
        self.t = self._unused("t")
        self.s = self._unused("s")
        self.n = self._unused("n")
        self.w = self._unused("w")

    def _unused(self, name: str) -> sql.Identifier:
        """Return a name that no column has, nor the table: an expression of the catalogue must not find ours."""
        while name in self.schema.names or name in name_parts(self.table.name):
            name += "_"
        return sql.Identifier(name)

    def stored(self, column: str) -> sql.Composed:
        return sql.SQL("{}.{}").format(self.t, named(column))

    def staged(self, column: str) -> sql.Composed:
        """Name the staged column in its own type; arrays travel as text, because `unnest` would flatten them."""
        name = sql.SQL("{}.{}").format(self.s, named(column))
        real = self.schema.types[column]
        return sql.SQL("{}::{}").format(name, trusted(real.cast_name)) if real.array else name

    def source(self, columns: Sequence[str] | None = None) -> sql.Composed:
        """Compose `unnest(%s::bigint[], …) with ordinality as s(id, …, n)`."""
        columns = self.columns if columns is None else columns
        if self.single_row:  # takes the server half as long as `unnest` of one row
            types = [self.schema.types[column] for column in columns]
            values = [sql.SQL("%s::{}").format(trusted("text" if real.array else real.cast_name)) for real in types]
            return sql.SQL("(select {}, 1) as {} ({}, {})").format(
                sql.SQL(", ").join(values), self.s, self.names(columns), self.n
            )
        arrays = [
            sql.SQL("%s::{}").format(trusted("text[]" if real.array else f"{real.cast_name}[]"))
            for real in (self.schema.types[column] for column in columns)
        ]
        return sql.SQL("unnest({}) with ordinality as {} ({}, {})").format(
            sql.SQL(", ").join(arrays), self.s, self.names(columns), self.n
        )

    def names(self, columns: Sequence[str]) -> sql.Composed:
        return sql.SQL(", ").join(map(named, columns))

    def as_stored(self, column: str) -> sql.Composable:
        """Compose the staged value as its column stores it: for whatever is compared."""
        return as_stored(self.staged(column), self.schema.types[column])

    def same_key(self) -> sql.Composed:
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(self.stored(column), self.as_stored(column)) for column in self.table.key
        )

    def not_older(self, incoming: sql.Composable) -> sql.Composed:
        """Compose the version guard: an equal version overwrites, unless it is a replay's; any overwrites a null.

        A replay without a version overwrites nothing.
        """
        if self.table.version is None:
            return sql.SQL("({})").format(sql.SQL("false" if self.only_new else "true"))
        stored = self.stored(self.table.version)
        guard = sql.SQL("({} is null or {} < {})" if self.only_new else "({} is null or {} <= {})")
        return guard.format(stored, stored, incoming)

    def counted(self, guard: sql.Composable, *, of: sql.Composable | None = None) -> sql.Composed:
        """Compose the guard that counts the rows which it holds off, of those for which `of` holds."""
        others = sql.SQL("when not ({}) then false ").format(of) if of is not None else sql.SQL("")
        return sql.SQL("case {}when {} then true else {} end").format(others, guard, _HOLD_OFF)

    def updated_columns(self) -> Sequence[str]:
        """Return what an update sets: a row that is all key still counts as written, so its key is set to itself."""
        return [column for column in self.columns if column not in self.table.key] or self.table.key

    def writes(self, *, one_statement: bool, returning: bool) -> Sequence[bytes]:
        """Compose the statement, or pair, that writes the staged rows; `returning` tells which ones it wrote."""
        if one_statement or (self.only_new and self.table.version is None):
            statements = [self.insert(returning=returning)]
        else:
            # an INSERT alone would miss absent NOT NULL columns before it saw a conflict; the INSERT of the pair also
            # overwrites, as the version says, a row that another writer inserted after the UPDATE
            statements = [self.update(returning=returning), self.insert(returning=returning, missing=True)]
        return [statement.as_bytes() for statement in statements]

    def insert(self, *, returning: bool, missing: bool = False) -> sql.Composed:
        """Compose the INSERT; `missing`: of the rows alone whose keys the table does not have.

        `returning` gives the keys as the table has them, as text: RETURNING has the table's columns and no others.
        """
        insert: sql.Composable = sql.SQL("insert into {} as {} ({}) select {} from {}").format(
            self.target,
            self.t,
            self.names(self.columns),
            sql.SQL(", ").join(map(self.staged, self.columns)),
            self.source(),
        )
        if missing:
            insert = sql.SQL("{} where not exists (select 1 from {} as {} where {})").format(
                insert, self.target, self.t, self.same_key()
            )
        insert = sql.SQL("{} order by {}.{} on conflict ({}){}").format(
            insert, self.s, self.n, self.names(self.table.key), self._overwrite()
        )
        if not returning:
            return sql.Composed([insert])
        keys = sql.SQL(", ").join(sql.SQL("{}::text").format(self.stored(column)) for column in self.table.key)
        return sql.SQL("{} returning {}").format(insert, keys)

    def ordinals_of_keys(self) -> sql.Composed:
        """Compose the query for the numbers of the staged rows that have these keys, which the INSERT returned.

        It is asked only where some of several rows were written: a join in each statement costs a fifth of it.
        """
        keys = self.table.key
        arrays = sql.SQL(", ").join(sql.SQL("%s::text[]") for _ in keys)
        test = sql.SQL(" and ").join(
            sql.SQL("{}.{}::{} = {}").format(
                self.w, named(column), trusted(self.schema.types[column].cast_name), self.as_stored(column)
            )
            for column in keys
        )
        return sql.SQL("select {}.{} from {}, unnest({}) as {} ({}) where {}").format(
            self.s, self.n, self.source(keys), arrays, self.w, self.names(keys), test
        )

    def _overwrite(self) -> sql.Composed:
        """Compose what becomes of a stored row: a replay without a version leaves it, and counts that."""
        leave = self.only_new and self.table.version is None
        columns = self.updated_columns()[:1] if leave else self.updated_columns()
        source = self.t if leave else sql.Identifier("excluded")
        action = sql.SQL(" do update set {}").format(
            sql.SQL(", ").join(sql.SQL("{} = {}.{}").format(named(column), source, named(column)) for column in columns)
        )
        if not leave and self.table.version is None:
            return action
        incoming = sql.SQL("excluded.{}").format(named(self.table.version or ""))
        return sql.SQL("{} where {}").format(action, self.counted(self.not_older(incoming)))

    def update(self, *, returning: bool) -> sql.Composed:
        """Compose the first statement of a partial row's pair."""
        values = [sql.SQL("{} = {}").format(named(column), self.staged(column)) for column in self.updated_columns()]
        condition = self.same_key()
        if self.table.version is not None:
            # the key once more: the server may test conditions in any order, and only its own row holds one off
            guard = self.counted(self.not_older(self.as_stored(self.table.version)), of=condition)
            condition = sql.SQL("{} and {}").format(condition, guard)
        update = sql.SQL("update {} as {} set {} from {} where {}").format(
            self.target, self.t, sql.SQL(", ").join(values), self.source(), condition
        )
        return sql.SQL("{} returning {}.{}").format(update, self.s, self.n) if returning else update

    def new_keys(self) -> sql.Composed:
        """Compose the query for staged keys that the table does not have."""
        return sql.SQL("select {}.{} from {} where not exists (select 1 from {} as {} where {})").format(
            self.s, self.n, self.source(self.table.key), self.target, self.t, self.same_key()
        )

    @property
    def checked_columns(self) -> Sequence[str]:
        """Columns that a rule names, and those whose values may be refused before any rule is tested."""
        if any(check.whole_row for check in self.schema.checks):
            return self.columns
        named = {column for check in self.schema.checks for column in check.columns} | dict(self._limits()).keys()
        wanted = [column for column in self.columns if column in named or column not in self.never_refused]
        return wanted or self.columns[:1]

    def violations(self, *, references: bool = False) -> sql.Composed:
        """Compose the query for the rule, by its index in `rules`, that each staged row breaks first.

        Rules are tested in the order in which Postgres tests them.
        """
        columns = self.columns if references else self.checked_columns
        cases = [
            sql.SQL("when {} then {}").format(test, result)
            for test, result in (*self._refused_before_rules(columns), *self._rules(columns, references=references))
        ]
        limited = dict(self._limits())  # a text that is too long must not refuse the query, but its row
        typed = sql.SQL(", ").join(
            sql.SQL("{} as {}").format(self.staged(c) if c in limited else self.as_stored(c), named(c)) for c in columns
        )
        inner = sql.SQL("select {}, {}.{} from {}").format(typed, self.s, self.n, self.source(columns))
        return sql.SQL(
            "select * from (select {}.{}, case {} end as broken from ({}) as {}) as v where broken is not null"
        ).format(self.s, self.n, sql.SQL(" ").join(cases), inner, self.s)

    def _refused_before_rules(self, columns: Sequence[str]) -> list[tuple[sql.Composable, sql.Composable]]:
        """Compose the tests of values that don't fit: Postgres refuses those before it tests any rule."""
        # the server evaluates only expressions that are used: `num_nulls` uses every column, and is never negative
        every = sql.SQL(", ").join(sql.SQL("{}.{}").format(self.s, named(column)) for column in columns)
        none = sql.SQL("null")
        return [
            (sql.SQL("num_nulls({}) < 0").format(every), none),
            *(
                (sql.SQL("char_length({}.{}) > {}").format(self.s, named(name), limit), none)
                for name, limit in self._limits()
            ),
        ]

    def _rules(self, columns: Sequence[str], *, references: bool) -> list[tuple[sql.Composable, sql.Composable]]:
        """Compose the tests of the rules, each with the rule's index."""
        not_null, checks = self.schema.not_null, self.schema.checks
        tests: list[tuple[int, sql.Composable]] = [
            (index, sql.SQL("{}.{} is null").format(self.s, named(column)))
            for index, column in enumerate(not_null)
            if column in columns
        ]
        tests += [
            (index, sql.SQL("({}) is false").format(trusted(check.expression)))
            for index, check in enumerate(checks, len(not_null))
        ]
        if references:
            first = len(not_null) + len(checks)
            tests += [(index, self._orphan(*each)) for index, each in enumerate(self._references(), first)]
        return [(test, sql.Literal(index)) for index, test in tests]

    def copy(self) -> sql.Composed:
        """Compose the COPY into the table itself, which has no parameters."""
        return sql.SQL("copy {} ({}) from stdin (encoding 'UTF8')").format(
            identifier(self.table), sql.SQL(", ").join(map(sql.Identifier, self.columns))
        )

    def _limits(self) -> Sequence[tuple[str, sql.Literal]]:
        return [
            (name, sql.Literal(self.schema.types[name].modifier - 4))
            for name in self.columns
            if self.schema.types[name].modified and self.schema.types[name].name in ("varchar", "bpchar")
        ]

    def _references(self) -> Sequence[tuple[sql.SQL, Sequence[tuple[str, str]]]]:
        return [
            (trusted(reference.table), list(zip(reference.columns, reference.others, strict=True)))
            for reference in self.schema.references
        ]

    def _orphan(self, table: sql.SQL, pairs: Sequence[tuple[str, str]]) -> sql.Composed:
        """Compose the test: no column is null, no row matches, and the row would be written.

        Postgres does not test a foreign key of a row that is older than the stored one.
        """
        other = self._unused("other")
        present = [sql.SQL("{}.{} is not null").format(self.s, named(own)) for own, _ in pairs]
        match = [sql.SQL("{}.{} = {}.{}").format(other, named(theirs), self.s, named(own)) for own, theirs in pairs]
        test = sql.SQL("{} and not exists (select 1 from {} as {} where {})").format(
            sql.SQL(" and ").join(present), table, other, sql.SQL(" and ").join(match)
        )
        if self.table.version is None:
            return test
        incoming = sql.SQL("{}.{}").format(self.s, named(self.table.version))
        return sql.SQL("{} and not exists (select 1 from {} as {} where {} and not {})").format(
            test, self.target, self.t, self.same_key(), self.not_older(incoming)
        )
