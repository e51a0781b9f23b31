"""What is in flight and what is settled: sets of offsets, never sums, so that nothing counts twice (laws 1, 3 and 4).

Theory of this file. A worker holds a partition for the time of an *assignment*, which has a number. Records that were
read in it are *in flight* until all their items have an outcome. Then they are *ready* and become *ranges* (consecutive
offsets with one outcome), which are reported. Ranges that the service has accepted are added to the *covered* offsets,
and the group offset moves to the end of their unbroken beginning.

    read ─▶ in_flight ─ last outcome ─▶ ready ─ confirmed, take_ranges ─▶ reported ─ accept ─▶ covered ─▶ position

What was read as a chunk (`columns`) is in flight there, message by message, and its slices become ranges without a
record. A message of it that is looked at alone becomes a record, and goes the way above.

An assignment ends when the partition is given up. Its number is then ignored everywhere: the next owner reads its
offsets again. No I/O, no clock, no engine here.
"""

from collections import deque
from collections.abc import Iterable

import msgspec

from lovelace_streams.columns import ALONE, OPEN, Chunk, Slice
from lovelace_streams.records import Outcome, Record, Settled
from lovelace_streams.runtime.offsets import Offsets
from lovelace_streams.runtime.ranges import Range, merge_neighbours, ranges_of, split_at


class Assignment(msgspec.Struct, gc=False):
    """One partition for the time between getting and losing it, with the accounts of what was read."""

    number: int
    topic: str
    topic_id: str
    partition: int
    start: int
    next: int
    """The end of what was read: the next record's `after`."""
    committed: int
    confirmed: float = float("inf")
    """Offsets below this are known to be of the topic with this id; only they are reported (see `kafka.topic_ids`)."""
    in_flight: dict[int, Record] = {}
    chunks: deque[Chunk] = msgspec.field(default_factory=deque)
    """Chunks of which messages are open: they are in flight, too."""
    ready: list[Range] = []
    """Settled ranges that `take_ranges` has not handed out yet, in any order."""
    covered: Offsets = msgspec.field(default_factory=Offsets)
    """Offsets that the progress service has accepted (or that are settled, in a flow without one)."""
    unaccepted: int = 0
    """How many offsets were read and are not covered yet."""
    counts: dict[str, int] = msgspec.field(default_factory=lambda: {"read": 0} | {str(end): 0 for end in Outcome})

    @property
    def position(self) -> int:
        """The offset that may be committed: the end of the unbroken beginning of the covered offsets."""
        return self.covered.end_of(self.start)

    @property
    def pending(self) -> int:
        """Items in flight without an outcome, counted record by record; a record not decoded yet counts none."""
        return sum(
            record.items - record.succeeded - record.failed - record.skipped for record in self.in_flight.values()
        ) + sum(chunk.pending for chunk in self.chunks)

    @property
    def messages_in_flight(self) -> int:
        """Messages of which an item has no outcome."""
        return len(self.in_flight) + sum(chunk.open for chunk in self.chunks)

    @property
    def oldest(self) -> int | None:
        """The first offset in flight; None if nothing is."""
        first = (offset for offset in (chunk.oldest for chunk in self.chunks) if offset is not None)
        return min((*self.in_flight, *first), default=None)


