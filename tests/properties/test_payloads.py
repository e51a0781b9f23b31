"""A file of payloads gives the same messages however it is written, and a file that is not whole gives none."""

import gzip
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lovelace_streams.admin.payloads import PayloadsError
from lovelace_streams.admin.submit import read_file
from lovelace_streams.submit import Source, keyed_by
from tests.examples import examples

SOURCE = Source("orders", topic="orders.raw", rows=(), messages=keyed_by("id"))
BOM = b"\xef\xbb\xbf"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=9,
)
PAYLOADS = st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=4), max_size=6)
ENDS = st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\r\n"])


def written(payloads: list, *, array: bool, mark: bool, ascii_only: bool, indent: int | None, end: str) -> bytes:
    if array:
        text = json.dumps(payloads, ensure_ascii=ascii_only, indent=indent)
    else:
        text = "".join(json.dumps(each, ensure_ascii=ascii_only) + end for each in payloads)
    return BOM * mark + text.encode()


FILES = st.fixed_dictionaries(
    {
        "array": st.booleans(),
        "mark": st.booleans(),
        "ascii_only": st.booleans(),
        "indent": st.sampled_from([None, 0, 2]),
        "end": ENDS,
    }
)


def sent(content: bytes) -> list[bytes]:
    return [message.value for message in read_file(io.BufferedReader(io.BytesIO(content)), SOURCE, {})]


@given(PAYLOADS, FILES, st.booleans())
@settings(max_examples=examples(100))
def test_payloads_arrive_as_they_are_however_the_file_is_written(payloads: list, how: dict, compress: bool) -> None:
    content = written(payloads, **how)

    found = sent(gzip.compress(content) if compress else content)

    assert [json.loads(value) for value in found] == payloads


@given(PAYLOADS.filter(bool), FILES, st.floats(0, 1, exclude_max=True))
@settings(max_examples=examples(100))
def test_gzip_that_is_cut_off_anywhere_is_refused_whole(payloads: list, how: dict, part: float) -> None:
    whole = gzip.compress(written(payloads, **how))
    cut = whole[: max(2, int(len(whole) * part))]

    with pytest.raises(PayloadsError, match="gzip data end early"):
        sent(cut)


@given(
    PAYLOADS.filter(bool),
    FILES,
    st.sampled_from(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]),
)
@settings(max_examples=examples(100))
def test_another_encoding_is_refused_whole(payloads: list, how: dict, encoding: str) -> None:
    text = written(payloads, **{**how, "mark": False}).decode()

    with pytest.raises(PayloadsError, match=f"it is {encoding[:6].upper()}"):
        sent(text.encode(encoding, "surrogatepass"))
