"""The worker's context: what the steps of a flow ask of their worker and report to it, and the worker's loop.

Theory of this file. Work that needs no record is done here, in `next_window`, because no step downstream runs while a
topic is silent: held letters are sent, answers to reports are taken, offsets are committed. A step that has such work
registers a `Service`. One call of `next_window` serves the services, commits, and then reads a window of at most
`poll_size` messages within `linger` seconds. Every step sees the window before the next call, so that no step keeps
anything from one window to the next unless a service of its own looks after it.

    next_window:  confirm ─▶ serve each service ─▶ commit ─▶ ended? ─▶ read a window ─▶ the steps
    keep_alive:   idle (poll without reading) ─▶ confirm ─▶ serve the other services ─▶ again until the time is over

A step that must wait (a destination is down) waits in `keep_alive`: the worker goes on polling without reading. So an
outage of any length costs neither the membership of the group nor memory, and delays no rebalance.

No engine and no client here: a source (`sources`) brings the `Reader` and the clients.
"""

import time
from collections.abc import Callable, Iterable

import structlog

from lovelace_streams.columns import Chunk, ColumnLoop
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.observability import metrics
from lovelace_streams.records import DeadLetter, Envelope, JobState, Record, Settled
from lovelace_streams.runtime.gauges import PartitionStatus, WorkerGauges
from lovelace_streams.runtime.in_flight import Assignment, InFlight
from lovelace_streams.runtime.offsets import Offsets
from lovelace_streams.runtime.process import WorkerProcess
from lovelace_streams.runtime.reader import Clients, Reader
from lovelace_streams.runtime.service import Service
from lovelace_streams.settings import KafkaSettings

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.1
"""How often a waiting worker polls: far below any `max.poll.interval.ms`."""
DRAIN_POLL_SECONDS = 0.02
"""How often a draining worker checks whether everything is finished."""