class InFlight:
    """All current assignments of a worker: what was read, how it ended, what may be reported and committed.

    Only the worker's one thread may call it. A call about an assignment that has ended does nothing.
    """

    def __init__(self) -> None:
        self.current: dict[int, Assignment] = {}
        self.totals: dict[str, int] = {str(end): 0 for end in Outcome}
        """Items by outcome since the worker started, also those of assignments that have ended."""
        self.given_up = 0
        """Items without an outcome when their assignment ended: the next owner reads them again."""
        self._last_number = 0

    def assign(self, topic: str, topic_id: str, partition: int, start: int) -> Assignment:
        """Start an assignment at offset `start`; an earlier one of the same partition ends."""
        self.end(topic, partition)
        self._last_number += 1
        new = Assignment(self._last_number, topic, topic_id, partition, start, start, start)
        self.current[new.number] = new
        return new

    def of(self, topic: str, partition: int) -> Assignment | None:
        """Give the current assignment of a partition; None without one."""
        return next((a for a in self.current.values() if a.topic == topic and a.partition == partition), None)

    def end(self, topic: str, partition: int) -> None:
        """End the assignment of a partition: every step drops the items of it that are still on their way."""
        if ended := self.of(topic, partition):
            self.given_up += ended.pending
            del self.current[ended.number]

    def read(self, *records: Record) -> None:
        """Note records of one assignment as in flight, in ascending order."""
        assignment = self.current[records[0].assignment]
        in_flight = assignment.in_flight
        for record in records:
            in_flight[record.offset] = record
        end = records[-1].offset + 1
        assignment.unaccepted += end - records[0].after
        assignment.next = end

    def read_chunk(self, chunk: Chunk) -> None:
        """Note the messages of a chunk as in flight."""
        assignment = self.current[chunk.assignment]
        chunk.in_flight = assignment.in_flight
        _let_go(assignment.chunks)
        assignment.chunks.append(chunk)
        end = chunk.offsets[-1] + 1
        assignment.unaccepted += end - chunk.runs[0].after
        assignment.next = end

    def pass_over(self, number: int, end: int) -> None:
        """Note that there is no record between the last one read and `end`: the broker skipped those offsets."""
        assignment = self.current[number]
        if end > assignment.next:
            assignment.ready.append(Range(assignment.next, end - 1, 0, 0, 0))
            assignment.unaccepted += end - assignment.next
            assignment.next = end

    def holds(self, record: Record) -> bool:
        """Whether a record is in flight: its assignment is current, and one of its items has no outcome."""
        assignment = self.current.get(record.assignment)
        return assignment is not None and record.offset in assignment.in_flight

    def settle(self, settled: Settled) -> int:
        """Note the outcome of items that were written or skipped; `fail` has noted the dead-lettered ones.

        Returns the number of items noted, without those of an assignment that has ended.
        """
        if settled.outcome is Outcome.DEAD_LETTERED:
            return 0
        noted, number = 0, -1
        plain: dict[int, list[Record]] = {}
        records: list[Record] = []
        for envelope in settled.parts:
            if envelope.__class__ is Slice:
                noted += self._end_slice(envelope, settled.outcome)
                continue
            record = envelope.record
            if not (record.items == 1 == envelope.count and record.origin is None):
                noted += self._end_items(record, settled.outcome, envelope.count)
                continue
            if record.assignment != number:
                number = record.assignment
                records = plain.setdefault(number, [])
            records.append(record)
        return noted + sum(self._end_plain(number, records, settled.outcome) for number, records in plain.items())

    def _end_plain(self, number: int, records: list[Record], outcome: Outcome) -> int:
        """Settle messages of one item each, in bulk.

        Most of what a worker settles is of this kind, hence a loop that makes no calls.
        """
        if (assignment := self.current.get(number)) is None:
            return 0
        skipped = int(outcome is Outcome.SKIPPED)
        succeeded = 1 - skipped
        in_flight, ready = assignment.in_flight, assignment.ready
        first = end = -1
        job: str | None = None
        attempt = 1
        for record in records:
            offset = record.offset
            if in_flight.pop(offset, None) is None:
                raise _settled_twice(record)
            if skipped:
                record.skipped = 1
            else:
                record.succeeded = 1
            if offset != end or record.job != job or record.attempt != attempt:
                if first < end:
                    ready.append(Range(first, end - 1, succeeded, 0, skipped, job, attempt))
                if record.after < offset:
                    ready.append(Range(record.after, offset - 1, 0, 0, 0))
                first, job, attempt = offset, record.job, record.attempt
            end = offset + 1
        ready.append(Range(first, end - 1, succeeded, 0, skipped, job, attempt))
        assignment.counts["read"] += len(records)
        self._count(assignment, outcome, len(records))
        return len(records)

    def _end_slice(self, rows: Slice, outcome: Outcome) -> int:
        """Settle rows of columns: whole messages as ranges of offsets, the others by the tallies of their records."""
        chunk = rows.columns.chunk
        if (assignment := self.current.get(chunk.assignment)) is None:
            return 0
        spans, cut = rows.whole_messages()
        for start, stop, items in spans:
            if chunk.states.count(OPEN, start, stop) == stop - start:
                self._end_messages(assignment, chunk, start, stop, items, outcome)
                continue
            for place in range(start, stop):  # some are looked at alone: their tallies tell
                if chunk.states[place] == ALONE:
                    self._end_items(chunk.record_at(place), outcome, items)
                elif chunk.states[place] == OPEN:
                    self._end_messages(assignment, chunk, place, place + 1, items, outcome)
                else:
                    raise _settled_twice(chunk.record_at(place))
        for place, items in cut:
            self._end_items(chunk.record_at(place), outcome, items)
        _let_go(assignment.chunks)
        return len(rows)

    def _end_messages(
        self, assignment: Assignment, chunk: Chunk, start: int, stop: int, items: int, outcome: Outcome
    ) -> None:
        """Settle open messages of a chunk that hold equally many items."""
        skipped = items if outcome is Outcome.SKIPPED else 0
        succeeded = items - skipped
        ready = assignment.ready
        for first, end, run in chunk.runs_between(start, stop):
            if first == run.start and run.after < run.offset:
                ready.append(Range(run.after, run.offset - 1, 0, 0, 0))
            offset = run.offset + first - run.start
            ready.append(Range(offset, offset + end - first - 1, succeeded, 0, skipped, run.job, run.attempt))
        chunk.settle(start, stop)
        assignment.counts["read"] += items * (stop - start)
        self._count(assignment, outcome, items * (stop - start))

    def _end_items(self, record: Record, outcome: Outcome, items: int) -> int:
        """Settle items of any message."""
        if (assignment := self.current.get(record.assignment)) is None:
            return 0
        self._begin_count(assignment, record)
        self._count(assignment, outcome, items)
        if outcome is Outcome.SKIPPED:
            record.skipped += items
        else:
            record.succeeded += items
        self._complete(assignment, record)
        return items

    def fail(self, record: Record, failures: dict[int, str]) -> bool:
        """Note that items of a record were dead-lettered, each with its reason; False where its assignment ended."""
        assignment = self.current.get(record.assignment)
        if assignment is None:
            return False
        self._begin_count(assignment, record)
        self._count(assignment, Outcome.DEAD_LETTERED, len(failures))
        record.failed += len(failures)
        record.failures = failures
        self._complete(assignment, record)
        return True

    def _begin_count(self, assignment: Assignment, record: Record) -> None:
        """Count the items of a record as read when the first of them has an outcome."""
        if not (record.succeeded or record.failed or record.skipped):
            assignment.counts["read"] += record.items

    def _count(self, assignment: Assignment, outcome: Outcome, items: int) -> None:
        assignment.counts[outcome] += items
        self.totals[outcome] += items

    @staticmethod
    def _complete(assignment: Assignment, record: Record) -> None:
        done = record.succeeded + record.failed + record.skipped
        if done < record.items:
            return
        if done > record.items or assignment.in_flight.pop(record.offset, None) is None:
            raise _settled_twice(record)
        assignment.ready += ranges_of(record)

    def take_ranges(self) -> list[tuple[Assignment, list[Range]]]:
        """Take the ranges that became ready since the last call and are confirmed; each is handed out once."""
        taken = []
        for assignment in self.current.values():
            if assignment.ready:
                ranges, assignment.ready = split_at(merge_neighbours(assignment.ready), assignment.confirmed)
                if ranges:
                    taken.append((assignment, ranges))
        return taken

    def accept(self, number: int, ranges: Iterable[Range]) -> None:
        """Add ranges that the progress service has accepted to the covered offsets."""
        assignment = self.current.get(number)
        if assignment is None:
            return
        for r in ranges:
            assignment.covered.add(r.first, r.last)
            assignment.unaccepted -= r.last + 1 - r.first

    def committable(self) -> list[Assignment]:
        """List the assignments whose position is past the committed offset."""
        return [a for a in self.current.values() if a.position > a.committed]

    @property
    def unaccepted(self) -> int:
        """How many offsets were read and are not covered: after a crash now they would be read again."""
        return sum(a.unaccepted for a in self.current.values())

    @property
    def unfinished(self) -> bool:
        """Whether anything is in flight, on its way to the progress service, or not committed."""
        return any(a.unaccepted or a.position > a.committed for a in self.current.values())


def _let_go(chunks: deque[Chunk]) -> None:
    """Forget chunks of which no message is open, from the oldest on."""
    while chunks and not chunks[0].open:
        chunks.popleft()


def _settled_twice(record: Record) -> AssertionError:
    where = f"{record.topic}-{record.partition}@{record.offset}"
    return AssertionError(f"{where}: more outcomes than items ({record.items}): a step settled an item twice")
