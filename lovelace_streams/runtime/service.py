"""A service: the part of a step that has work to do between windows, also while nothing is read."""


class Service:
    """Work of a step between windows; the worker's context calls it. Every default does nothing."""

    def serve(self, *, idle: bool, between_windows: bool) -> None:
        """Do what is due.

        `idle`: no item passes a step for now, because there is nothing to read, too much is in flight, or the worker
        drains. `between_windows`: every step has seen all of the last window. It is false while a step waits in
        `keep_alive`, which serves the other services.
        """

    def unfinished(self) -> bool:
        """Whether the worker must not end yet."""
        return False

    def revoke(self, seconds: float) -> None:
        """Finish what is in flight within `seconds`: the worker is about to give up partitions."""

    def full(self) -> bool:
        """Whether too much waits here: the worker should read nothing more for now."""
        return False

    def close(self) -> None:
        """Release connections and threads: the worker ends."""
