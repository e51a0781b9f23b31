"""The quick reading of JSON says nothing else than the plain one: values, kinds of numbers, and what is no JSON."""

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from lovelace_streams.errors import RecordFault
from lovelace_streams.records import Reason
from lovelace_streams.rows.values import parse, plain_decode
from tests.examples import examples

NUMBERS = ["-0", "-0.0", "1.50", "1E5", "1e400", "1e-999999999", "9" * 18, "9" * 19, "18446744073709551616", "01", "1."]
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["\ud800", "\0", "é"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)
TEXTS = st.one_of(
    st.builds(lambda value, ascii_: json.dumps(value, ensure_ascii=ascii_), VALUES, st.booleans()),
    st.lists(st.sampled_from(["[", "]", "{", "}", '"a":', ",", '"', "\\", "\\ud83d", "\x01", " ", *NUMBERS])).map(
        "".join
    ),
)


@example(text='["\\ud800"]', end=-1)
@example(text='"\\ud800"', end=None)
@example(text="[" + "9" * 4301 + "]", end=None)
@example(text="[" * 5000 + "]" * 5000, end=None)
@given(TEXTS, st.one_of(st.none(), st.integers(-9, -1)))
@settings(max_examples=examples(500))
def test_json_is_read_as_the_plain_reader_reads_it(text: str, end: int | None) -> None:
    assert verdict(parse, text[:end]) == verdict(plainly, text[:end])


def plainly(text: str) -> Any:
    try:
        return plain_decode(text)
    except RecursionError:
        raise RecordFault(Reason.TOO_DEEP) from None
    except ValueError:
        raise RecordFault(Reason.NOT_JSON) from None


def verdict(read: Any, text: str) -> str:
    """The value with its kinds, or the fault."""
    try:
        return repr(read(text))
    except RecordFault as fault:
        return str(fault)
