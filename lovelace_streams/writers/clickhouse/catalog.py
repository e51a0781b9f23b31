"""The real table of ClickHouse, compared with the row classes, and what the writer has to know of it."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.rows.declaration import Column, Table
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.types import scalar
from lovelace_streams.writers.clickhouse.at_once import PackAtOnce, packer_at_once
from lovelace_streams.writers.clickhouse.column_checks import ColumnCheck, column_check
from lovelace_streams.writers.clickhouse.native import ColumnPacker, column_packer
from lovelace_streams.writers.clickhouse.types import ClickHouseType, keeps_keys_apart, parse_type
from lovelace_streams.writers.clickhouse.value_checks import ValueCheck, can_hold, value_check
from lovelace_streams.writers.clickhouse.versions import (
    SEQUENCE_TYPES,
    TO_NUMBERS,
    VERSION_TYPES,
    DeclaredVersions,
    SequenceVersions,
    Versions,
)

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

T = TypeVar("T")
"""What there is one of for a column."""

_IS_THE_TABLE = "database = if({database:String} = '', currentDatabase(), {database:String})"
TABLE_QUERY = (
    "select engine, engine_full, create_table_query, sorting_key, dependencies_table from system.tables "  # noqa: S608 - our own words
    f"where {_IS_THE_TABLE} and name = {{name:String}}"
)
COLUMNS_QUERY = (
    "select name, type, default_kind, is_in_partition_key from system.columns "  # noqa: S608 - our own words
    f"where {_IS_THE_TABLE} and table = {{name:String}} order by position"
)

_CONSTRAINT = re.compile(r"CONSTRAINT `?(\w+)`? CHECK")
_ENGINE_ARGUMENTS = re.compile(r"\w+\(((?:[^()']|'(?:[^'\\]|\\.)*')*)\)")
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'")


class TableSchema(msgspec.Struct, frozen=True):
    """What the writer has to know of the real table."""

    columns: dict[str, str]
    """Name → type, of the columns that are written, the version column last."""
    value_checks: dict[type[Row], dict[str, ValueCheck]]
    """The check of each value, by row class and column."""
    column_checks: dict[str, ColumnCheck]
    """The check of a whole column, for the columns that have one."""
    packers_at_once: dict[str, PackAtOnce]
    """What checks and packs a whole column in one go, for the columns that have one."""
    versions: Versions
    """What fills the version column."""
    packers: dict[str, ColumnPacker]
    """How checked values are packed, by the columns of `names`."""
    constraints: frozenset[str]
    """Names of the table's CHECKs: of an error's text only such a name is taken."""
    names: tuple[str, ...]
    """The columns without the version column."""
    views: tuple[str, ...]
    """Names of the materialized views that take what is inserted: one that fails refuses what is written already."""
    durable: bool
    """Whether an acknowledged insert is on the disk, and not only with the kernel."""


def qualified_name(table: Table) -> str:
    """Return the table's quoted name, with its database if the row class names one."""
    return ".".join(map(quoted, table.name.split(".")))


def quoted(name: str) -> str:
    """Quote an identifier.

    >>> quoted("a`b")
    '`a\\\\`b`'
    """
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def inspect(client: "Client", table: Table, rows: Sequence[type[Row]], where: str, way_out: str) -> TableSchema:
    """Compare the row classes with the real table.

    Raises `DeploymentFault`, one line that names both sides and ends with `way_out`.
    """
    return _Inspection(client, table, rows, where, way_out).run()


