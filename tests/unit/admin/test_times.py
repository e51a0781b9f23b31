"""Points in time as people write them."""

import pytest

from lovelace_streams.admin.times import instant

NEW_YEAR = 1_483_228_800_000


@pytest.mark.parametrize("text", ["2017-01-01T00:00:00Z", "2016-12-31T23:59:60Z", "2017-01-01T01:00+01"])
def test_times_are_read_as_in_rows(text: str) -> None:
    assert instant(text) == NEW_YEAR


@pytest.mark.parametrize(
    "text", ["2017-01-01T00:00:00+10:60", "2017-01-01T00:00:00", "9999-12-31T23:59:60Z", "2h?", ""]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write one with an offset"):
        instant(text)
