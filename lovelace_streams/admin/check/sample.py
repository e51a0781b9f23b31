"""The records' part of a check: a sample passes decode and normalize, and its rows the destination's rules."""

from collections.abc import Iterable, Iterator
from typing import Any

from confluent_kafka import Message

from lovelace_streams.admin.check.destination import bounded
from lovelace_streams.admin.check.paths import PathsSeen
from lovelace_streams.admin.check.report import CheckReport
from lovelace_streams.delivery.blocks import entries_of, outcomes_of, without_foreign
from lovelace_streams.flows.topology import Route
from lovelace_streams.formats.decoder import Ports, SupportsTargets
from lovelace_streams.kafka.headers import record_of
from lovelace_streams.kafka.topic_reader import messages
from lovelace_streams.operators.normalize import sort
from lovelace_streams.records import DeadLetter, Envelope, Record, envelopes_of
from lovelace_streams.rows.normalizer import RawItem, normalizer
from lovelace_streams.runtime.in_flight import Assignment
from lovelace_streams.writers import Writer, dry_run


def where_it_ends(route: Route) -> str:
    """Say at which step the sample ends and what that means; "" where it reaches the writer.

    `lovelace check` runs no step of the flow's own: such a step may do anything, also write.
    """
    if route.writer is not None:
        return ""
    next_step = f"the flow's own step {route.own_step!r} follows" if route.own_step else "no step follows it"
    end = f"the sample ends after {route.last}, because {next_step} and check runs only decode, normalize and upsert"
    if route.target is None:
        return f"no record was tried: {end}; what is wrong with the records does not show here"
    return f"no row was tried: {end}; what {_refusers(route)} would refuse does not show here"


def _refusers(route: Route) -> str:
    return f"{route.own_step!r} and the table's rules" if route.own_step else "the table's rules"


class SampleRun:
    """The sample of one route. It counts into the report."""

    def __init__(self, route: Route, size: int, report: CheckReport) -> None:
        self.route = route
        self.size = size
        self.report = report
        self.result = report.sample

    def run(self, *, dry_run: bool) -> None:
        """Try the records as far as the route goes; with `dry_run` try the rows on the destination."""
        if self.route.decoder is None or self.route.target is None:
            return
        decoder = self.route.decoder
        seen = PathsSeen(decoder.targets if isinstance(decoder, SupportsTargets) else {})
        rows = list(self._rows(self._records(), seen))
        if self.result.messages:
            for note in seen.notes():
                self.report.add("note", note)
        if self.route.writer is not None and dry_run:
            self._dry_run(self.route.writer, rows)

    def _records(self) -> Iterator[Record]:
        source = self.route.source
        for topic in source.topics:
            assignments: dict[int, Assignment] = {}
            for message in messages(source.settings, topic, newest=self.size, oldest=self.size):
                self.result.messages += 1
                yield _record(message, topic, assignments)

    def _rows(self, records: Iterable[Record], seen: PathsSeen) -> Iterator[Envelope[Any]]:
        """Give items as rows. Items that do not decode or fit, and skipped ones, are counted and end here."""
        assert self.route.decoder is not None
        assert self.route.target is not None
        mapper = normalizer(self.route.target, skips=self.route.skips)
        for record in records:
            decoded = Ports()
            self.route.decoder.decode(record, decoded.oks, decoded.errs, decoded.skipped)
            for envelope in decoded.oks:
                if isinstance(envelope.payload, RawItem):
                    seen.look(envelope.payload)
            normalized = sort(mapper, decoded.oks)
            self.result.items += record.items
            for letter in (*decoded.errs, *normalized.errs):
                self.result.count_failure(letter)
            for reason, envelope in (*decoded.skipped, *normalized.skipped):
                self.result.count(str(reason), envelope.count)
            yield from envelopes_of(normalized.oks)

    def _dry_run(self, writer: Writer, envelopes: list[Envelope[Any]]) -> None:
        parts, foreign = without_foreign("upsert", envelopes, writer)
        own = envelopes_of(parts)
        for letter in foreign:
            self.result.count_failure(letter)
        if not own:
            return
        entries, rows_per_item = entries_of(own)
        with bounded(writer):
            results = dry_run(writer, entries)
        rolls_back = writer.capabilities.can_dry_run
        if not rolls_back:
            self.report.add("note", f"{writer.name} can't roll back: rows were compared with the columns' types only")
        for outcome in outcomes_of("upsert", own, rows_per_item, results):
            if isinstance(outcome, DeadLetter):
                self.result.count_failure(outcome)
            else:
                name = str(outcome.reason or outcome.outcome) if rolls_back else "checked"
                self.result.count(name, len(outcome.envelopes))


def _record(message: Message, topic: str, assignments: dict[int, Assignment]) -> Record:
    """Make the record that a worker would make of a message."""
    partition, offset = message.partition() or 0, message.offset() or 0
    assignment = assignments.setdefault(partition, Assignment(0, topic, "", partition, offset, offset, offset))
    assignment.next = offset
    return record_of(message, assignment)
