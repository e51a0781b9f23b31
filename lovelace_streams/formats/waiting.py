"""Decoding by asking another server (a schema registry), which may be away.

That server is a destination like any other: while it is away the window waits, and goes on with the very record that
asked. What is left out, because the worker ends, is not settled: the next owner reads it again.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.formats.decoder import Decoder, Ports, SupportsGrace, looked_ahead
from lovelace_streams.records import Envelope, Record
from lovelace_streams.runtime.backoff import Backoff

KEEP_ALIVE_AFTER_SECONDS = 1.0
"""After so long of decoding the consumer is kept alive: each record of a window may have had to ask, and been slow."""


class Waiter(Protocol):
    """What waits and stops: the worker's context."""

    @property
    def ending(self) -> bool:
        """Whether the worker drains or stops."""

    def keep_alive(self, seconds: float, records: Iterable[Record] = ()) -> bool:
        """Wait; False at once if the worker ends or the assignment of one of the records has ended."""

    def note(self, fault: DeploymentFault) -> None:
        """Stop the worker for this reason."""


class WaitingDecoder:
    """Decodes windows with a decoder that asks.

    `on_wait(record, fault, failures)` hears of each fault and how many there were in a row; once more, without a fault,
    when the record is not waited for any longer. `grace`: the decoder's, if it has one.
    """

    def __init__(
        self,
        decoder: Decoder,
        waiter: Waiter,
        on_wait: Callable[[Record, DestinationFault | None, int], Any],
        clock: Callable[[], float] = time.monotonic,
        grace: float | None = None,
    ) -> None:
        self._decoder = decoder
        self._waiter = waiter
        self._on_wait = on_wait
        self._clock = clock
        self._backoff = Backoff()
        self._due = 0.0
        """When the consumer is kept alive next, while a window is sorted."""
        if grace is not None and isinstance(decoder, SupportsGrace):
            decoder.grace = grace

    def sort(self, window: Iterable[Envelope[bytes]]) -> Ports:
        """Sort messages into items, letters and skips; it breaks off at one that the worker ends before."""
        ports = Ports()
        self._due = self._clock() + KEEP_ALIVE_AFTER_SECONDS
        for envelope in looked_ahead(self._decoder, window):
            if not self._is_kept_alive() or not self._decode(envelope.record, ports):
                ports.broke_off = envelope.record
                break
        return ports

    def _is_kept_alive(self) -> bool:
        """Keep the consumer alive if that is due; False if the worker ends."""
        if self._clock() < self._due:
            return True
        is_kept = self._waiter.keep_alive(0.0)
        self._due = self._clock() + KEEP_ALIVE_AFTER_SECONDS
        return is_kept

    def _decode(self, record: Record, ports: Ports) -> bool:
        """Decode a record for as long as it takes, or until its assignment ends; False if the worker ends."""
        failures = 0
        try:
            while True:
                try:
                    self._decoder.decode(record, ports.oks, ports.errs, ports.skipped)
                except DestinationFault as fault:
                    failures += 1
                    self._on_wait(record, fault, failures)
                    if not self._waiter.keep_alive(self._backoff.seconds(failures), [record]):
                        return not self._waiter.ending
                except DeploymentFault as fault:
                    self._waiter.note(fault)
                    return False
                else:
                    return True
        finally:
            if failures:
                self._on_wait(record, None, failures)
