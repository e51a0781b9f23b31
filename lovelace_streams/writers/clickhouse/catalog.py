"""Rows compared with the real table of ClickHouse, and what the writer has to know of it."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.records import Reason
from lovelace_streams.rows.declaration import Column, Table
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.types import scalar
from lovelace_streams.writers import Entry
from lovelace_streams.writers.clickhouse.native import Pack, halves, pack
from lovelace_streams.writers.clickhouse.types import (
    MICROSECONDS,
    OUT_OF_RANGE,
    Take,
    Type,
    Unfit,
    Whole,
    days,
    exact,
    holds,
    parse,
    precision,
    taker,
    ticks,
    whole,
)

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

BIAS = 2**63
"""Makes a signed version an unsigned one that sorts alike."""
ORDER_BITS = 64


class Shape(msgspec.Struct, frozen=True):
    """What the writer has to know of the real table."""

    columns: dict[str, str]
    """Name → type, of the columns that are written, the version column last."""
    takers: dict[type[Row], dict[str, Take]]
    """How each row class's values are checked, in the order of `columns`."""
    wholes: dict[str, Whole]
    """How all values of a column are checked at once, of the columns for which there is such a way."""
    versions: Callable[[Sequence[Entry]], list[int]]
    """The one integer of each row by which the table tells which row of a key is the last; raises `Unfit`."""
    packs: dict[str, Pack]
    """How values that were checked are sent, of `names`."""
    packed_versions: Callable[[Sequence[Entry], Mapping[str, Sequence[Any]]], bytes]
    """The versions as they are sent, given the columns that were checked; raises `Unfit`."""
    constraints: frozenset[str]
    """Names of the table's CHECKs: of an error text only such a name is taken."""
    names: tuple[str, ...]
    """The columns without the version."""
    durable: bool
    """Whether an insert is on the disk, not only with the kernel, when it is acknowledged."""


def qualified(table: Table) -> str:
    """The quoted name, with its database where one is given."""
    return ".".join(map(quoted, table.name.split(".")))


def quoted(name: str) -> str:
    """An identifier.

    >>> quoted("a`b")
    '`a\\\\`b`'
    """
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def inspect(client: "Client", table: Table, rows: Sequence[type[Row]], where: str, way_out: str) -> Shape:
    """Compare the rows with the real table.

    Raises `DeploymentFault`, one line that names both sides and ends with `way_out`.
    """
    return _Inspection(client, table, rows, where, way_out).run()


