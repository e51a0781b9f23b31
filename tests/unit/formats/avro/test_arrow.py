"""Instants are the numbers that were written, to the microsecond, wherever they lie; null stays where it is."""

import random
from datetime import datetime, timedelta

import pyarrow as pa
import pytest

from lovelace_streams.formats.avro.arrow import FIRST, LAST, SURE_SECONDS, leaf
from lovelace_streams.formats.avro.schema import Node, parse
from lovelace_streams.rows.coercion import EPOCH

SURE = SURE_SECONDS * 1_000_000
"""In microseconds."""


def instants(unit: str) -> Node:
    return parse({"type": "record", "name": "R", "fields": [{"name": "at", "type": instant(unit)}]}).root.fields[0].type


def instant(unit: str) -> dict[str, str]:
    return {"type": "long", "logicalType": f"timestamp-{unit}"}


@pytest.mark.parametrize(("unit", "scale"), [("millis", 1000), ("micros", 1)])
@pytest.mark.parametrize("most", [SURE, LAST])
def test_instants_are_exact(unit: str, scale: int, most: int) -> None:
    node = instants(unit)
    make, _ = leaf(datetime | None, node, node)
    chance = random.Random(7)
    ends = [0, 1, -1, most // scale, max(-most, FIRST) // scale]
    numbers = [*ends, *(chance.randint(ends[-1], ends[-2]) for _ in range(20_000))]
    expected = [EPOCH + timedelta(0, 0, number * scale) for number in numbers]

    assert make(pa.array(numbers, pa.int64()), set()) == expected
    assert make(pa.array([None, *numbers, None], pa.int64()), set()) == [None, *expected, None]
    assert make(pa.array([None, None], pa.int64()), set()) == [None, None]
    assert make(pa.array([], pa.int64()), set()) == []
