"""Instants as integers: looked up where rows share them, and never taken for another one that is only equal."""

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
    ],
)
@pytest.mark.parametrize("count", [1, 400])
def test_many_rows_with_few_instants_have_those(few: list[datetime], count: int) -> None:
    values = few * count
    assert list(microseconds_of_all(values)) == list(map(microseconds_of, values))


def test_a_shared_time_without_offset_is_refused() -> None:
    with pytest.raises(TypeError):
        microseconds_of_all([datetime(2024, 1, 1)] * 400)  # noqa: DTZ001
