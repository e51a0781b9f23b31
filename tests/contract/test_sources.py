"""One contract, all sources: Kafka on a real broker and on the broker in memory, and the list of a contributor's page.

A new source joins by a class that makes it, sends to it and reads what is committed, and by its name in `CASES`.
What a source can't (`shares`: two workers share its partitions; `skips`: offsets without a record) its class says.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from lovelace_streams.dead_letters.sender import DeadLetterSender
from lovelace_streams.records import DeadLetter, Envelope, Outcome, Reason, Settled
from lovelace_streams.reporting.reporter import Committer
from lovelace_streams.runtime.in_flight import Assignment
from lovelace_streams.runtime.service import Service
from lovelace_streams.settings import KafkaSettings
from lovelace_streams.sources.kafka import KafkaSource
from lovelace_streams.sources.worker_source import WorkerSource
from lovelace_streams.testing.broker import Broker, MemoryConsumer, QuietProcess, StoredMessage
from tests.faults.harness import DEADLINE, Group, eventually, read_all
from tests.pages import names_of

Window = list[Envelope[bytes]]
LIST = names_of("docs/contributing/source.md")


# -- the sources ------------------------------------------------------------------------------------------------------


class SourceCase(Protocol):
    """A source, its topic, and what is committed of it."""

    partitions: int
    shares: bool
    skips: bool

    def source(self, **settings: Any) -> WorkerSource:
        """A worker's source, of the same topic and positions as those before it."""

    def send(self, values: Sequence[bytes], partition: int = 0, *, gap: bool = False) -> None:
        """Add values to a partition; with `gap` an offset that holds no record follows."""

    def committed(self) -> list[int]:
        """The committed position of each partition."""

    def letters(self) -> list[bytes | None]:
        """The values in the dead-letter topic."""


class KafkaCase:
    """A consumer group on a real broker."""

    partitions = 2
    shares = skips = True

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.brokers = request.getfixturevalue("brokers")
        self.topic = request.getfixturevalue("make_topic")(partitions=self.partitions)

    def source(self, **settings: Any) -> WorkerSource:
        told = {"group": self.topic, "extra": {"session.timeout.ms": "6000", "heartbeat.interval.ms": "500"}}
        return KafkaSource(KafkaSettings(self.brokers, **told | settings), [self.topic])

    def send(self, values: Sequence[bytes], partition: int = 0, *, gap: bool = False) -> None:
        """The marker that ends a transaction is an offset without a record."""
        settings = {"transactional.id": self.topic} if gap else {"enable.idempotence": True}
        producer = Producer({"bootstrap.servers": self.brokers, **settings})
        if gap:
            producer.init_transactions(30)
            producer.begin_transaction()
        for value in values:
            producer.produce(self.topic, value, partition=partition)
        if gap:
            producer.commit_transaction(30)
        assert producer.flush(30) == 0

    def committed(self) -> list[int]:
        return Group(self.brokers, self.topic).committed(self.topic, self.partitions)

    def letters(self) -> list[bytes | None]:
        return [message.value() for message in read_all(self.brokers, f"{self.topic}.dlq")]


class Marker(StoredMessage):
    """An offset without a record, and what librdkafka says behind it: the end of its partition."""

    def error(self) -> Any:
        return KafkaError(KafkaError._PARTITION_EOF)


SLOW_POLLS = 3
"""Polls that find nothing because the first fetch of a partition takes longer."""


