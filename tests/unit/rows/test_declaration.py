"""Marks are refused where they are written, if nothing could come of them."""

import pytest

from lovelace_streams.rows import Epoch, From, FromKafka


def test_marks_are_refused_where_they_are_written() -> None:
    with pytest.raises(ValueError, match="s, ms, us, ns"):
        Epoch("min")
    with pytest.raises(ValueError, match="timestamp"):
        FromKafka("header")
    with pytest.raises(TypeError, match="at least one path"):
        From()
