"""A row as a whole: rules over several fields, versions, items that are no objects, paths in messages."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

import pytest

from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import Envelope, Record
from lovelace_streams.rows import UNSET, Epoch, From, FromKafka, Row, Skip
from lovelace_streams.rows.normalizer import normalizer
from tests.unit.rows.ways import NOW, outcome, record, row_class


class Strict(Row, table="strict", primary_key="id"):
    id: int
    x: int

    def __post_init__(self) -> None:
        if self.x is not UNSET and self.x > 5:
            raise ValueError("secret")


def test_a_rule_over_several_fields_is_a_post_init() -> None:
    assert outcome(Strict, '{"id": 1, "x": 5}') == 5
    assert outcome(Strict, '{"id": 1, "x": 6}') == ("rule", "Strict.__post_init__ refuses what is at $")


@pytest.mark.parametrize(("hours", "fits"), [(-1, True), (23, True), (25, False)])
def test_a_version_may_not_be_a_day_ahead(hours: int, fits: bool) -> None:
    text = (datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(hours=hours)).isoformat()

    end = outcome(row_class(datetime, version="x"), json.dumps({"id": 1, "x": text}))

    assert isinstance(end, datetime) if fits else end == ("version_in_future", "x is more than a day ahead of now")


DAY = 86_400
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("days", "fits"), [(-400, True), (0.9, True), (1.1, False), (40_000, False)])
def test_a_number_with_a_unit_may_not_be_a_day_ahead_as_a_version(unit: str, days: float, fits: bool) -> None:
    version = int((NOW // 1_000 + days * DAY) * UNITS[unit])

    end = outcome(row_class(Annotated[int, Epoch(unit)], version="x"), json.dumps({"id": 1, "x": version}))

    assert end == (version if fits else ("version_in_future", "x is more than a day ahead of now"))
    assert outcome(row_class(int, version="x"), json.dumps({"id": 1, "x": version})) == version
    assert outcome(row_class(Annotated[int, Epoch(unit)]), json.dumps({"id": 1, "x": version})) == version


@pytest.mark.parametrize(("days", "fits"), [(0, True), (1, True), (2, False)])
def test_a_day_may_not_be_more_than_a_day_ahead_as_a_version(days: int, fits: bool) -> None:
    text = (datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(days=days)).date().isoformat()

    end = outcome(row_class(date, version="x"), json.dumps({"id": 1, "x": text}))

    assert end == (date.fromisoformat(text) if fits else ("version_in_future", "x is more than a day ahead of now"))


def test_kafkas_timestamp_as_a_number_has_its_unit() -> None:
    row = row_class(Annotated[int, FromKafka("timestamp")], version="x")

    assert outcome(row, '{"id": 1}', timestamp=NOW + 80_000_000) == NOW + 80_000_000
    assert outcome(row, '{"id": 1}', timestamp=NOW + 90_000_000)[0] == "version_in_future"


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_an_instant_is_read_from_every_unit(unit: str) -> None:
    row = row_class(Annotated[datetime, Epoch(unit)])

    assert outcome(row, f'{{"id": 1, "x": {1_700_000_000 * UNITS[unit]}}}') == datetime.fromtimestamp(
        1_700_000_000, UTC
    )
    assert outcome(row, '{"id": 1, "x": -1}') == datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)


def test_an_item_may_be_a_value_itself() -> None:
    class Gone(Row, table="gone", primary_key="id"):
        id: Annotated[int, From(".")]
        channel: Annotated[int, From("$.d.channel")]

    decoder = JsonDecoder(Events("t", {"BULK": Items("d.ids", Gone)}, otherwise=Skip("unknown_event")))
    assert Gone.from_raw("7", {"d": {"channel": 1}}) == Gone(id=7, channel=1)
    for value in ({"id": 7}, None, ["7"]):
        with pytest.raises(RecordFault, match=r"int, got (object|null|list) at \$"):
            Gone.from_raw(value, {"d": {"channel": 1}})

    oks, errs, skipped = [], [], []
    record = Record("t", 0, 0, 0, 1, None, b'{"t":"BULK","d":{"ids":["7",8],"channel":1}}', [], 0)
    decoder.decode(record, oks, errs, skipped)
    made = normalizer(Gone)
    assert [made.normalize(envelope, 0) for envelope in oks] == [Gone(id=7, channel=1), Gone(id=8, channel=1)]


class Pair(Row, table="pairs", primary_key="id"):
    id: int
    x: Any | None


def test_paths_in_messages_are_absolute() -> None:
    decoder = JsonDecoder(Events("t", {"M": Items("d.members", Pair)}, Skip("unknown_event")))
    oks: list[Envelope[Any]] = []
    decoder.decode(record(b'{"t": "M", "d": {"members": [{"id": []}]}}'), oks, [], [])

    with pytest.raises(RecordFault, match=r"expected int, got list at \$\.d\.members\[\]\.id"):
        normalizer(Pair).normalize(oks[0], NOW)
