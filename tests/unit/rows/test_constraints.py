"""Constraints by `msgspec.Meta`: what keeps them, what does not, and on which types they can't be."""

from typing import Annotated, Any

import msgspec
import pytest

from tests.unit.rows.ways import check_refused, mapped

TAKEN = [
    (Annotated[int, msgspec.Meta(ge=0, lt=10, multiple_of=3)], "9", 9),
    (Annotated[str, str.strip, msgspec.Meta(max_length=2)], '" ab "', "ab"),
]


@pytest.mark.parametrize(("hint", "text", "expected"), TAKEN)
def test_what_is_taken(hint: Any, text: str, expected: Any) -> None:
    assert repr(mapped(hint, text)) == repr(expected)


REFUSED = [
    (Annotated[int, msgspec.Meta(ge=0)], "-1", "out_of_range", "expected int with ge=0, got one without at $.x"),
    (Annotated[str, msgspec.Meta(max_length=2)], '"abc"', "bad_value", None),
    (Annotated[str, msgspec.Meta(pattern="^a")], '"b"', "bad_value", None),
    (list[Annotated[int, msgspec.Meta(ge=0)]], "[-1]", "out_of_range", None),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "text", "reason", "detail"), REFUSED)
def test_what_is_refused_and_why(hint: Any, text: str, reason: str, detail: str | None) -> None:
    check_refused(hint, text, reason, detail)
