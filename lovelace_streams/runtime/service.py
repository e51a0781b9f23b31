"""A service: a part of the flow that has work to do although nothing is read."""


class Service:
    """Work that has to be done although nothing is read; every method has a default that does nothing."""

    def serve(self, *, idle: bool, between_windows: bool) -> None:
        """Do what is due, without waiting.

        `idle`: there is nothing to read. `between_windows`: every step has seen everything of the last window (not so
        when a step that waits has the services served).
        """

    def unfinished(self) -> bool:
        """Whether the worker must not end yet."""
        return False

    def revoke(self, seconds: float) -> None:
        """Finish what is in flight within this time: the worker is about to give up partitions."""

    def full(self) -> bool:
        """Whether the worker should read nothing more for now."""
        return False

    def close(self) -> None:
        """Let go of everything: the worker ends."""
