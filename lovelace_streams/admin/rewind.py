"""Move a group back, so that workers process records again: rows are written again, counts stay (docs/rewind.md).

A worker begins at the committed offset if its metadata names the topic's id (decision 0005). So a rewind only commits
earlier offsets while no worker reads. The counts of the progress service stay: it keeps a set of offsets, and these are
in it. A group only moves back, because a move forward would pass over records that no worker has settled.
"""

from collections.abc import Sequence

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from lovelace_streams.admin.coordinator import REQUEST_SECONDS, retry_while_coordinator_moves
from lovelace_streams.admin.times import instant
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.flows.topology import Topology
from lovelace_streams.kafka.client import REFUSED_IN_REBALANCE, common_config
from lovelace_streams.kafka.topic_ids import TopicIds
from lovelace_streams.kafka.topic_reader import OffsetRanges, standalone_consumer, watermarks
from lovelace_streams.rows.declaration import FromKafka, Table
from lovelace_streams.settings import KafkaSettings

EARLIEST = "earliest"
MEMBERS_SHOWN = 5


class RewindTarget(msgspec.Struct, frozen=True):
    """The destination of a rewind: an offset, a time (milliseconds since 1970), or the earliest offset of the topic."""

    offset: int | None = None
    time: int | None = None

    @classmethod
    def of(cls, text: str) -> "RewindTarget":
        """Read what `--to` says. Raises `ValueError`.

        >>> RewindTarget.of("1200"), RewindTarget.of("earliest")
        (RewindTarget(offset=1200, time=None), RewindTarget(offset=None, time=None))
        >>> RewindTarget.of("2026-01-01T00:00:00Z").time
        1767225600000
        """
        if text == EARLIEST:
            return cls()
        if text.isdecimal():
            return cls(offset=int(text))
        return cls(time=instant(text))


class Move(msgspec.Struct, frozen=True):
    """The move of one partition, or why it stays."""

    topic: str
    topic_id: str
    partition: int
    low: int
    high: int
    """The topic holds the offsets from `low` to the one before `high`."""
    committed: int | None
    """None if the group has no offset here, or one of a topic that was deleted."""
    to: int

    @property
    def moves(self) -> bool:
        """Whether it moves: back, or to the earliest offset where retention has deleted the committed one."""
        if self.committed is None or self.committed < self.low:
            return self.to == self.low < self.high
        return self.to < self.committed

    @property
    def records(self) -> int:
        """How many offsets are processed again; an upper bound where the group has no offset."""
        end = self.high if self.committed is None else self.committed
        return max(0, end - self.to) if self.moves else 0

    @property
    def why(self) -> str:
        """Why it stays, or what is special about its move; empty for a plain move back."""
        if self.low == self.high and not self.moves:
            return "the partition is empty"
        if self.committed is None:
            return "the group has no offset" if self.moves else "the group has no offset: only --to earliest is safe"
        if self.committed < self.low:
            gone = f"offsets {self.committed}…{self.low - 1} are gone from the topic"
            return gone if self.moves else f"{gone}: only --to earliest is safe"
        return "" if self.moves else "the group is not past that"


def plan(
    settings: KafkaSettings, group: str, topics: Sequence[str], target: RewindTarget, partition: int | None = None
) -> list[Move]:
    """Plan the move of each partition.

    Raises `DeploymentFault` if a topic or the partition does not exist, if an offset is out of range, or if the group
    has members; `DestinationFault` if the broker does not answer.
    """
    moves: list[Move] = []
    with standalone_consumer(settings, group) as consumer:
        admin = AdminClient(common_config(settings) | {"log_level": 0})
        _refuse_members(admin, group)
        ids = TopicIds(admin).now(topics)
        for topic in topics:
            held = watermarks(consumer, settings, topic)
            if partition is not None:
                held = {number: span for number, span in held.items() if number == partition}
            moves += _moves(consumer, topic, ids.get(topic, ""), held, target)
    if not moves:
        raise DeploymentFault(f"there is no partition {partition} in {', '.join(topics)}: choose another --partition")
    return moves


