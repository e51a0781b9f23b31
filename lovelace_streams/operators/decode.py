"""2. `Envelope[bytes]` → `Envelope[raw item]`: whatever the bytes are, every item leaves by one of three ports.

A decoder may have to ask somebody (a schema registry). That one is a destination like any other: while it is away the
window waits in `source.keep_alive`, and goes on with the very record that asked.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol, runtime_checkable

import bytewax.operators as op
import structlog
from bytewax.dataflow import Stream, operator

from lovelace_streams.delivery.retry import Backoff
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.observability import metrics, tracing
from lovelace_streams.records import DeadLetter, Envelope, Outcome, Record, Settled, SkipReason
from lovelace_streams.sources.kafka import KafkaSource

log = structlog.get_logger(__name__)

ALIVE_SECONDS = 1.0
"""After so long of decoding the consumer is kept alive: each record of a window may have had to ask, and been slow."""
Skipped = tuple[SkipReason, Envelope[Any]]


class Decoder(Protocol):
    """Makes items of a message's bytes (`JsonDecoder`, `AvroDecoder`)."""

    waits: bool
    """Whether it may raise a `DestinationFault`: it asks somebody who may be away."""

    def decode(
        self,
        record: Record,
        oks: list[Envelope[Any]],
        errs: list[DeadLetter],
        skipped: list[Skipped],
        step: str = "decode",
    ) -> None:
        """Append every item of the message to one of the lists and set `record.items`; raises nothing of the record's.

        A message that can't be taken apart ends whole: the number of items in its header, or 1 (law 6). With a
        `DestinationFault` or `DeploymentFault` nothing was appended.
        """


@runtime_checkable
class DecodesAll(Protocol):
    """A decoder that has a quicker way for many messages."""

    def decode_all(
        self,
        window: Iterable[Envelope[bytes]],
        oks: list[Envelope[Any]],
        errs: list[DeadLetter],
        skipped: list[Skipped],
        step: str = "decode",
    ) -> None:
        """The same as `decode` for each."""


@runtime_checkable
class LooksAhead(Protocol):
    """A decoder that reads many messages at once where it can, and gives each in its turn."""

    def look_ahead(self, records: Sequence[Record]) -> None:
        """`decode` is about to be called for each of these; raises nothing, asks nobody."""


@dataclass(frozen=True)
class Sorted:
    """Three ports: items to go on with, dead letters, and what was skipped with its reason."""

    oks: Stream[Envelope[Any]]
    errs: Stream[DeadLetter]
    skipped: Stream[Settled]


class Ports:
    """A list sorted into three; it flows as one item, so that splitting costs per list, not per record."""

    __slots__ = ("errs", "oks", "skipped")

    def __init__(self) -> None:
        self.oks: list[Envelope[Any]] = []
        self.errs: list[DeadLetter] = []
        self.skipped: list[Skipped] = []

    @property
    def sizes(self) -> dict[str, int]:
        """How many went where."""
        return {name: len(getattr(self, name)) for name in self.__slots__}


@operator
def decode(step_id: str, up: Stream[Envelope[bytes]], decoder: Decoder, source: KafkaSource | None = None) -> Sorted:
    """Decode messages into items, each by itself: one bad member does not cost its chunk (law 7).

    Undecodable messages and items leave by `errs`, tombstones, unknown events and empty messages by `skipped`. What the
    decoder has to ask is waited for, and nothing is dead-lettered meanwhile; a decoder that asks needs the `source`,
    else `DeploymentFault` is raised at build. A refusal stops the worker with exit code 78.
    """
    if not decoder.waits:
        return split(op.flat_map_batch("sort", up, by_list("decode", partial(sort, decoder))))
    if source is None:
        raise DeploymentFault(
            f"{step_id}: this decoder asks a schema registry and has to wait while that is away: "
            "hand it the source, decode(step, stream, decoder, source)"
        )
    return split(op.flat_map_batch("sort", up, by_list("decode", Asking(decoder, source).sort)))


