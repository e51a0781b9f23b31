"""Checks of a message before it is decoded, for what msgspec does not check: UTF-8 and the depth of nesting."""

import re
from array import array
from collections.abc import Sequence
from itertools import accumulate

from lovelace_streams.errors import RecordFault
from lovelace_streams.records import Reason

DEPTH_MAX = 256
"""Levels of nesting that are read: a fixed number, so that a replay decides alike, whatever stack it runs on."""
SHALLOW_BYTES = 2 * DEPTH_MAX  # a shorter text that closes all its brackets can't be too deep
DEEP_BYTES_MIN = 4 * DEPTH_MAX - 4
"""An object within an object takes four bytes, {"":, and a list one, between the first and the last [. So two searches
for a rare byte show of most texts that their levels need not be counted, for a tenth of what counting costs."""
BACKSLASH, NUL = ord("\\"), b"\\u0000"
"""What a text with an escaped NUL has. msgspec accepts one; one byte is found quicker than six."""
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_STEPS = bytes(set(range(256)) - set(b'[]{}"'))
_STRING = re.compile(rb'"[^"]*"?')


def check_text(value: bytes) -> None:
    """Raise `RecordFault` for bytes that are not UTF-8, or that are nested too deep. Most texts cost two searches."""
    if not value.isascii():
        check_utf8(value)
    if len(value) > SHALLOW_BYTES and is_too_deep(value):
        raise RecordFault(Reason.TOO_DEEP, f"more than {DEPTH_MAX} levels")


def unsound(values: Sequence[bytes | None]) -> list[int]:
    """Return the places of values that no typed decode may see: `check_text` refuses them, or they have a NUL."""
    return [
        place
        for place, value in enumerate(values)
        if value is None
        or not (value.isascii() or is_utf8(value))
        or (BACKSLASH in value and NUL in value)
        or (len(value) > SHALLOW_BYTES and is_too_deep(value))
    ]


def has_nul(value: bytes) -> bool:
    """Whether a text has an escaped NUL, which msgspec accepts; one byte is found quicker than six."""
    return BACKSLASH in value and NUL in value


def check_utf8(value: bytes) -> None:
    """Raise `RecordFault` for bytes that are not UTF-8. msgspec checks only the fields that it decodes."""
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise RecordFault(Reason.NOT_UTF8, f"at byte {error.start}") from None


def is_utf8(value: bytes) -> bool:
    """Whether bytes are UTF-8."""
    try:
        check_utf8(value)
    except RecordFault:
        return False
    return True


def is_too_deep(value: bytes) -> bool:
    """Whether a text of more than `SHALLOW_BYTES` has more than `DEPTH_MAX` levels."""
    opened_within = value.rfind(b"[") - value.find(b"[")
    return len(value) + 3 * opened_within > DEEP_BYTES_MIN and nesting(value) > DEPTH_MAX


def nesting(value: bytes) -> int:
    """Count the levels of nesting of a JSON text; of a text with few brackets, return the number of those that open.

    A bracket within a string is none: it could hide a level, or look like one. A list of many flat items has many
    brackets and few levels: pairs that open and close at once are taken out, a level at a time, which is quicker than
    to count.

    >>> nesting(b"[" * 500 + b"]" * 500), nesting(b'["' + b"[" * 1000 + b'"]'), nesting(b'{"}":' * 400 + b"}" * 400)
    (500, 1, 400)
    """
    steps = value.translate(_STEPS, _NO_STEPS)  # one pass, and what is left of the text is short
    opened = steps.count(b"\x01")
    if opened <= DEPTH_MAX:
        return opened
    if BACKSLASH in value:  # an escaped quote ends no string
        steps = value.replace(b"\\\\", b"").replace(b'\\"', b"").translate(_STEPS, _NO_STEPS)
    steps = steps.replace(b'""', b"")  # strings without a bracket; two that have one, with none between, become one
    if b'"' in steps:
        steps = _STRING.sub(b"", steps)
    all_steps = steps
    for level in range(1, _FLAT_LEVELS):
        steps = steps.replace(b"\x01\xff", b"")
        if len(steps) + level <= DEPTH_MAX:
            return len(steps) + level
    return _depth(all_steps)


_FLAT_LEVELS = 8


def _depth(steps: bytes) -> int:
    return max(accumulate(array("b", steps)), default=0)