class WorkerContext:
    """What steps ask of their worker and report to it; one object a worker, made with the flow.

    `settings` name the broker that dead letters go to, also where the source reads something else. Nothing is opened
    before the first window. A restart reads again from the committed position: items that were settled but not
    committed are repeated, and every effect is idempotent.
    """

    def __init__(self, settings: KafkaSettings, topics: Iterable[str], clients: Clients) -> None:
        self.settings = settings
        self.topics = tuple(topics)
        self.clients = clients
        self.process = WorkerProcess()
        self.pipeline: str | None = settings.group
        self.columnar: ColumnLoop | None = None
        """What makes columns of the messages of a chunk, if the flow's own steps take them; else they are items."""
        self.in_flight = InFlight()
        self.fault: DeploymentFault | None = None
        self.draining_since: float | None = None
        self.items_at_writer = 0
        """How many items came to a writer: they passed all steps before it, also where the writer refuses them."""
        self.waiting_for: dict[tuple[str, int], str] = {}
        """Topic and partition → what a step waits for, for people to read."""
        self.ledger_cover: Callable[[str], dict[int, Offsets]] | None = None
        """Topic id → partition → the ledger's covered offsets: where to start if nothing was committed."""
        self.services: list[Service] = []
        self._item_holders: list[Service] = []
        self._state_listeners: list[Callable[[list[JobState]], None]] = []
        self._dead_letters: list[DeadLetter] = []
        self._gauges: WorkerGauges | None = None
        self._reader: Reader | None = None
        self._serving: list[Service] = []
        self._idle = False
        self._closed = False
        self._reading = False

    def make_reader(self) -> Reader:
        """Make the reader of the records; each source has its own. Called once, at the first window."""
        raise NotImplementedError

    # -- for the steps --------------------------------------------------------------------------------------------

    def register(self, service: Service, *, holds_items: bool = False) -> None:
        """Add a service; it is served before every window, in the order registered.

        `holds_items`: it keeps items from one window to the next, and any of them may still be refused.
        """
        self.services.append(service)
        if holds_items:
            self._item_holders.append(service)

    @property
    def behind(self) -> bool:
        """Whether more had arrived than the last window holds: the next window will be full at once."""
        return self._reader is not None and self._reader.behind

    @property
    def holds_items(self) -> bool:
        """Whether a service holds items of earlier windows: an empty window does not mean that none is left."""
        return any(service.unfinished() for service in self._item_holders)

    @property
    def partition_statuses(self) -> list[PartitionStatus]:
        """How far each current partition was read, at most a second ago."""
        return self._gauges.partition_statuses if self._gauges is not None else []

    def on_states(self, listener: Callable[[list[JobState]], None]) -> None:
        """Call a listener with every answer of the progress service, at once.

        The stream of `progress` has the same states with the next list that is read.
        """
        self._state_listeners.append(listener)

    def notify_states(self, states: list[JobState]) -> None:
        """Pass an answer of the progress service to all listeners."""
        for listener in self._state_listeners:
            listener(states)

    def is_current(self, record: Record) -> bool:
        """Whether the record's assignment has not ended; a step asks before every effect."""
        return record.assignment in self.in_flight.current

    def topic_id(self, topic: str) -> str:
        """Give Kafka's id of a topic that the worker holds a partition of; a topic that is made again has another."""
        return next((held.topic_id for held in self.in_flight.current.values() if held.topic == topic), "")

    def settle(self, settled: Settled) -> None:
        """Note items whose effect is durable."""
        metrics.items(self.pipeline, settled, self.in_flight.settle(settled))

    def add_dead_letters(self, letters: Iterable[DeadLetter]) -> None:
        """Add items that failed while no step was being called; `dead_letter` takes them."""
        self._dead_letters += letters

    def take_dead_letters(self) -> list[DeadLetter]:
        """Take the items that were added since the last call."""
        taken, self._dead_letters = self._dead_letters, []
        return taken

    def note(self, fault: DeploymentFault) -> None:
        """Stop the worker because of this fault, with one line and exit code 78. The first fault counts.

        A step does not raise through the engine: Bytewax would print ninety lines and exit with code 1.
        """
        self.fault = self.fault or fault

    @property
    def ending(self) -> bool:
        """Whether the worker drains or stops: steps start nothing new."""
        return self.fault is not None or self.draining_since is not None

    def drain(self, *_: object) -> None:
        """Stop reading, finish what is in flight within `drain_seconds`, commit, end (SIGTERM)."""
        if self.draining_since is None:
            self.draining_since = time.monotonic()

    @property
    def drain_left(self) -> float:
        """Seconds left to finish; infinite while the worker is not draining."""
        if self.draining_since is None:
            return float("inf")
        return self.draining_since + self.settings.drain_seconds - time.monotonic()

    @property
    def unfinished(self) -> bool:
        """Whether partitions are not read yet, or records are not settled, reported and committed yet."""
        starting = self._reader is not None and self._reader.starting and not self.ending
        return starting or self.in_flight.unfinished or any(service.unfinished() for service in self.services)

    def keep_alive(self, seconds: float, records: Iterable[Record] = (), *, assignments: Iterable[int] = ()) -> bool:
        """Wait for `seconds` without reading; the consumer is polled and the other services are served.

        False at once if the worker ends, or if one of the assignments, or that of one of the records, has ended.
        """
        assert self._reader is not None
        awaited = {*assignments, *(record.assignment for record in records)}
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            self._reader.idle(max(0.0, min(POLL_SECONDS, left)))
            self._reader.confirm()
            self._serve(idle=False, between_windows=False)
            # While the worker drains, no step waits; `keep_alive(0)` polls once and succeeds until the drain is over.
            if self.fault or (self.draining_since is not None and (left > 0 or self.drain_left <= 0)):
                return False
            if not awaited <= self.in_flight.current.keys():
                return False
            if left <= 0:
                return True

    # -- the worker's loop ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the process's log, metrics and signals; a fault is noted. The source calls it once."""
        try:
            self.process.begin(self.drain)
        except DeploymentFault as fault:
            self.note(fault)
            return  # where metrics can't be kept, a gauge would raise through the engine
        self._gauges = WorkerGauges(
            self.pipeline, self.in_flight, self._known_end, can_read=self._can_read, waiting_for=self.waiting_for
        )
        self.register(self._gauges)

    def next_window(self) -> list[Envelope[bytes] | Chunk]:
        """Serve, commit, and read the next window. Raises `StopIteration` when the worker has ended."""
        if self._gauges is not None:
            self._gauges.alive()
        if (reader := self._opened()) is None:
            if self.ending:
                raise StopIteration
            return []
        reader.confirm()
        self._serve(idle=self._idle, between_windows=True)
        reader.commit()
        if self.fault:
            raise StopIteration
        if self.draining_since is not None:
            return self._drained(reader)
        if self._full():
            reader.idle(POLL_SECONDS)
            self._idle = True  # no item passes a step while nothing is read, so held letters must be released
            return []
        return self._read(reader)

    def close(self) -> None:
        """Give up all partitions; if a fault was noted, print its line and exit with 78."""
        if self._closed:
            return
        self._closed = True
        # Services first. After a drain nothing is in flight, and after a fault the next owner reads it again: so the
        # reader, when it gives up its partitions, takes no more than answers that are there already.
        for service in self.services:
            service.close()
        if self._reader is not None:
            self._reader.close()
        if self.fault:
            self.process.stop(f"{self.pipeline}: {self.fault}")

    def revoke(self, seconds: float) -> None:
        """Let every service finish what is in flight: the reader is about to give up partitions."""
        deadline = time.monotonic() + seconds
        for service in self.services:
            service.revoke(max(0.0, deadline - time.monotonic()))

    def _opened(self) -> Reader | None:
        """Open the reader once; None while the other side is away, or if a fault was noted before."""
        if self._reader is None:
            self._reader = self.make_reader()
        if self._reader.is_open or (not self.fault and self._reader.open()):
            return self._reader
        return None

    def _read(self, reader: Reader) -> list[Envelope[bytes] | Chunk]:
        window = reader.read(self.settings.poll_size, self.settings.linger)
        self._idle = not window and reader.is_caught_up()
        if window and not self._reading:
            self._reading = True
            self.process.started()
            log.info("reading", pipeline=self.pipeline)
        if self._gauges is not None:
            self._gauges.read(window)
        return window

    def _drained(self, reader: Reader) -> list[Envelope[bytes] | Chunk]:
        if not self.unfinished or self.drain_left <= 0:
            log.info("drained", pipeline=self.pipeline, left_for_the_next=self.in_flight.unaccepted)
            raise StopIteration
        reader.idle(DRAIN_POLL_SECONDS)
        self._idle = True
        return []

    def _full(self) -> bool:
        return self.in_flight.unaccepted >= self.settings.max_unreported or any(s.full() for s in self.services)

    def _known_end(self, assignment: Assignment) -> int | None:
        return self._reader.known_end(assignment) if self._reader else None

    def _can_read(self) -> bool:
        """Whether the reader says that nothing keeps it from reading; one that does not say so can if it is open."""
        return self._reader is not None and self._reader.is_open and getattr(self._reader, "can_read", True)

    def _serve(self, *, idle: bool, between_windows: bool) -> None:
        for service in self.services:
            if service in self._serving:  # it waits in `keep_alive`; only the others are served
                continue
            self._serving.append(service)
            try:
                service.serve(idle=idle, between_windows=between_windows)
            finally:
                self._serving.remove(service)