def by_list(step: str, sort: Callable[[list[Envelope[Any]]], Ports]) -> Callable[[list[Envelope[Any]]], list[Ports]]:
    """Sort list by list, each in a span of its own."""

    def sort_list(envelopes: list[Envelope[Any]]) -> list[Ports]:
        with tracing.step(step, envelopes[0].record, taken=len(envelopes)) as span:
            ports = sort(envelopes)
            span.set(**ports.sizes)
        return [ports]

    return sort_list


def sort(decoder: Decoder, window: Iterable[Envelope[bytes]]) -> Ports:
    """Messages as items, letters and skips."""
    ports = Ports()
    if isinstance(decoder, DecodesAll):
        decoder.decode_all(window, ports.oks, ports.errs, ports.skipped)
    else:
        for envelope in _looked_at(decoder, window):
            decoder.decode(envelope.record, ports.oks, ports.errs, ports.skipped)
    return ports


def _looked_at(decoder: Decoder, window: Iterable[Envelope[bytes]]) -> Iterable[Envelope[bytes]]:
    """The window, after the decoder had a look at it."""
    if not isinstance(decoder, LooksAhead):
        return window
    envelopes = list(window)
    decoder.look_ahead([envelope.record for envelope in envelopes])
    return envelopes


class Asking:
    """Decodes by asking somebody, who is waited for."""

    def __init__(self, decoder: Decoder, source: KafkaSource, clock: Callable[[], float] = time.monotonic) -> None:
        self._decoder = decoder
        self._source = source
        self._clock = clock
        self._backoff = Backoff()

    def sort(self, window: Iterable[Envelope[bytes]]) -> Ports:
        """Messages as items, letters and skips, without the rest of the window where the worker ends.

        What is left out is not settled, so whoever reads on after us reads it again.
        """
        ports = Ports()
        due = self._clock() + ALIVE_SECONDS
        for envelope in _looked_at(self._decoder, window):
            if not self._decode(envelope.record, ports):
                break
            if self._clock() >= due:
                if not self._source.keep_alive(0.0):
                    break
                due = self._clock() + ALIVE_SECONDS
        return ports

    def _decode(self, record: Record, ports: Ports) -> bool:
        """Decode a record for as long as it takes, or until it is another's; False where the worker ends."""
        failures = 0
        while True:
            try:
                self._decoder.decode(record, ports.oks, ports.errs, ports.skipped)
            except DestinationFault as fault:
                failures += 1
                metrics.RETRIES.labels(self._source.pipeline, "decode", fault.code).inc()
                log.warning("waiting for the schema registry", fault=str(fault), failures=failures)
                if not self._source.keep_alive(self._backoff.seconds(failures), [record]):
                    return not self._source.ending
            except DeploymentFault as fault:
                self._source.note(fault)
                return False
            else:
                return True


def split(sorted_lists: Stream[Ports]) -> Sorted:
    """Unpack lists of three into three streams."""
    return Sorted(
        oks=op.flat_map_batch("oks", sorted_lists, _oks),
        errs=op.flat_map_batch("errs", sorted_lists, _errs),
        skipped=op.flat_map_batch("skipped", sorted_lists, _skipped),
    )


def _oks(lists: list[Ports]) -> list[Envelope[Any]]:
    return [envelope for ports in lists for envelope in ports.oks]


def _errs(lists: list[Ports]) -> list[DeadLetter]:
    return [letter for ports in lists for letter in ports.errs]


def _skipped(lists: list[Ports]) -> list[Settled]:
    pairs = sorted((pair for ports in lists for pair in ports.skipped), key=itemgetter(0))
    return [
        Settled(Outcome.SKIPPED, [envelope for _, envelope in group], reason)
        for reason, group in groupby(pairs, key=itemgetter(0))
    ]
