"""How deep a message may be nested, and how that is seen without counting."""

import json

import pytest

from lovelace_streams.formats.limits import DEPTH_MAX, nesting
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
