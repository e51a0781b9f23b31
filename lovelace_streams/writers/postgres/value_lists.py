"""Widen the CHECKs that `lovelace ddl` made for the values of an Enum or Literal, when the row has new ones.

Such a rule lists values of one column: `CHECK ("kind" IN ('a', 'b'))`, which Postgres names `<table>_<column>_check`.
A list that lacks values of the row refuses every row that has one of them. Values are added to it, never taken away, so
no stored row can break the new rule. Rules of another form or name are the owner's, and left alone.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg import sql

from lovelace_streams.rows.row import Row
from lovelace_streams.writers.postgres.catalog import RELATION, identifier, name_parts
from lovelace_streams.writers.postgres.ddl import declared_values, literal

VALIDATE = "VALIDATE CONSTRAINT"
"""In the statement that has the server look at stored rows: it comes after the others, under a weaker lock."""
NAME_BYTES_MAX = 63

_LITERAL = r"""\(*(?:E?'(?:[^']|'')*'|-?\d+(?:\.\d+)?)\)*(?:::[a-z ]+(?:\(\d+\))?\)*)*"""
_IN = (
    r"\(*{column}\)*(?:::[a-z ]+)?\)* = "
    r"(?:ANY \(+ARRAY\[(?P<many>{literal}(?:, {literal})*)\]\)*(?:::[a-z ]+\[\])?|(?P<one>{literal}))\)*"
)
"""How Postgres writes such a rule: with ANY if it lists several values."""

CHECKS = """
select c.conname, pg_get_expr(c.conbin, c.conrelid), c.convalidated, quote_ident(a.attname)
from pg_constraint c join pg_attribute a on a.attrelid = c.conrelid and c.conkey = array[a.attnum]
where c.conrelid = %s and c.contype = 'c' and c.conislocal and a.attname = %s
order by c.conname
"""


def widened(connection: psycopg.Connection[Any], rows: Sequence[type[Row]]) -> list[str]:
    """Return the statements that add the rows' values to such lists. Raises `psycopg.Error`."""
    table = rows[0].__table__
    [relation] = connection.execute(RELATION, [identifier(table).as_string(connection)]).fetchall()
    statements = []
    for column in dict.fromkeys(column.name for row in rows for column in row.__table__.columns):
        columns = [each for row in rows for each in row.__table__.columns if each.name == column]
        if values := declared_values(columns):
            for name, listed, valid in _lists(connection, relation[0], name_parts(table.name)[-1], column):
                statements += _widen(connection, identifier(table), column, name, listed, values, valid=valid)
    return statements


def _lists(
    connection: psycopg.Connection[Any], relation: int, table: str, column: str
) -> Iterator[tuple[str, str, bool]]:
    """Yield our rules of a column: the name, the listed values as SQL, and whether all stored rows keep it."""
    for name, expression, valid, quoted in connection.execute(CHECKS, [relation, column]).fetchall():
        listed = re.fullmatch(_IN.format(column=re.escape(quoted), literal=_LITERAL), expression)
        if listed is not None and _is_generated(name, table, column):
            yield name, listed["many"] or _balanced(listed["one"]), valid


def _balanced(text: str) -> str:
    """Drop the parentheses that end more than a literal.

    >>> _balanced("'a)'::text)"), _balanced("(1)::bigint)")
    ("'a)'::text", '(1)::bigint')
    """
    plain = re.sub(r"'(?:[^']|'')*'", "", text)
    surplus = plain.count(")") - plain.count("(")
    return text[: len(text) - surplus]


def _is_generated(name: str, table: str, column: str) -> bool:
    """Whether Postgres chose the name of a rule that had none."""
    usual = f"{table}_{column}_check"
    if len(usual.encode()) > NAME_BYTES_MAX:  # cut in the middle
        return re.search(r"_check\d*$", name) is not None
    return re.fullmatch(re.escape(usual) + r"\d*", name) is not None


def _widen(
    connection: psycopg.Connection[Any],
    table: sql.Identifier,
    column: str,
    name: str,
    listed: str,
    values: Sequence[Any],
    *,
    valid: bool,
) -> list[str]:
    [(known,)] = connection.execute(f"select array[{listed}]::text[]".encode(), prepare=False).fetchall()
    new = [value for value in values if str(value) not in known]
    if not new:
        return []
    all_values = ", ".join([listed, *map(literal, new)])
    rule, target = sql.Identifier(name).as_string(), table.as_string()
    check = f"CHECK ({sql.Identifier(column).as_string()} IN ({all_values})) NOT VALID"
    statements = [f"ALTER TABLE {target} DROP CONSTRAINT {rule}, ADD CONSTRAINT {rule} {check};"]
    return [*statements, f"ALTER TABLE {target} {VALIDATE} {rule};"] if valid else statements
