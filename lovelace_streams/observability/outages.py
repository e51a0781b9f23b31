"""Say that something is away in few lines: when it goes, when the reason changes, once a minute, when it is back."""

import time
from collections.abc import Callable
from typing import Any, Protocol

REPEAT_SECONDS = 60.0
"""How often a reason is said again while it lasts."""


class _Log(Protocol):
    def warning(self, event: str, **fields: Any) -> Any: ...

    def info(self, event: str, **fields: Any) -> Any: ...

    def debug(self, event: str, **fields: Any) -> Any: ...


class OncePerMinute:
    """Which of several reasons is worth a line: two that take turns are not news each time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, float] = {}

    def is_news(self, reason: str) -> bool:
        """Whether a reason was not said within the last minute; it counts as said then."""
        now = self._clock()
        if now < self._said.get(reason, float("-inf")) + REPEAT_SECONDS:
            return False
        self._said[reason] = now
        return True

    def forget(self) -> None:
        """Take every reason for news again."""
        self._said.clear()


class OutageLog:
    """The lines about one thing that may be away: a worker tries it again many times a second, or a minute.

    >>> class Lines:
    ...     def warning(self, event, **fields): print(event, fields["fault"])
    ...     def info(self, event, **fields): print(event, fields["failures"])
    ...     def debug(self, event, **fields): pass
    >>> outage = OutageLog(Lines(), "waiting for the destination")
    >>> for reason in ("refused", "refused", "starting", "refused"):
    ...     outage.away(reason)
    waiting for the destination refused
    waiting for the destination starting
    >>> outage.back(), outage.back()
    back 4
    (None, None)
    """

    def __init__(self, log: _Log, event: str, clock: Callable[[], float] = time.monotonic, **fields: Any) -> None:
        self._log = log
        self._event = event
        self._clock = clock
        self._fields = fields
        self._since: float | None = None
        self._failures = 0
        self._repeats = OncePerMinute(clock)

    def away(self, fault: object, **more: Any) -> None:
        """Note that it is away for this reason; says so if that is new, or a minute old. LOG_LEVEL=DEBUG shows all."""
        now, reason = self._clock(), str(fault)
        self._failures += 1
        if self._since is None:
            self._since = now
        say = self._log.warning if self._repeats.is_news(reason) else self._log.debug
        seconds = round(now - self._since, 1)
        say(self._event, fault=reason, failures=self._failures, seconds=seconds, **self._fields, **more)

    def back(self) -> None:
        """Note that it answers; says so if it was away."""
        if self._since is None:
            return
        seconds = round(self._clock() - self._since, 1)
        self._log.info("back", after=self._event, failures=self._failures, seconds=seconds, **self._fields)
        self._since = None
        self._failures = 0
        self._repeats.forget()
