"""Which ways a block may take into Postgres, as far as its row classes tell: what `lovelace explain` prints.

`PostgresWriter.write_alone` chooses among them, block by block. The real table may take ways from it (a trigger, a
policy or a rule that looks at other rows), which nobody knows before it is opened.
"""

from collections.abc import Iterator, Sequence

import msgspec

from lovelace_streams.rows.row import Row

SEVERAL = "several statements in one transaction"


def ways_of(rows: Sequence[type[Row]], *, copy_rows_min: int, one_by_one: bool = False) -> list[tuple[str, str]]:
    """Return each way and when it is taken, the quickest first.

    >>> class Order(Row, table="orders", primary_key="id"):
    ...     id: int
    >>> [way for way, _ in ways_of([Order], copy_rows_min=8)]
    ['COPY', 'one statement', 'several statements in one transaction']
    """
    if one_by_one:
        return [("a transaction an item", "always: one_by_one=True")]
    tables = list(dict.fromkeys(row.__table__.name for row in rows))
    if len(tables) > 1:
        return [(SEVERAL, f"always: an item's rows go to {_list(tables)} together")]
    return [
        ("COPY", f"{copy_rows_min} rows or more, while the keys of a block are new"),
        ("one statement", "a key of the block is in the table already"),
        (SEVERAL, f"a block has {', or '.join(_mixtures(rows))}; or the table's triggers, policies or rules need it"),
    ]


def _mixtures(rows: Sequence[type[Row]]) -> Iterator[str]:
    """Yield what keeps the rows of a block from sharing one statement."""
    if len(rows) > 1:
        yield f"rows of more than one of {_list([row.__name__ for row in rows])}"
    absent = dict.fromkeys(
        column.attribute
        for row in rows
        for column in row.__table__.columns
        if column.nullable and column.default is msgspec.NODEFAULT
    )
    if absent:
        yield f"rows of which only some mention {_list(list(absent))}"
    yield "a key twice"
    yield "rows of a replay"


def _list(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