def _moves(consumer: Consumer, topic: str, topic_id: str, held: OffsetRanges, target: RewindTarget) -> list[Move]:
    if not held:
        return []
    wanted = [TopicPartition(topic, number) for number in held]
    starts = _starts(consumer, topic, held, target)
    moves = []
    for it in retry_while_coordinator_moves(lambda: consumer.committed(wanted, REQUEST_SECONDS)):
        ours = it.offset >= 0 and it.metadata in {None, "", topic_id}
        span, at = held[it.partition], it.offset if ours else None
        moves.append(Move(topic, topic_id, it.partition, *span, committed=at, to=starts[it.partition]))
    return sorted(moves, key=lambda move: move.partition)


def _starts(consumer: Consumer, topic: str, held: OffsetRanges, target: RewindTarget) -> dict[int, int]:
    """Find each partition's offset for the target. Raises `DeploymentFault` for an offset that a partition lacks."""
    if target.offset is not None:
        offset = target.offset
        outside = [
            f"{topic}-{number} holds {low}…{high}" for number, (low, high) in held.items() if not low <= offset <= high
        ]
        if outside:
            raise DeploymentFault(
                f"--to {offset} is out of range: {', '.join(outside)}; choose one partition by --partition"
            )
        return dict.fromkeys(held, offset)
    if target.time is None:
        return {number: low for number, (low, _) in held.items()}
    asked = [TopicPartition(topic, number, target.time) for number in held]
    found = {it.partition: it.offset for it in consumer.offsets_for_times(asked, REQUEST_SECONDS)}
    return {number: found[number] if found[number] >= 0 else high for number, (_, high) in held.items()}


def _refuse_members(admin: AdminClient, group: str) -> None:
    described = retry_while_coordinator_moves(
        lambda: admin.describe_consumer_groups([group], request_timeout=REQUEST_SECONDS)[group].result(REQUEST_SECONDS)
    )
    members = described.members
    if members:
        raise _has_members(group, [f"{member.client_id} at {member.host}" for member in members])


def _has_members(group: str, members: Sequence[str]) -> DeploymentFault:
    shown = ", ".join(members[:MEMBERS_SHOWN]) + (", …" if len(members) > MEMBERS_SHOWN else "")
    return DeploymentFault(
        f"the group {group!r} has {len(members) or 'live'} member{'' if len(members) == 1 else 's'}"
        f"{f' ({shown})' if shown else ''}: "
        f"stop the workers first, because they keep their own positions"
    )


def commit(settings: KafkaSettings, group: str, moves: Sequence[Move]) -> None:
    """Commit the new offsets, each with its topic's id, as the source expects them.

    Raises `DeploymentFault` if a worker has joined meanwhile (the broker refuses), `DestinationFault` if the broker
    does not answer.
    """
    offsets = [
        TopicPartition(move.topic, move.partition, move.to, metadata=move.topic_id) for move in moves if move.moves
    ]
    with standalone_consumer(settings, group) as consumer:
        try:
            done = retry_while_coordinator_moves(lambda: consumer.commit(offsets=offsets, asynchronous=False)) or []
            refused = next((it.error for it in done if it.error is not None), None)
        except KafkaException as error:
            refused = error.args[0]
        if refused is None:
            return
        if refused.code() in REFUSED_IN_REBALANCE:
            raise _has_members(group, [])
        raise DestinationFault(
            refused.name(), f"the broker {settings.brokers} does not accept the new offsets: try again"
        )


def overwritten_tables(built: Topology, topics: set[str]) -> list[str]:
    """Name the tables in which older rows overwrite newer ones while these topics are read again.

    A row with a version keeps the newer one, as does a destination that stores the order of its rows; and a row that is
    keyed by its record's partition and offset has no older one.
    """
    written_from = {route.writer: set(route.source.topics) for route in built.routes if route.writer is not None}
    tables = [
        row.__table__
        for writer in built.writers
        if writer.capabilities.older_overwrites and written_from.get(writer, topics) & topics
        for row in writer.rows
    ]
    return list(dict.fromkeys(t.name for t in tables if t.version is None and not _is_keyed_by_record(t)))


def _is_keyed_by_record(table: Table) -> bool:
    sources = [column.source for column in table.columns if column.name in table.key]
    return {"partition", "offset"} <= {source.field for source in sources if isinstance(source, FromKafka)}
