"""Instants as integers: of all rows together as of each, and never those of another one that is only equal."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from lovelace_streams.writers.clickhouse.times import EPOCH, microseconds_of, microseconds_of_all

BERLIN = ZoneInfo("Europe/Berlin")
TWICE = datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN)
"""Half past two, which comes twice in that night: two instants that are equal."""


@pytest.mark.parametrize(
    "few",
    [
        [EPOCH, EPOCH + timedelta(hours=1)],
        [TWICE, TWICE.replace(fold=1)],
        [TWICE.astimezone(UTC), TWICE, TWICE.replace(fold=1)],
        [EPOCH, EPOCH.astimezone(BERLIN), EPOCH + timedelta(microseconds=1)],
        [EPOCH - timedelta(microseconds=1), datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)],
        [EPOCH + timedelta(seconds=2**34, microseconds=-1), EPOCH + timedelta(microseconds=1)],
        [EPOCH + timedelta(seconds=2**32 - 1), EPOCH],
        [EPOCH + timedelta(seconds=2**32), EPOCH],
    ],
)
@pytest.mark.parametrize("count", [1, 7, 8, 400, 2**15])  # a list's head grows with its length
def test_the_instants_of_all_rows_are_those_of_each(few: list[datetime], count: int) -> None:
    values = few * count
    assert list(microseconds_of_all(values)) == list(map(microseconds_of, values))


@pytest.mark.parametrize("others", [[], [EPOCH] * 399])
def test_a_time_without_offset_is_refused(others: list[datetime]) -> None:
    with pytest.raises(TypeError):
        microseconds_of_all([*others, datetime(2024, 1, 1)])  # noqa: DTZ001


def test_no_rows_have_no_instants() -> None:
    assert list(microseconds_of_all([])) == []