class _Inspection:
    """One comparison; its methods raise `DeploymentFault` for what does not fit."""

    def __init__(self, client: "Client", table: Table, rows: Sequence[type[Row]], where: str, way_out: str) -> None:
        self.client = client
        self.table = table
        self.rows = rows
        self.where = where
        self.way_out = way_out

    def run(self) -> TableSchema:
        database, _, name = self.table.name.rpartition(".")
        parameters = {"database": database, "name": name}
        found = list(self.client.query(TABLE_QUERY, parameters=parameters).named_results())
        if not found:
            raise self._fault("there is no such table")
        real = found[0]
        columns = {
            each["name"]: each for each in self.client.query(COLUMNS_QUERY, parameters=parameters).named_results()
        }
        version = self._version_column(real, columns)
        self._check_key(real, columns)
        names = [column.name for column in self.table.columns]
        # first of all: it finds the columns that the table lacks
        value_checks = {row: self._value_checks(row, names, columns, version) for row in self.rows}
        return TableSchema(
            columns={name: columns[name]["type"] for name in (*names, version)},
            value_checks=value_checks,
            column_checks=self._of_all_rows(columns, column_check),
            packers_at_once=self._of_all_rows(columns, packer_at_once),
            versions=self._versions(columns, version),
            packers={name: column_packer(columns[name]["type"]) for name in names},
            names=tuple(names),
            constraints=frozenset(_CONSTRAINT.findall(real["create_table_query"])),
            views=tuple(real["dependencies_table"]),
            durable="fsync_after_insert = 1" in real["engine_full"],
        )

    def _fault(self, message: str) -> DeploymentFault:
        return DeploymentFault(
            f"{self.rows[0].__name__} ↔ table {self.table.name} at {self.where}: {message}; {self.way_out}"
        )

    def _version_column(self, real: dict[str, Any], columns: dict[str, Any]) -> str:
        """Return the name of the version column: the first of the engine's arguments that is a column."""
        engine = str(real["engine"])
        if not engine.endswith("ReplacingMergeTree"):
            raise self._fault(f"its engine is {engine}, not a ReplacingMergeTree, so a replay would write rows twice")
        # the arguments of Replicated… begin with strings: a path and a replica's name
        arguments = _ENGINE_ARGUMENTS.match(str(real["engine_full"]))
        unquoted = _STRING.sub("", arguments[1] if arguments else "")
        named = [part.strip().strip("`") for part in unquoted.split(",")]
        version = next((name for name in named if name in columns), None)
        if version is None:
            raise self._fault(
                f"its {engine} names no version column, so what was written last would win, also a replay"
            )
        return version

    def _check_key(self, real: dict[str, Any], columns: dict[str, Any]) -> None:
        """Check that the table replaces rows by the key: by its sorting key, and only within one partition."""
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

    def _value_checks(
        self, row: type[Row], names: list[str], columns: dict[str, Any], version: str
    ) -> dict[str, ValueCheck]:
        checks = {}
        for field in row.__table__.columns:
            column = columns.get(field.name)
            if column is None:
                raise self._fault(f"the table has no column {field.name}")
            if column["default_kind"] in ("MATERIALIZED", "ALIAS"):
                raise self._fault(f"column {field.name} is {column['default_kind']} and can't be written")
            if field.name == version:
                raise self._fault(f"column {version} is the table's version, which the writer fills: name another one")
            column_type = parse_type(column["type"])
            self._check_column(field, column_type)
            checks[field.name] = value_check(field.type, column_type)
        differing = sorted(set(names) ^ set(checks))
        if differing:
            raise self._fault(f"{row.__name__} differs from it in {', '.join(differing)}, and rows are replaced whole")
        return {name: checks[name] for name in names}

    def _check_column(self, field: Column, column: ClickHouseType) -> None:
        declared = getattr(field.type, "__name__", str(field.type))
        if not can_hold(field.type, column):
            raise self._fault(f"column {field.name} is {column.full_name} and can't hold {declared}")
        scale = column.scale
        if field.scale is not None and scale is not None and field.scale.digits > scale:
            digits = f"{field.scale.digits} digits after the point (Scale)"
            raise self._fault(f"{field.name} may have {digits}, but the column is {column.full_name}")
        if field.nullable and not column.nullable:
            raise self._fault(f"{field.name} may be null ({declared} | None), but the column is {column.full_name}")
        if field.name in self.table.key and not keeps_keys_apart(field.type, column):
            raise self._fault(f"column {field.name} is {column.full_name}, which would take different keys for one")

    def _of_all_rows(self, columns: dict[str, Any], make: Callable[[Any, ClickHouseType], T | None]) -> dict[str, T]:
        """Return what `make` gives for the columns that all row classes declare with one type."""
        declared: dict[str, list[Any]] = {}
        for row in self.rows:
            for column in row.__table__.columns:
                declared.setdefault(column.name, []).append(column.type)
        found = {
            name: make(types[0], parse_type(columns[name]["type"]))
            for name, types in declared.items()
            if all(each == types[0] for each in types)
        }
        return {name: made for name, made in found.items() if made is not None}

    def _versions(self, columns: dict[str, Any], name: str) -> Versions:
        type_name = columns[name]["type"]
        declared = self.table.version
        if declared is None:
            if type_name not in SEQUENCE_TYPES:
                raise self._fault(f"the version column {name} is {type_name}: it has to be UInt64 or longer")
            return SequenceVersions(type_name)
        if type_name not in VERSION_TYPES:
            raise self._fault(
                f"the version column {name} is {type_name}: it has to be UInt128,"
                f" to hold {declared} and the place in the topic"
            )
        plain = scalar(next(c.type for c in self.table.columns if c.name == declared))
        if plain not in TO_NUMBERS:
            shown = getattr(plain, "__name__", plain)
            raise self._fault(f"the version {declared} is {shown}: not int, datetime or date")
        return DeclaredVersions(type_name, declared, plain, parse_type(columns[declared]["type"]))
