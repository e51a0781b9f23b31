"""Which rows are stored: a refusal of an insert does not say that nothing was written.

ClickHouse writes a table's part before its materialized views have taken the rows, so what a view refuses is in the
table (seen with 395 of a `throwIf`); an insert with several partitions writes a part of each. A row is found by its key
and by the number in the version column, which holds its place in the topic, so no other row has both.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any

from lovelace_streams.rows.declaration import Table
from lovelace_streams.writers import Entry
from lovelace_streams.writers.clickhouse.block_columns import block_columns
from lovelace_streams.writers.clickhouse.catalog import TableSchema, qualified_name, quoted
from lovelace_streams.writers.clickhouse.types import parse_type

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "\0": "\\0"})


def are_stored(client: "Client", table: Table, schema: TableSchema, item: Sequence[Entry]) -> bool:
    """Whether all rows of an item are in the table; raises what the client raises."""
    key = list(table.key)
    version = next(reversed(schema.columns))
    columns = [*key, version]
    types = [_plain_type(schema.columns[name]) for name in columns]
    wanted = set()
    for entry, number in zip(item, schema.versions.numbers(block_columns(item, schema.names)), strict=True):
        values = [*(getattr(entry.row, table.attributes[name]) for name in key), number]
        wanted.add(f"({', '.join(map(literal, values, types))})")
    names = ", ".join(map(quoted, columns))
    found = client.query(
        f"SELECT uniqExact({names}) FROM {qualified_name(table)} WHERE ({names}) IN ({', '.join(sorted(wanted))})"  # noqa: S608 - see `literal`
    )
    return [int(number) for (number,) in found.result_rows] == [len(wanted)]


def literal(value: Any, type_name: str) -> str:
    """Return a key's value as a constant of its column's type.

    >>> literal("it's", "String"), literal(-1, "Int64")
    ("CAST('it\\\\'s' AS String)", "CAST('-1' AS Int64)")
    >>> literal(datetime(1900, 1, 1, microsecond=1, tzinfo=UTC), "DateTime64(6, 'UTC')")
    "CAST('1900-01-01 00:00:00.000001' AS DateTime64(6, 'UTC'))"
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, datetime):
        text = value.astimezone(UTC).strftime("%H:%M:%S.%f")
        text = f"{value.astimezone(UTC).date().isoformat()} {text}"
    elif isinstance(value, date):
        text = value.isoformat()
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, Decimal):
        text = f"{value:f}"
    else:
        text = str(value)
    return f"CAST('{text.translate(_ESCAPES)}' AS {type_name})"


def _plain_type(full_name: str) -> str:
    """Return a column's type without its wrappers; times in UTC, as `literal` writes them."""
    column = parse_type(full_name)
    if column.name == "DateTime64":
        return f"DateTime64({column.fractional_digits}, 'UTC')"
    return f"{column.name}({column.arguments})" if column.arguments else column.name
