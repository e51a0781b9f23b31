"""How long a rejection is not believed: one mechanism for brokers and databases."""

from lovelace_streams.errors import DeploymentFault

LOGIN_SECONDS = 10.0
"""How long a rejected login is not believed, unless a request succeeds in between."""


class Grace:
    """How long a rejection is not believed, because it may pass.

    A rejection that does not come again within `repeat` seconds is over, and so is one after which something
    succeeded.

    >>> grace = Grace(seconds=10.0)
    >>> grace.rejected(10.0); grace.has_expired(19.0), grace.has_expired(20.0)
    (False, True)
    >>> grace.accepted(); grace.has_expired(99.0)
    False
    """

    def __init__(self, seconds: float, repeat: float = float("inf")) -> None:
        self._seconds = seconds
        self._repeat = repeat
        self._first: float | None = None
        self._last = 0.0

    def rejected(self, now: float) -> None:
        """Note a rejection."""
        if not self.is_suspected(now):
            self._first = now
        self._last = now

    def believes(self, fault: Exception, now: float) -> bool:
        """Note why nothing could be opened; whether it is a refusal that waiting does not change.

        A destination that is away says nothing of the login.
        """
        if not isinstance(fault, DeploymentFault):
            self.accepted()
            return False
        self.rejected(now)
        return not fault.may_pass or self.has_expired(now)

    def accepted(self) -> None:
        """Note that what was rejected has succeeded."""
        self._first = None

    def is_suspected(self, now: float) -> bool:
        """Whether a rejection was noted that is not over."""
        return self._first is not None and now <= self._last + self._repeat

    def has_expired(self, now: float) -> bool:
        """Whether the rejection has lasted too long to pass."""
        return self._first is not None and self.is_suspected(now) and now >= self._first + self._seconds
