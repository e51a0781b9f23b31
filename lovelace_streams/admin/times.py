"""Points in time as people write them: ISO 8601 with an offset, or a duration before now."""

import re
import time
from datetime import datetime

from lovelace_streams.rows.coercion import iso_datetime

AGO = re.compile(r"-?(\d{1,9})([smhd])\Z")
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def instant(text: str, now: float | None = None) -> int:
    """Give milliseconds since 1970. Raises `ValueError`, also for a time without an offset: its zone is unknown.

    >>> instant("2026-01-01T01:00:00+01:00"), instant("-2h", now=10_000), instant("2h", now=10_000)
    (1767225600000, 2800000, 2800000)
    """
    if ago := AGO.match(text):
        return int(((time.time() if now is None else now) - int(ago[1]) * UNIT_SECONDS[ago[2]]) * 1000)
    try:
        read: datetime | None = iso_datetime(text)
    except (ValueError, OverflowError):
        read = None
    if read is None or read.tzinfo is None:
        raise ValueError(
            f"{text!r} is no time: write one with an offset (2026-01-31T09:00:00Z), or a duration before now "
            "(-2h, -30m, -1d)"
        )
    return int(read.timestamp() * 1000)
