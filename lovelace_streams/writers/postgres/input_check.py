"""Ask the server whether a value is one of its column's type: by the type's own input function, and no table.

Most types refuse a bad value with class 22, which is the record's. Others do not: `jsonpath`, `tsquery` and `ltree`
with a syntax error (42601), as if our statement were wrong; `hstore` before Postgres 16 and PostGIS with an internal
error (XX000), as if the server were broken; a domain's CHECK with whatever its function raises. Here such a value is
told from a wrong deployment and from an outage: by the same cast, tried with it and with one that is known to be good.
"""

from collections.abc import Iterator, Sequence

import psycopg
from psycopg import sql

from lovelace_streams.records import Reason
from lovelace_streams.writers import Entry, Refusal
from lovelace_streams.writers.postgres.catalog import identifier
from lovelace_streams.writers.postgres.faults import fault_of
from lovelace_streams.writers.postgres.grouping import Tables, TargetTable
from lovelace_streams.writers.postgres.sql import EncodeError, Plan
from lovelace_streams.writers.postgres.stored import trusted
from lovelace_streams.writers.postgres.transaction import Transactions
from lovelace_streams.writers.postgres.trip import Query
from lovelace_streams.writers.postgres.types import TypeInfo

SOFT_ERRORS_SINCE = 160_000
"""The first `server_version` with `pg_input_is_valid`: a soft error is the value's by definition."""
SYNTAX_ERRORS = frozenset({"42601", "42602"})
"""Codes that a cast gives only to its value, if it takes NULL."""
STORED_ROWS = 1000
"""How many stored rows are looked at for one whose column is not NULL."""


def may_be_a_values(code: str) -> bool:
    """Whether a code is not the record's by the table, and yet may be a value's, as its type's input function gives it.

    >>> [may_be_a_values(code) for code in ("42601", "XX000", "55000", "22P02", "57014")]
    [True, True, True, False, False]
    """
    return code.startswith("XX") or fault_of(code) in ("deployment", "unlisted")


class InputCheck:
    """Finds rows with a value that its column's type refuses, although it takes others."""

    def __init__(self, tables: Tables, transactions: Transactions) -> None:
        self._tables = tables
        self._transactions = transactions

    def find(self, entries: Sequence[Entry]) -> dict[int, Refusal]:
        """Name such rows, by their indexes. Raises `DestinationFault`."""
        named: dict[int, Refusal] = {}
        for table in self._tables.tables_of(entries):
            plans: dict[Plan, list[int]] = {}
            indexes = [index for index, entry in enumerate(entries) if self._tables.table_of(entry) is table]
            for index, plan in zip(indexes, table.plans_of([entries[index] for index in indexes]), strict=True):
                plans.setdefault(plan, []).append(index)
            for plan, of_plan in plans.items():
                for column in plan.uncertain_columns:
                    left = [index for index in of_plan if index not in named and _has_value(entries[index], column)]
                    named |= self._find_in_column(table, plan, column, {index: entries[index] for index in left})
        return named

    def _find_in_column(
        self, table: TargetTable, plan: Plan, column: str, entries: dict[int, Entry]
    ) -> dict[int, Refusal]:
        refused = dict(self._refused(table.schema.types[column], plan, column, entries))
        doubtful = {index: code for index, code in refused.items() if may_be_a_values(code)}
        if not doubtful:
            return {}
        others_pass = len(refused) < len(entries) or self._takes_stored_value(table, column)
        return {
            index: Refusal(Reason.BAD_VALUE, code, column)
            for index, code in doubtful.items()
            if others_pass or self._is_soft(table.schema.types[column], plan, column, entries[index], code)
        }

    def _refused(self, real: TypeInfo, plan: Plan, column: str, entries: dict[int, Entry]) -> Iterator[tuple[int, str]]:
        """Yield the rows whose value the cast refuses, with its code: cut in halves until each is alone."""
        if not entries:
            return
        try:
            [literal] = plan.encode([entry.row for entry in entries.values()], [column])
        except EncodeError:  # it can't even be sent: refused elsewhere
            return
        code = self._code_of(Query(_cast_all(real), [literal]))
        if code is None:
            return
        indexes = list(entries)
        if len(indexes) == 1:
            yield indexes[0], code
            return
        middle = len(indexes) // 2
        for half in (indexes[:middle], indexes[middle:]):
            yield from self._refused(real, plan, column, {index: entries[index] for index in half})

    def _takes_stored_value(self, table: TargetTable, column: str) -> bool:
        """Whether the cast takes a value that the table holds: False also if there is none, or we may not read it."""
        name, real = sql.Identifier(column), trusted(table.schema.types[column].display_name)
        query = sql.SQL(
            "select ({name}::text)::{type} is null from (select {name} from {table} limit {rows}) as stored"
            " where {name} is not null limit 1"
        ).format(name=name, type=real, table=identifier(table.table), rows=STORED_ROWS)
        try:
            return bool(self._transactions.fetch(Query(query.as_bytes())))
        except psycopg.Error as error:
            self._transactions.roll_back(self._transactions.driver, error)
            return False

    def _is_soft(self, real: TypeInfo, plan: Plan, column: str, entry: Entry, code: str) -> bool:
        """Whether the type itself says that it is no value of its own."""
        if self._transactions.driver.info.server_version < SOFT_ERRORS_SINCE:
            return code in SYNTAX_ERRORS and self._code_of(Query(_cast_all(real), ["{NULL}"])) is None
        query = sql.SQL("select v from unnest(%s::text[]) as v where pg_input_is_valid(v, {})").format(
            sql.Literal(real.display_name)
        )
        try:
            return not self._transactions.fetch(Query(query.as_bytes(), plan.encode([entry.row], [column])))
        except psycopg.Error as error:
            self._transactions.roll_back(self._transactions.driver, error)
            return False

    def _code_of(self, query: Query) -> str | None:
        try:
            self._transactions.fetch(query)
        except psycopg.Error as error:
            return self._transactions.roll_back(self._transactions.driver, error)
        return None


def _cast_all(real: TypeInfo) -> bytes:
    """Compose the query that casts all elements of a parameter as the writer's statements do, and to the domain."""
    first = trusted("text" if real.array else real.cast_name)
    return (
        sql.SQL("select count(*) from unnest(%s::{}[]) as v where v::{} is null")
        .format(first, trusted(real.display_name))
        .as_bytes()
    )


def _has_value(entry: Entry, column: str) -> bool:
    return getattr(entry.row, type(entry.row).__table__.attributes[column]) is not None
