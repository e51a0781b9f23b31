"""What is checked before a message is decoded, because msgspec does not look at it: UTF-8 and the depth of nesting."""

import re
from array import array
from itertools import accumulate

from lovelace_streams.errors import RecordFault
from lovelace_streams.records import Reason

DEPTH_MAX = 256
"""Levels of nesting that are read. A fixed number, so that a replay judges alike whatever stack it runs on."""
SHALLOW_BYTES = 2 * DEPTH_MAX  # a shorter text that closes all it opens can't be too deep
DEEP_BYTES_MIN = 4 * DEPTH_MAX - 4
"""An object within an object takes four bytes, {"":, and a list one, somewhere between the first and the last [. So two
searches for a byte that is rare tell of most texts that they need not be counted, for a tenth of what that costs."""
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def check_utf8(value: bytes) -> None:
    """Raises `RecordFault`; msgspec looks only at the fields that somebody reads."""
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise RecordFault(Reason.NOT_UTF8, f"at byte {error.start}") from None


def check_depth(value: bytes) -> None:
    """Raises `RecordFault`."""
    if nesting(value) > DEPTH_MAX:
        raise RecordFault(Reason.TOO_DEEP, f"more than {DEPTH_MAX} levels")


def nesting(value: bytes) -> int:
    """The levels of nesting of a JSON text, at most as many as brackets open, and that is told where they are few.

    Brackets inside strings are taken out only where they seem to matter.

    >>> nesting(b"[" * 500 + b"]" * 500), nesting(b'["' + b"[" * 1000 + b'"]')
    (500, 1)
    """
    opened = value.count(b"{") + value.count(b"[")
    if opened <= DEPTH_MAX:
        return opened
    depth = _depth(value)
    return depth if depth <= DEPTH_MAX else _depth(_STRING.sub(b"", value))


def _depth(value: bytes) -> int:
    steps = array("b", value.translate(_STEPS, _NO_BRACKETS))
    return max(accumulate(steps), default=0)
