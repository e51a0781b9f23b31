"""Moving a group back, so that records are processed again: rows are written again, counts are not (docs/rewind.md).

The worker begins at the committed offset if its metadata names the topic's id (decision 0005), so this is all a rewind
is: to commit earlier offsets while nobody reads. What the progress service has counted stays counted: it is a set of
offsets, and these are in it. A group is only ever moved back: forward would pass over records that nobody has settled.
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from lovelace_streams.admin.times import instant
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.kafka.client import REFUSED_IN_REBALANCE, common_config
from lovelace_streams.kafka.topic_ids import TopicIds
from lovelace_streams.kafka.topic_reader import OffsetRanges, standalone_consumer, watermarks
from lovelace_streams.settings import KafkaSettings

SECONDS = 15.0
EARLIEST = "earliest"
MEMBERS_SHOWN = 5
COORDINATOR = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
T = TypeVar("T")
"""What the broker answers."""


class RewindTarget(msgspec.Struct, frozen=True):
    """Where to: an offset, a time (milliseconds since 1970), or the earliest that the topic holds."""

    offset: int | None = None
    time: int | None = None

    @classmethod
    def of(cls, text: str) -> "RewindTarget":
        """Raises `ValueError`.

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
    """What becomes of one partition."""

    topic: str
    topic_id: str
    partition: int
    low: int
    high: int
    """From the earliest offset that the topic still holds to the one after its last."""
    committed: int | None
    """None where nothing was committed, or under the id of a topic that is gone."""
    to: int

    @property
    def moves(self) -> bool:
        """Whether it goes back; or, where what was committed has expired, to what is left."""
        if self.committed is None or self.committed < self.low:
            return self.to == self.low < self.high
        return self.to < self.committed

    @property
    def records(self) -> int:
        """Offsets that are processed again; where nothing was committed, at most so many."""
        end = self.high if self.committed is None else self.committed
        return max(0, end - self.to) if self.moves else 0

    @property
    def why(self) -> str:
        """Why it stays, or what is special about how it goes; empty for a plain step back."""
        if self.low == self.high and not self.moves:
            return "there is nothing in it"
        if self.committed is None:
            return "nothing is committed" if self.moves else "nothing is committed: only --to earliest is safe"
        if self.committed < self.low:
            gone = f"offsets {self.committed}…{self.low - 1} are gone from the topic"
            return gone if self.moves else f"{gone}: only --to earliest is safe"
        return "" if self.moves else "it is not past that"


def plan(
    settings: KafkaSettings, group: str, topics: Sequence[str], target: RewindTarget, partition: int | None = None
) -> list[Move]:
    """What a rewind would do to each partition.

    Raises `DeploymentFault` where a topic or the partition is not there, where an offset is out of range, or where the
    group has members; `DestinationFault` where the broker is away.
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
        raise DeploymentFault(f"there is no partition {partition} in {', '.join(topics)}")
    return moves


def _moves(consumer: Consumer, topic: str, topic_id: str, held: OffsetRanges, target: RewindTarget) -> list[Move]:
    if not held:
        return []
    wanted = [TopicPartition(topic, number) for number in held]
    starts = _starts(consumer, topic, held, target)
    moves = []
    for it in retry_while_coordinator_moves(lambda: consumer.committed(wanted, SECONDS)):
        ours = it.offset >= 0 and it.metadata in {None, "", topic_id}
        span, at = held[it.partition], it.offset if ours else None
        moves.append(Move(topic, topic_id, it.partition, *span, committed=at, to=starts[it.partition]))
    return sorted(moves, key=lambda move: move.partition)


def _starts(consumer: Consumer, topic: str, held: OffsetRanges, target: RewindTarget) -> dict[int, int]:
    """Partition → the offset that is meant. Raises `DeploymentFault` for one that is not there."""
    if target.offset is not None:
        offset = target.offset
        outside = [
            f"{topic}-{number} holds {low}…{high}" for number, (low, high) in held.items() if not low <= offset <= high
        ]
        if outside:
            raise DeploymentFault(f"offset {offset} is out of range: {', '.join(outside)}; name one by --partition")
        return dict.fromkeys(held, offset)
    if target.time is None:
        return {number: low for number, (low, _) in held.items()}
    asked = [TopicPartition(topic, number, target.time) for number in held]
    found = {it.partition: it.offset for it in consumer.offsets_for_times(asked, SECONDS)}
    return {number: found[number] if found[number] >= 0 else high for number, (_, high) in held.items()}


def _refuse_members(admin: AdminClient, group: str) -> None:
    described = retry_while_coordinator_moves(
        lambda: admin.describe_consumer_groups([group], request_timeout=SECONDS)[group].result(SECONDS)
    )
    members = described.members
    if members:
        raise _alive(group, [f"{member.client_id} at {member.host}" for member in members])


def _alive(group: str, members: Sequence[str]) -> DeploymentFault:
    shown = ", ".join(members[:MEMBERS_SHOWN]) + (", …" if len(members) > MEMBERS_SHOWN else "")
    return DeploymentFault(
        f"the group {group!r} has {len(members) or 'live'} member{'' if len(members) == 1 else 's'}"
        f"{f' ({shown})' if shown else ''}: "
        f"stop the workers first, they would go on where they are"
    )


def retry_while_coordinator_moves(ask: Callable[[], T]) -> T:
    """Ask again while the broker says that asking again may help: a group's coordinator moves, and loads."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return ask()
        except KafkaException as error:
            code = error.args[0]
            may_help = code.retriable() or code.code() in COORDINATOR
            if not may_help or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def commit(settings: KafkaSettings, group: str, moves: Sequence[Move]) -> None:
    """Commit the new positions, with each topic's id, as the source expects them.

    Raises `DeploymentFault` where a worker has joined meanwhile (the broker refuses), `DestinationFault` where the
    broker is away.
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
            raise _alive(group, [])
        raise DestinationFault(refused.name(), f"the broker {settings.brokers} does not take the new positions")