class _Inspection:
    def __init__(self, client: "Client", table: Table, rows: Sequence[type[Row]], where: str, way_out: str) -> None:
        self.client = client
        self.table = table
        self.rows = rows
        self.where = where
        self.way_out = way_out

    def run(self) -> Shape:
        database, _, name = self.table.name.rpartition(".")
        of = {"database": database, "name": name}
        found = list(self.client.query(TABLE, parameters=of).named_results())
        if not found:
            raise self._fault("there is no such table")
        real = found[0]
        columns = {each["name"]: each for each in self.client.query(COLUMNS, parameters=of).named_results()}
        version = self._version_column(real, columns)
        self._key(real, columns)
        names = [column.name for column in self.table.columns]
        takers = {row: self._takers(row, names, columns, version) for row in self.rows}
        versions, packed_versions = self._versions(columns, version)
        return Shape(
            columns={name: columns[name]["type"] for name in (*names, version)},
            takers=takers,
            wholes=self._wholes(columns),
            versions=versions,
            packs={name: pack(columns[name]["type"]) for name in names},
            packed_versions=packed_versions,
            names=tuple(names),
            constraints=frozenset(_CONSTRAINT.findall(real["create_table_query"])),
            durable="fsync_after_insert = 1" in real["engine_full"],
        )

    def _fault(self, message: str) -> DeploymentFault:
        return DeploymentFault(
            f"{self.rows[0].__name__} ↔ table {self.table.name} at {self.where}: {message}; {self.way_out}"
        )

    def _version_column(self, real: dict[str, Any], columns: dict[str, Any]) -> str:
        engine = str(real["engine"])
        if not engine.endswith("ReplacingMergeTree"):
            raise self._fault(f"its engine is {engine}, not a ReplacingMergeTree, so a replay would write rows twice")
        arguments = re.match(r"\w+\(((?:[^()']|'(?:[^'\\]|\\.)*')*)\)", str(real["engine_full"]))
        named = [part.strip().strip("`") for part in _STRING.sub("", arguments[1] if arguments else "").split(",")]
        version = next((name for name in named if name in columns), None)
        if version is None:
            raise self._fault(
                f"its {engine} names no version column, so what was written last would win, also a replay"
            )
        return version

    def _key(self, real: dict[str, Any], columns: dict[str, Any]) -> None:
        """The table replaces rows with one sorting key, and only within one partition."""
        sorting = [part.strip().strip("`") for part in str(real["sorting_key"]).strip("()").split(",")]
        key = self.table.key
        if sorted(sorting) != sorted(key):
            raise self._fault(f"it replaces rows by ({', '.join(sorting)}), the row's key is ({', '.join(key)})")
        others = [name for name, column in columns.items() if column["is_in_partition_key"] and name not in key]
        if others:
            raise self._fault(
                f"its partition depends on {', '.join(others)}, which is not of the key:"
                " rows of one key in two partitions are never replaced"
            )

    def _takers(self, row: type[Row], names: list[str], columns: dict[str, Any], version: str) -> dict[str, Take]:
        takers = {}
        for field in row.__table__.columns:
            column = columns.get(field.name)
            if column is None:
                raise self._fault(f"the table has no column {field.name}")
            if column["default_kind"] in ("MATERIALIZED", "ALIAS"):
                raise self._fault(f"column {field.name} is {column['default_kind']} and can't be written")
            if field.name == version:
                raise self._fault(f"column {version} is the table's version, which the writer fills: name another one")
            takers[field.name] = taker(field.type, self._held(field, parse(column["type"])))
        apart = sorted(set(names) ^ set(takers))
        if apart:
            raise self._fault(f"{row.__name__} differs from it in {', '.join(apart)}, and rows are replaced whole")
        return {name: takers[name] for name in names}

    def _held(self, field: Column, real: Type) -> Type:
        kind = getattr(field.type, "__name__", str(field.type))
        if not holds(field.type, real):
            raise self._fault(f"column {field.name} is {real.shown} and can't hold {kind}")
        if field.nullable and not real.nullable:
            raise self._fault(f"{field.name} may be null ({kind} | None), but the column is {real.shown}")
        if field.name in self.table.key and not exact(field.type, real):
            raise self._fault(f"column {field.name} is {real.shown}, which would take different keys for one")
        return real

    def _wholes(self, columns: dict[str, Any]) -> dict[str, Whole]:
        """Of the columns that all classes declare as of one type."""
        declared: dict[str, list[Any]] = {}
        for row in self.rows:
            for column in row.__table__.columns:
                declared.setdefault(column.name, []).append(column.type)
        found = {
            name: whole(kinds[0], parse(columns[name]["type"]))
            for name, kinds in declared.items()
            if all(kind == kinds[0] for kind in kinds)
        }
        return {name: way for name, way in found.items() if way is not None}

    def _versions(
        self, columns: dict[str, Any], name: str
    ) -> tuple[Callable[[Sequence[Entry]], list[int]], Callable[[Sequence[Entry], Mapping[str, Sequence[Any]]], bytes]]:
        """(version, order) as one integer, and as bytes; the order alone where the row declares none."""
        shown = columns[name]["type"]
        way = pack(shown)
        declared = self.table.version
        if declared is None:
            if shown not in ("UInt64", "UInt128", "UInt256"):
                raise self._fault(f"the version column {name} is {shown}: it has to be UInt64 or longer")
            return orders, lambda entries, _taken: way(orders(entries))
        if shown not in ("UInt128", "UInt256"):
            raise self._fault(
                f"the version column {name} is {shown}: it has to be UInt128,"
                f" to hold {declared} and the place in the topic"
            )
        kind = scalar(next(c.type for c in self.table.columns if c.name == declared))
        numbers = NUMBERS.get(kind)
        if numbers is None:
            raise self._fault(f"the version {declared} is {getattr(kind, '__name__', kind)}: not int, datetime or date")
        value_of = attrgetter(declared)
        real = parse(columns[declared]["type"])
        is_sent_so = real.name != "DateTime" and (real.name != "DateTime64" or precision(real) == MICROSECONDS)

        def biased(entries: Sequence[Entry], taken: Sequence[int] | None = None) -> list[int]:
            values = numbers([value_of(entry.row) for entry in entries]) if taken is None else taken
            if not -BIAS <= min(values) <= max(values) < BIAS:
                raise Unfit(Reason.OUT_OF_RANGE, OUT_OF_RANGE, declared)
            return [value + BIAS for value in values]

        def versions(entries: Sequence[Entry]) -> list[int]:
            return [high << ORDER_BITS | low for high, low in zip(biased(entries), orders(entries), strict=True)]

        def packed(entries: Sequence[Entry], taken: Mapping[str, Sequence[Any]]) -> bytes:
            if shown != "UInt128":
                return way(versions(entries))
            return halves(orders(entries), biased(entries, taken[declared] if is_sent_so else None))

        return versions, packed


def columns_of(rows: Sequence[Row], names: Sequence[str]) -> list[list[Any]]:
    """The values of each of these columns.

    Rows of one class are read once each: half of what it costs to read an attribute of all of them, column by column.
    """
    if len(set(map(type, rows))) != 1:
        return [list(map(attrgetter(name), rows)) for name in names]
    fields = rows[0].__struct_fields__
    values = list(chain.from_iterable(map(msgspec.structs.astuple, rows)))
    return [values[fields.index(name) :: len(fields)] for name in names]


def orders(entries: Sequence[Entry]) -> list[int]:
    """Their places in their partitions."""
    return [entry.sequence for entry in entries]


NUMBERS: dict[Any, Callable[[list[Any]], list[int]]] = {
    int: lambda values: values,
    datetime: ticks,
    date: days,
}
"""A declared version as a signed integer of 64 bits."""

_CONSTRAINT = re.compile(r"CONSTRAINT `?(\w+)`? CHECK")
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'")

_OF = "database = if({database:String} = '', currentDatabase(), {database:String})"
TABLE = (
    "select engine, engine_full, create_table_query, sorting_key from system.tables "  # noqa: S608 - our own words
    f"where {_OF} and name = {{name:String}}"
)
COLUMNS = (
    "select name, type, default_kind, is_in_partition_key from system.columns "  # noqa: S608 - our own words
    f"where {_OF} and table = {{name:String}} order by position"
)
