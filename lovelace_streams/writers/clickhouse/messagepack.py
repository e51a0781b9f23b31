"""Numbers, times and truths of a whole column as ClickHouse's bytes, by way of MessagePack.

MessagePack packs a list in C, each value by its class, at 2 to 9 ns a value; to ask for each class costs 15, and to
fill an array 30. So the list is packed, and what came out is looked at: the first byte of a value says its class and
its size. If the bytes that are this size apart are all the same, all values are of this form. The bytes behind them are
numbers, big-endian: they are taken out in columns, the first byte of all values, the second of all.

Each function returns None if the values are not of one form that it knows, and raises what MessagePack raises for a
value that it does not know.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

LANE = 8
"""Bytes of a number of 64 bits: a lane, where several of them are one long integer."""

_INTEGER_SIZES = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}
"""The first byte of an integer that is not negative → its size, with this byte."""
_WHOLE, _FRACTIONAL = b"\xd6", b"\xd7"
"""How timestamps begin that have no fraction of a second, and those that have one."""
_SECOND_BITS = 34
_FALSE_AND_TRUE = b"\xc2\xc3"
_AS_NUMBERS = bytes.maketrans(_FALSE_AND_TRUE, b"\0\1")


def integers(values: Sequence[Any]) -> bytes | None:
    """Return integers that are not negative as little-endian ones of 64 bits without a sign.

    >>> integers([1, 2]) == (1).to_bytes(8, "little") + (2).to_bytes(8, "little")
    True
    >>> integers([1, True]), integers([1, -1]), integers([1, 2**40])
    (None, None, None)
    """
    packed, count = _packed(values), len(values)
    if len(packed) == count and packed.isascii():  # each is its own byte
        return _lanes(packed, 1, 0)
    size = _INTEGER_SIZES.get(packed[0]) if count else None
    if size is None or len(packed) != size * count or packed[::size] != packed[:1] * count:
        return None
    return _lanes(packed, size, 1)


def microseconds(values: Sequence[datetime]) -> bytes | None:
    """Return times as microseconds since 1970: little-endian integers of 64 bits.

    A timestamp is a byte for the form and one for the type, then the seconds, 32 bits; or the nanoseconds, 30 bits, and
    the seconds, 34. They are computed with as one long integer, for all values at once.

    >>> from datetime import UTC
    >>> microseconds([datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC)]) == (1_000_005).to_bytes(8, "little")
    True
    """
    packed, count = _packed(values), len(values)
    if packed[::6] == _WHOLE * count:
        lanes = int.from_bytes(_lanes(packed, 6, 2), "little") * 1_000_000
    elif packed[::10] == _FRACTIONAL * count:
        both = int.from_bytes(_lanes(packed, 10, 2), "little")
        seconds = both & int.from_bytes((2**_SECOND_BITS - 1).to_bytes(LANE, "little") * count, "little")
        lanes = seconds * 1_000_000 + (both - seconds >> _SECOND_BITS) // 1000
    else:
        return None
    return lanes.to_bytes(LANE * count, "little")


def truths(values: Sequence[Any]) -> bytes | None:
    """Return a byte for each truth.

    >>> truths([True, False]), truths([True, 1])
    (b'\\x01\\x00', None)
    """
    packed = _packed(values)
    return None if packed.strip(_FALSE_AND_TRUE) else packed.translate(_AS_NUMBERS)


def _packed(values: Sequence[Any]) -> bytes:
    """Return the values without the list's head, whose size depends on their count."""
    count = len(values)
    return msgspec.msgpack.encode(values)[1 if count < 2**4 else 3 if count < 2**16 else 5 :]


def _lanes(packed: bytes, size: int, start: int) -> bytes:
    """Return big-endian numbers, each in so many bytes from `start` on, as little-endian ones of 64 bits."""
    lanes = bytearray(len(packed) // size * LANE)
    for place, at in enumerate(reversed(range(start, size))):
        lanes[place::LANE] = packed[at::size]
    return bytes(lanes)