class Member(MemoryConsumer):
    """One of several members: it gives up at its next call what is another's now.

    As with librdkafka, a first fetch takes a while, and a paused partition may still hand over what was fetched.
    """

    def __init__(self, broker: "GroupBroker", on_commit: Any) -> None:
        super().__init__(broker, on_commit)
        self._group = broker
        self._callbacks: tuple[Any, Any] | None = None
        self.held: set[tuple[str, int]] = set()
        self._fetched: list[StoredMessage] = []
        self._slow_polls = 0

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        super().incremental_assign(partitions)
        self._slow_polls = SLOW_POLLS if partitions else self._slow_polls

    def pause(self, partitions: list[TopicPartition]) -> None:
        if not self._paused:
            self._fetched += self._next(1)
        super().pause(partitions)

    def subscribe(self, topics: list[str], *, on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        super().subscribe(topics, on_assign=None, on_revoke=on_revoke, on_lost=on_lost)
        self._callbacks = on_assign, on_revoke
        self._group.members.append(self)

    def consume(self, number: int, seconds: float) -> list[Any]:
        assert self._callbacks is not None
        on_assign, on_revoke = self._callbacks
        share = self._group.share_of(self)
        if lost := self.held - share:
            self.held -= lost
            on_revoke(self, self._group.positions(lost))
        if gained := share - self.held - self._group.held:
            self.held |= gained
            on_assign(self, self._group.positions(gained))
        fetched = [it for it in self._fetched if (it.topic(), it.partition()) in self.held]
        self._fetched.clear()
        self._slow_polls -= 1
        found = fetched + super().consume(number - len(fetched) if self._slow_polls < 0 else 0, seconds)
        ends = [it for it in found if isinstance(it, Marker) and self._group.is_last(it)]
        return [it for it in found if not isinstance(it, Marker)] + [
            Marker((end.topic(), end.partition()), end.offset() + 1, 0, None, None, (), 0) for end in ends
        ]

    def close(self) -> None:
        super().close()
        self._group.members.remove(self)


class GroupBroker(Broker):
    """A broker in memory with several members a group, and offsets without a record."""

    def __init__(self) -> None:
        super().__init__(on_silence=lambda: None)
        self.members: list[Member] = []

    def consumer(self, config: dict[str, Any]) -> Consumer:
        made: Any = Member(self, config.get("on_commit"))
        return made

    def share_of(self, member: Member) -> set[tuple[str, int]]:
        places = sorted(self.partitions(member._topics))
        return {place for n, place in enumerate(places) if self.members[n % len(self.members)] is member}

    @property
    def held(self) -> set[tuple[str, int]]:
        return {place for member in self.members for place in member.held}

    @staticmethod
    def positions(places: Iterable[tuple[str, int]]) -> list[TopicPartition]:
        return [TopicPartition(*place) for place in sorted(places)]

    def is_last(self, message: StoredMessage) -> bool:
        return message.offset() + 1 == len(self.logs[message.topic(), message.partition()])


class MemoryKafkaCase:
    """A consumer group on the broker in memory."""

    partitions = 2
    shares = skips = True
    topic = "topic"

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.broker = GroupBroker()
        self.broker.create(self.topic, self.partitions)

    def source(self, **settings: Any) -> WorkerSource:
        source = KafkaSource(KafkaSettings("memory", **{"group": self.topic, **settings}), [self.topic])
        source.clients = self.broker
        return source

    def send(self, values: Sequence[bytes], partition: int = 0, *, gap: bool = False) -> None:
        for value in values:
            self.broker.append((self.topic, partition), value, None, (), 0)
        if gap:
            log = self.broker.logs[self.topic, partition]
            log.append(Marker((self.topic, partition), len(log), next(self.broker._sequence), None, None, (), 0))

    def committed(self) -> list[int]:
        return [self.broker.committed.get((self.topic, partition), 0) for partition in range(self.partitions)]

    def letters(self) -> list[bytes | None]:
        return [message.value() for message in self.broker.logs.get((f"{self.topic}.dlq", 0), [])]


class ListCase:
    """The source of docs/contributing/source.md: one partition, one worker."""

    partitions = 1
    shares = skips = False

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.broker = Broker(on_silence=lambda: None)
        self.values: list[bytes] = []
        self.positions = [0]

    def source(self, **settings: Any) -> WorkerSource:
        told = {"brokers": "memory", "group": "list", **settings}
        source: WorkerSource = LIST["ListSource"](self.values, self.positions, ends=False, **told)
        source.clients = self.broker
        return source

    def send(self, values: Sequence[bytes], partition: int = 0, *, gap: bool = False) -> None:
        assert (partition, gap) == (0, False)
        self.values += values

    def committed(self) -> list[int]:
        return self.positions[-1:]

    def letters(self) -> list[bytes | None]:
        return [message.value() for message in self.broker.logs.get(("list.dlq", 0), [])]


CASES: dict[str, Callable[[pytest.FixtureRequest], SourceCase]] = {
    "kafka": KafkaCase,
    "kafka in memory": MemoryKafkaCase,
    "list": ListCase,
}
SHARING = [name for name, case in CASES.items() if case.shares]
SKIPPING = [name for name, case in CASES.items() if case.skips]


# -- a worker whose steps are the test ---------------------------------------------------------------------------------


class Probe(Service):
    """Remembers what it was served, is full when told so, and finishes in `revoke` what it was handed."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self.idle: list[bool] = []
        self.is_full = False
        self.holds: Window = []

    def serve(self, *, idle: bool, between_windows: bool) -> None:
        if between_windows:
            self.idle.append(idle)

    def full(self) -> bool:
        return self.is_full

    def unfinished(self) -> bool:
        return bool(self.holds)

    def revoke(self, seconds: float) -> None:
        held, self.holds = self.holds, []
        self._worker.settle(held)


class Worker:
    """A worker without an engine: the test takes its windows and says what became of them."""

    def __init__(self, source: WorkerSource) -> None:
        self.source = source
        self.probe = Probe(self)
        self.sender = DeadLetterSender(source)
        self._committer = Committer(source)
        source.process = QuietProcess()
        for service in (self.probe, self.sender, self._committer):
            source.register(service)
        source.begin()

    @property
    def reader(self) -> Any:
        return self.source._reader

    @property
    def held(self) -> list[Assignment]:
        """The assignments of the source's own topics."""
        return [held for held in self.source.in_flight.current.values() if held.topic in self.source.topics]

    @property
    def read_until(self) -> dict[int, int]:
        """Partition → the end of what was read of it."""
        return {held.partition: held.next for held in self.held}

    def window(self) -> Window:
        """Go round once."""
        window = self.source.next_window()
        assert self.source.fault is None
        assert len(window) <= self.source.settings.poll_size
        for envelope in window:
            envelope.record.items = 1  # as a decoder says
            assert self.source.in_flight.holds(envelope.record)
        return window

    def read(self, count: int) -> Window:
        """Go round until at least so many records came."""
        read: Window = []

        def have_come() -> bool:
            read.extend(self.window())
            return len(read) >= count

        eventually(have_come, pause=0)
        return read

    def silent(self, until: Callable[[], bool]) -> None:
        """Go round, reading nothing, until a condition holds."""

        def holds() -> bool:
            assert self.window() == []
            return until()

        eventually(holds, pause=0)

    def settle(self, envelopes: Iterable[Envelope[Any]]) -> None:
        self._committer.take([Settled(Outcome.WRITTEN, list(envelopes))])

    def refuse(self, *envelopes: Envelope[Any]) -> None:
        self.sender.take([DeadLetter(e.record, 0, 1, "decode", Reason.NOT_JSON) for e in envelopes])

    def drained(self) -> Window:
        """Go round until the worker has ended; what it has read meanwhile."""
        read: Window = []

        def has_ended() -> bool:
            try:
                read.extend(self.window())
            except StopIteration:
                return True
            return False

        eventually(has_ended, pause=0)
        return read

    def kill(self) -> None:
        """End as a process does that is killed: no service finishes anything, and nothing is committed."""
        self.source.services.clear()
        self.source.in_flight.current.clear()
        self.source.close()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> SourceCase:
    return CASES[request.param](request)


@pytest.fixture
def start(case: SourceCase) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def make(**settings: Any) -> Worker:
        workers.append(Worker(case.source(**{"poll_size": 5, "linger": 0.01} | settings)))
        return workers[-1]

    yield make
    for worker in workers:
        worker.source.close()


def numbers(first: int, end: int) -> list[bytes]:
    return [b"%d" % n for n in range(first, end)]


def fill(case: SourceCase, count: int) -> int:
    """Send so many values to each partition; answers how many that are."""
    for partition in range(case.partitions):
        case.send(numbers(0, count), partition)
    return count * case.partitions


def offsets(window: Iterable[Envelope[Any]], partition: int = 0) -> list[int]:
    return [envelope.record.offset for envelope in window if envelope.record.partition == partition]


def everywhere(case: SourceCase, position: int) -> list[int]:
    return [position] * case.partitions


# -- reading ----------------------------------------------------------------------------------------------------------


def test_records_come_once_and_in_the_order_of_their_partition(case, start) -> None:
    total = fill(case, 23)
    worker = start()

    read = worker.read(total)

    for partition in range(case.partitions):
        assert offsets(read, partition) == list(range(23))
    assert all(envelope.payload == envelope.record.value == b"%d" % envelope.record.offset for envelope in read)
    assert all(worker.source.is_current(envelope.record) for envelope in read)


def test_what_arrives_later_comes_in_later_windows(case, start) -> None:
    worker = start()
    case.send(numbers(0, 3))
    first = worker.read(3)
    case.send(numbers(3, 7))

    assert offsets(first + worker.read(4)) == list(range(7))


# -- commits and restarts ---------------------------------------------------------------------------------------------


def test_a_restart_goes_on_at_the_committed_position(case, start) -> None:
    case.send(numbers(0, 12))
    worker = start(poll_size=4)
    first = worker.read(4)
    worker.settle(first)
    second = worker.read(4)
    worker.settle(second[:2])
    rest = worker.read(4)
    worker.silent(lambda: case.committed()[0] == 6)
    worker.kill()

    again = start().read(6)

    assert offsets(first + second + rest) == list(range(12))
    assert offsets(again) == list(range(6, 12)), "what is not committed, and no more"


def test_what_is_settled_and_not_committed_is_read_again(case, start) -> None:
    case.send(numbers(0, 3))
    worker = start()
    worker.settle(worker.read(3))
    worker.kill()

    assert case.committed()[0] == 0
    assert offsets(start().read(3)) == [0, 1, 2]


def test_nothing_behind_a_record_in_flight_is_committed(case, start) -> None:
    case.send(numbers(0, 6))
    worker = start()
    read = worker.read(6)

    worker.settle(read[1:])
    assert [worker.window() for _ in range(20)] == [[]] * 20
    assert case.committed()[0] == 0
    worker.settle(read[:1])
    worker.silent(lambda: case.committed()[0] == 6)


@pytest.mark.parametrize("seed", range(4))
def test_positions_never_go_back(case, start, seed: int) -> None:
    """Records are settled in any order, workers are killed at any time: every offset is settled, none is lost."""
    luck = random.Random(seed)
    fill(case, 40)
    settled: dict[int, set[int]] = {partition: set() for partition in range(case.partitions)}
    before = everywhere(case, 0)

    def look() -> None:
        nonlocal before
        now = case.committed()
        assert all(new >= old for new, old in zip(now, before, strict=True)), (before, now)
        for partition, position in enumerate(now):
            assert settled[partition] >= set(range(position)), "what is committed is settled"
        before = now

    for _ in range(3):
        worker = start(poll_size=luck.randint(1, 9))
        held: Window = []
        for _ in range(luck.randint(2, 8)):
            held += worker.window()
            luck.shuffle(held)
            ending, held = held[: len(held) // 2], held[len(held) // 2 :]
            worker.settle(ending)
            for envelope in ending:
                settled[envelope.record.partition].add(envelope.record.offset)
            look()
        worker.kill()
        look()
    worker = start()

    def is_done() -> bool:
        window = worker.window()
        worker.settle(window)
        for envelope in window:
            settled[envelope.record.partition].add(envelope.record.offset)
        look()
        return before == everywhere(case, 40)

    eventually(is_done, pause=0)


@pytest.mark.parametrize("case", SKIPPING, indirect=True)
def test_offsets_without_a_record_are_passed_over(case, start) -> None:
    case.send(numbers(0, 3), gap=True)
    case.send(numbers(4, 6), gap=True)
    worker = start()

    read = worker.read(5)
    worker.settle(read)

    assert offsets(read) == [0, 1, 2, 4, 5]
    worker.silent(lambda: case.committed()[0] == 7 and not worker.source.unfinished)


# -- silence ----------------------------------------------------------------------------------------------------------


def test_what_is_settled_is_committed_although_nothing_is_read(case, start) -> None:
    total = fill(case, 3)
    worker = start()
    worker.settle(worker.read(total))

    worker.silent(lambda: case.committed() == everywhere(case, 3))

    worker.silent(lambda: not worker.source.unfinished)


def test_services_are_told_of_silence_when_all_is_read_and_not_before(case, start) -> None:
    total = fill(case, 12)
    worker = start(poll_size=3)
    read: Window = []

    def has_read_all() -> bool:
        read.extend(worker.window())
        assert not (worker.source._idle and worker.held and len(read) < total), "there is more to be read"
        return len(read) == total

    eventually(has_read_all, pause=0)
    worker.silent(lambda: worker.probe.idle[-1])

    assert worker.reader.is_caught_up()
    assert sorted(worker.read_until.values()) == everywhere(case, 12)
    assert [worker.reader.known_end(held) for held in worker.held] == everywhere(case, 12)


def test_a_letter_that_is_held_is_sent_in_silence(case, start) -> None:
    case.send([b"bad", b"more"])
    worker = start(poll_size=1)
    [bad] = worker.read(1)
    worker.refuse(bad)
    [more] = worker.read(1)
    assert case.letters() == [], "nothing has passed the step yet"

    worker.silent(lambda: worker.source.in_flight.holds(more.record) and not worker.source.in_flight.holds(bad.record))

    assert case.letters() == [b"bad"]
    worker.silent(lambda: case.committed()[0] == 1)


def test_a_worker_in_silence_goes_on_when_something_arrives(case, start) -> None:
    worker = start()
    worker.silent(lambda: sum(worker.probe.idle) > 3)
    case.send(numbers(0, 2))

    assert offsets(worker.read(2)) == [0, 1]


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_nothing_is_read_while_a_service_is_full(case, start) -> None:
    case.send(numbers(0, 8))
    worker = start(poll_size=2)
    read = worker.read(2)
    worker.probe.is_full = True

    assert [worker.window() for _ in range(4)] == [[]] * 4
    assert worker.read_until[0] == len(read)
    worker.settle(read)
    worker.silent(lambda: case.committed()[0] == len(read))
    worker.probe.is_full = False
    assert offsets(read + worker.read(8 - len(read))) == list(range(8))


def test_nothing_is_read_while_too_much_is_unreported(case, start) -> None:
    case.send(numbers(0, 9))
    worker = start(poll_size=3, max_unreported=6)
    read = worker.read(6)

    assert [worker.window() for _ in range(4)] == [[]] * 4
    worker.settle(read)
    assert offsets(read + worker.read(3)) == list(range(9))


def test_idle_keeps_the_worker_alive_and_loses_nothing_that_arrives(case, start) -> None:
    """Also what a client had fetched already when it was told to wait."""
    total = fill(case, 10)
    worker = start(poll_size=2)
    read = worker.read(2)
    assert worker.source.keep_alive(0.2, [envelope.record for envelope in read])
    case.send(numbers(10, 15))

    assert worker.source.keep_alive(0.5, [envelope.record for envelope in read])

    assert all(worker.source.is_current(envelope.record) for envelope in read)
    assert sum(worker.read_until.values()) == len(read), "nothing is read meanwhile"
    read += worker.read(total + 5 - len(read))
    assert offsets(read) == list(range(15))
    assert [offsets(read, partition) for partition in range(1, case.partitions)] == [list(range(10))] * (
        case.partitions - 1
    )


def test_a_draining_worker_reads_nothing_commits_and_ends(case, start) -> None:
    case.send(numbers(0, 9))
    worker = start(poll_size=3, drain_seconds=DEADLINE)
    read = worker.read(3)
    worker.source.drain()

    assert [worker.window() for _ in range(4)] == [[]] * 4
    worker.settle(read)

    assert worker.drained() == []
    worker.source.close()
    assert case.committed()[0] == 3
    assert offsets(start().read(6)) == list(range(3, 9))


def test_what_a_drain_has_no_time_for_is_read_again(case, start) -> None:
    case.send(numbers(0, 5))
    worker = start(drain_seconds=0.0)
    worker.settle(worker.read(5)[:2])
    worker.silent(lambda: case.committed()[0] == 2)
    worker.source.drain()

    assert worker.drained() == []
    worker.source.close()
    assert offsets(start().read(3)) == [2, 3, 4]


# -- giving partitions up ---------------------------------------------------------------------------------------------


def test_what_is_in_flight_is_finished_and_committed_before_a_partition_is_given_up(case, start) -> None:
    case.send(numbers(0, 6))
    worker = start()
    read = worker.read(6)
    worker.silent(lambda: bool(worker.probe.idle[-1]))
    worker.probe.holds = read[:4]

    worker.source.close()

    assert worker.probe.holds == []
    assert case.committed()[0] == 4
    assert offsets(start().read(2)) == [4, 5]


def test_what_belongs_to_an_ended_assignment_has_no_effect(case, start) -> None:
    case.send(numbers(0, 3))
    worker = start()
    read = worker.read(3)
    worker.source.close()

    worker.settle(read)
    worker.refuse(read[0])

    assert [worker.source.is_current(envelope.record) for envelope in read] == [False] * 3
    assert worker.source.in_flight.totals["written"] == 0
    assert worker.source.in_flight.current == {}
    assert case.committed()[0] == 0
    successor = start()
    assert offsets(successor.read(3)) == [0, 1, 2]
    worker.settle(read)
    assert [worker.source.is_current(envelope.record) for envelope in read] == [False] * 3


@pytest.mark.parametrize("case", SHARING, indirect=True)
def test_a_partition_that_another_worker_takes_over_is_read_on_by_it(case, start) -> None:
    """The first worker has records of all partitions in flight when the second one joins."""
    total = fill(case, 8)
    first = start()
    read = first.read(total)
    first.probe.holds = [envelope for envelope in read if envelope.record.offset < 5]
    taken: Window = []
    second = start()

    def has_taken_over() -> bool:
        assert first.window() == []
        taken.extend(second.window())
        return len(taken) >= 3

    eventually(has_taken_over, pause=0)

    [partition] = {envelope.record.partition for envelope in taken}
    assert offsets(taken, partition) == [5, 6, 7], "what the first had settled was committed first"
    lost = [envelope for envelope in read if envelope.record.partition == partition]
    assert not any(first.source.is_current(envelope.record) for envelope in lost)
    kept = [envelope for envelope in read if envelope not in lost and envelope.record.offset >= 5]
    assert all(first.source.is_current(envelope.record) for envelope in kept)
    first.settle([*kept, *lost[5:]])
    assert first.source.in_flight.totals["written"] == 2 * 5 + len(kept), "nothing of what was lost counts"
    second.settle(taken)

    def is_committed() -> bool:
        assert first.window() == second.window() == []
        return case.committed() == [8, 8]

    eventually(is_committed, pause=0)
    for place in range(case.partitions):
        case.send(numbers(8, 9), place)
    more: Window = []

    def has_come() -> bool:
        more.extend(first.window() + second.window())
        return len(more) >= case.partitions

    eventually(has_come, pause=0)
    assert sorted((envelope.record.partition, envelope.record.offset) for envelope in more) == [(0, 8), (1, 8)]


@pytest.mark.parametrize("case", SHARING, indirect=True)
def test_who_waits_hears_at_once_that_its_partition_is_gone(case, start) -> None:
    fill(case, 3)
    first = start()
    read = first.read(3 * case.partitions)
    second = start()

    def hears() -> bool:
        second.window()
        return not first.source.keep_alive(0.05, [envelope.record for envelope in read])

    eventually(hears, pause=0)
    assert not first.source.keep_alive(DEADLINE, [envelope.record for envelope in read])
