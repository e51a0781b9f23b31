"""How deep a message may be nested, and how that is seen without counting."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams.formats.limits import DEPTH_MAX, SHALLOW_BYTES, is_too_deep, nesting
from tests.unit.formats.messages import DISCORD, Decoded, add


def test_levels_are_counted_outside_of_strings() -> None:
    deep = b"[" * DEPTH_MAX + b"]" * DEPTH_MAX

    assert nesting(deep) == DEPTH_MAX
    assert nesting(b"[" + deep + b"]") > DEPTH_MAX
    assert Decoded(DISCORD, add(note="[" * 10_000)).ends == [(0, 1, 1)]
    assert Decoded(DISCORD, add(note='"{' * 10_000)).ends == [(0, 1, 1)]


@pytest.mark.parametrize("padding", [0, 1, 100, 500, 2000])
@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"":', b"}"), (b'[{"":', b"}]"), (b'{"": [', b"]}")])
def test_what_is_not_counted_is_not_too_deep(begin: bytes, end: bytes, padding: int) -> None:
    levels = nesting(begin)
    for depth in (DEPTH_MAX - levels, DEPTH_MAX, DEPTH_MAX + levels):
        times = depth // levels
        for beside in (b'"%s"' % (b"x" * padding), b"[" * 3 + b"]" * 3 + b" " * padding):
            inner = begin * times + b"1" + end * times
            value = json.dumps(add()).encode()[:-1]
            value += b',"a":%s,"b":%s}' % ((beside, inner) if padding % 2 else (inner, beside))
            assert Decoded(DISCORD, value).ends == [(0, 1, "too_deep" if depth + 1 > DEPTH_MAX else 1)]


LEVELS = [
    ("[", "]"), ('{"a":', "}"), ('{"}":', "}"), ('{"]{":', "}"), ('["]",', "]"), ('["[","{",', "]"), ("[{},", "]"),
    ('{"\\"}":', "}"), ('["\\\\","}",', "]"), ('{"\\\\\\"]":[],"b":', "}"), ('["a","b",', "]"), ('[{"":"}"},', "]"),
]  # fmt: skip
"""How one level begins, with what may lie beside the next one, and ends."""


def counted(text: str) -> int:
    """The levels of a JSON text, character by character."""
    depth = most = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            in_string, escaped = escaped or character != '"', not escaped and character == "\\"
        elif character == '"':
            in_string = True
        else:
            depth += (character in "[{") - (character in "]}")
            most = max(most, depth)
    return most


@given(st.lists(st.sampled_from(LEVELS), min_size=1, max_size=6), st.integers(DEPTH_MAX - 6, DEPTH_MAX + 6))
def test_brackets_within_strings_are_none(levels: list[tuple[str, str]], depth: int) -> None:
    """Nor do they hide a level: a text is too deep if its levels are too many, whatever its texts hold."""
    chosen = [levels[number % len(levels)] for number in range(depth)]
    text = "".join(begin for begin, _ in chosen) + "1" + "".join(end for _, end in reversed(chosen))

    assert is_too_deep(text.encode() + b" " * SHALLOW_BYTES) == (counted(text) > DEPTH_MAX)
