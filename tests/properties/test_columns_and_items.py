"""Columns and items end the same: any messages through a whole flow both ways, with the same topics and restarts.

`run` is the real engine with a broker, tables and the progress service in memory. What is compared is all that a worker
leaves behind: tables, letters, accounts, offsets, the ledger, and the metrics. Where columns end and items begin is not
looked at, but that plain good messages do go as columns is: else this would compare items with items.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest
from bytewax.dataflow import Dataflow
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

import lovelace_streams as ls
from lovelace_streams import Before, Events, From, FromKafka, Items, JsonDecoder, Row, Skip, rule
from lovelace_streams import columns as column_module
from lovelace_streams.columns import Columns, Slice
from lovelace_streams.delivery import block_writer
from lovelace_streams.kafka import consumer, start_offsets
from lovelace_streams.records import Settled
from lovelace_streams.runtime.worker import WorkerContext
from lovelace_streams.settings import BatchPolicy
from lovelace_streams.testing import MemoryWriter, Message, Result, broker, flows, lives, run
from lovelace_streams.writers import Capabilities
from tests.examples import examples
from tests.properties.test_mapping_equivalence import ODD, cases, items_of, place

TIMES = [None, None, None, datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)]
"""Of messages: the default, none at all (-1), and one that lies in the future."""
JOB, AGAIN = [("lovelace-job-id", b"a")], [("lovelace-job-id", b"a"), ("lovelace-job-attempt", b"2")]
HEADERS: list[list[tuple[str, bytes | None]]] = [
    [], JOB, AGAIN, [("lovelace-job-id", b"b"), ("trace", b"\xff")], [("lovelace-job-id", b"no job!")], [("x", None)],
    [*JOB, ("lovelace-job-attempt", b"-1")], [*JOB, ("lovelace-items", b"2")], [("lovelace-items", b"1")],
    [*JOB, ("lovelace-items", b"three")], [("lovelace-items", b"0")], [("lovelace-items", b"3")],
    [("lovelace-origin", b"raw/raw/0/0"), ("lovelace-failed-items", b"0:null")],
]  # fmt: skip
ORIGINS = [
    [("lovelace-origin", b"raw/raw/0/0"), ("lovelace-origin-timestamp", b"1"), ("lovelace-failed-items", b"0:null")],
    [("lovelace-origin", b"raw/raw/1/1"), ("lovelace-failed-items", b"1-2:null")],
    [("lovelace-origin", b"nothing")],
]
NUMBERS = ["1e3", "007", "-0", "-0.0", "1.0", "1.5", "9223372036854775807", "9223372036854775808", "1" * 40, '"7"',
           '"007"', '"-7"', '"1e3"', "true", "null", "[]", '"\\t\\\\"']  # fmt: skip
"""What may stand for a number in a message."""
EXTRAS = {
    "nul": '"\\u0000"', "surrogate": '"\\ud800"', "tab": '"\\t\\\\ \\\\N"', "deep": "[" * 600 + "]" * 600,
    "shallow": "[[],[]]", "large": '"' + "x" * 20_000 + '"',
}  # fmt: skip
"""Values of a field that no row reads."""
WHOLE = [b"", b"{", b"nul", b"[]", b"{}", b"5", b"null", b"[5]", b'{"id":1,"x":"\xff"}', b'\xff{"id":1}', None,
         b'{"t":"Z"}', b'{"t":5}', b'\xef\xbb\xbf{"id":1}', b'{"id":1}{"id":2}', b'{"id":1,"id":2}',
         b' {"id" : 1 } ']  # fmt: skip
"""Messages that fit no row class, or only just."""
GAP = b"compacted"
TOPICS = ["raw", "more", "old.replay"]
"""Of the last one messages may be replays, too, as its name says."""


class Guarded(Row, table="first", primary_key="id"):
    """Looks at each of its rows: a flow of it has no columns."""

    id: Annotated[int, From("id")]
    key: Annotated[str | None, FromKafka("key")]

    def __post_init__(self) -> None:
        if self.id == 3:  # noqa: PLR2004
            raise ValueError("three")


class Plain(Row, table="first", primary_key="id"):
    id: int
    a: str


class Case(msgspec.Struct):
    """A flow, and what is sent to it."""

    what: Any
    rows: list[type[Row]]
    sent: list[Message]
    options: dict[str, Any]
    block_rows: int = 0
    """Rows that one call of the writer takes, of several batches; 0: a batch a call."""

    def __repr__(self) -> str:
        fields = {row.__name__: row.__annotations__ for row in self.rows}
        sent = [f"{m.topic}-{m.partition} {m.value!r:.300} {m.key!r} {m.headers} {m.timestamp}" for m in self.sent]
        return "\n".join(["", *map(str, fields.items()), *sent, f"{self.options}, {self.block_rows} rows a block"])


FIELDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "name": (str | None, st.sampled_from(["x", "", "tab\t", "back\\slash", "É", None, "\\N"])),
    "count": (int, st.one_of(st.integers(-3, 3), st.sampled_from(["7", "-7", "9223372036854775807", 2**63 - 1]))),
    "many": (list[int], st.lists(st.integers(0, 3), max_size=3)),
    "at": (datetime, st.sampled_from(["2023-11-14T00:00:00Z", "2020-01-01T00:00:00.123+05:30"])),
    "ok": (bool, st.booleans()),
    "price": (float, st.sampled_from([1, 1.5, -0.0])),
    "amount": (Decimal, st.sampled_from([1, "1.10", 2.5])),
    "extra": (dict | None, st.sampled_from([{}, {"a": [1]}, {"a": "é"}, None])),
    "upper": (Annotated[str, str.upper], st.sampled_from(["a", "É"])),
    "empty": (Annotated[str | None, Before(lambda value: value or None)], st.sampled_from(["a", ""])),
    "half": (Annotated[int, lambda value: value // 2], st.integers(-3, 3)),
    "either": (Annotated[int | None, From("u.v", "u.w", "w")], st.integers(0, 3)),
    "both": (Annotated[int | None, From("u.w", "count")], st.integers(0, 3)),
    "guild": (Annotated[int | None, From("$.guild")], st.integers(0, 3)),
    "key": (Annotated[str | None, FromKafka("key")], st.none()),
    "offset": (Annotated[int, FromKafka("offset")], st.none()),
    "partition": (Annotated[int, FromKafka("partition")], st.none()),
    "topic": (Annotated[str, FromKafka("topic")], st.none()),
    "read_at": (Annotated[datetime | None, FromKafka("timestamp")], st.none()),
}
"""Columns, each with values that fit it."""
DEFAULTS = {"count": 5, "many": [], "ok": True, "name": "?"}
PATHS = {"either": ("u", "v"), "both": ("u", "w")}
OF_KAFKA = ("key", "offset", "partition", "topic", "read_at")


@st.composite
def plain_cases(draw: st.DrawFn, table: str) -> tuple[type[Row], str, list[dict[str, Any]]]:
    """A row class as most are, the path of its items, and messages most of which fit it."""
    where = draw(st.sampled_from(["$", "d", "d.a"]))
    names = draw(st.lists(st.sampled_from(list(FIELDS)), min_size=1, max_size=6, unique=True))
    body: dict[str, Any] = {name: DEFAULTS[name] for name in names if name in DEFAULTS and draw(st.booleans())}
    annotations = {"id": int, **{name: FIELDS[name][0] for name in names}}
    if draw(st.integers(0, 3)) == 0:
        judged = draw(st.sampled_from(names))
        body["judged"] = rule("id", judged)(lambda row: len(repr((row.id, getattr(row, judged)))) % 7 > 0)
    body |= {"__annotations__": annotations, "__module__": __name__}
    version = draw(st.sampled_from([None, *({"at", "count", "offset"} & {*names})]))
    row = type(Row)(table.capitalize(), (Row,), body, table=table, primary_key="id", version=version)
    messages = []
    for _ in range(draw(st.integers(1, 5))):
        items = []
        for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
            item: dict[str, Any] = {"id": draw(st.integers(0, 5))}
            for name in names:
                fate = draw(st.integers(0, 40))  # the ends of a range are drawn more often
                value = draw(ODD) if fate == 17 else draw(FIELDS[name][1])  # noqa: PLR2004
                if fate != 23 and name not in OF_KAFKA:  # noqa: PLR2004
                    place(item, PATHS.get(name, (name,)), value)
            items.append(item)
        message: dict[str, Any] = {}
        if where == "$":
            message = items[0]
        else:
            place(message, tuple(where.split(".")), items if draw(st.booleans()) else items[0])
        if draw(st.integers(0, 9)):
            message["guild"] = 7
        messages.append(message)
    return row, where, messages


@st.composite
def worlds(draw: st.DrawFn) -> Case:
    """Messages of one or two row classes: most of them good, in runs, others of every kind of bad."""
    first, where, messages = draw(st.one_of(*[plain_cases("first")] * 4, cases("first")))
    shape = draw(st.sampled_from(["events", "events", "one", "list"]))
    rows, what = [first], Items(where, first)
    pool = [("A", message) for message in messages]
    if shape == "list":
        what = Items("$", first)
        pool = [("A", item) for message in messages for item in items_of(message, where) if item is not None]
    elif shape == "events":
        second, its, others = draw(plain_cases("second"))
        rows.append(second)
        what = Events("t", {"A": Items(where, first), "B": Items(its, second)}, Skip("unknown_event"))
        pool += [("B", message) for message in others]
    elif draw(st.integers(0, 30)) == 0:
        rows, what = [Guarded], Guarded
    texts = [json.dumps({"t": name, **message} if shape == "events" else message) for name, message in pool]
    sent: list[Message] = []
    headers: list[tuple[str, bytes | None]] = []
    topic, partition = "raw", 0
    least = draw(st.sampled_from([1, 5, 20]))
    for index, chance, turn in draw(st.lists(st.tuples(*[st.integers(0, 40)] * 3), min_size=least, max_size=40)):
        if 4 < turn < 8:  # noqa: PLR2004
            headers = draw(st.sampled_from([*HEADERS, *HEADERS[:6], *HEADERS[:6]]))
        elif 8 < turn < 12:  # noqa: PLR2004
            topic, partition = draw(st.sampled_from([("raw", 0), ("raw", 1), ("more", 0), ("old.replay", 0)]))
        value = texts[index % len(texts)]
        if turn == 13:  # noqa: PLR2004
            again = draw(st.sampled_from(ORIGINS))
            sent.append(Message(value, headers=again, topic="flow.replay"))
            continue
        key = [b"k", None, b"\xff", b"other"][index % 4]
        at = TIMES[index % len(TIMES)]
        message = spoiled(draw, value, chance, shape)
        sent.append(Message(message, key=key, headers=headers, timestamp=at, topic=topic, partition=partition))
    seen = sum(message.value != GAP for message in sent)
    restarts: Sequence[int] = ()
    if seen > 1 and draw(st.booleans()):
        restarts = [draw(st.integers(1, seen - 1))]
        if draw(st.booleans()):
            restarts = [*restarts, draw(st.integers(1, seen - restarts[0]))]
    options = {
        "poll_size": draw(st.sampled_from([1, 2, 3, 7, 500])),
        "batch_size": draw(st.sampled_from([1, 2, 3, 10, 100])),
        "restart_after": restarts,
    }
    return Case(what, rows, sent, options, draw(st.sampled_from([0, 5, 1000])))


def spoiled(draw: st.DrawFn, text: str, chance: int, shape: str) -> str | bytes | None:
    """A message that is still what it was, mostly."""
    if chance < 22:  # noqa: PLR2004 - of 40
        return text
    if chance < 25:  # noqa: PLR2004
        return GAP
    if chance < 29:  # noqa: PLR2004
        return re.sub(r'"id": [^,}\]]+', f'"id": {draw(st.sampled_from(NUMBERS))}', text, count=draw(st.integers(0, 2)))
    if chance < 33:  # noqa: PLR2004
        return text[:-1] + f', "extra": {draw(st.sampled_from(list(EXTRAS.values())))}' + "}"
    if chance < 36 and shape == "list":  # noqa: PLR2004
        return (
            "["
            + ", ".join([text, *draw(st.lists(st.sampled_from([text, "{}", "5", '{"id": "x"}']), max_size=4))])
            + "]"
        )
    if chance < 38:  # noqa: PLR2004
        return re.sub(r'"[a-zA-Z ]*"([,}])', lambda found: f"{draw(st.sampled_from(NUMBERS))}{found[1]}", text)
    if chance == 40:  # noqa: PLR2004
        return text
    return draw(st.sampled_from(WHOLE))


class CompactedConsumer(broker.MemoryConsumer):
    """Reads topics of which some offsets do not exist any more."""

    def _next(self, number: int) -> Iterator[broker.StoredMessage]:
        while found := list(super()._next(number)):
            if kept := [message for message in found if message.value() != GAP]:
                yield from kept
                return


class CompactedBroker(broker.Broker):
    """A broker whose topics were compacted: messages `GAP` are gone."""

    def consumer(self, config: dict[str, Any]) -> Any:
        return CompactedConsumer(self, config.get("on_commit"))


class Watched(lives.Watched):
    """Also counts what was settled as columns, and keeps the accounts of assignments that have ended."""

    all: list["Watched"] = []

    def __init__(self) -> None:
        super().__init__()
        self.in_columns = 0
        self.counts: list[Any] = []
        self.all.append(self)

    def settle(self, settled: Settled) -> int:
        self.in_columns += sum(len(part) for part in settled.parts if isinstance(part, Slice))
        return super().settle(settled)

    def end(self, topic: str, partition: int) -> None:
        if (held := self.of(topic, partition)) is not None:
            self.counts.append((topic, partition, held.counts, held.pending, held.position, held.unaccepted))
        super().end(topic, partition)


class Service(flows.MemoryProgressService):
    """Keeps the ledgers."""

    all: list["Service"] = []

    def __init__(self, jobs: Any) -> None:
        super().__init__(jobs)
        self.all.append(self)


class End(msgspec.Struct):
    """What the workers of a flow left behind."""

    left: dict[str, Any]
    in_columns: int
    """Items that were settled as columns."""
    has_loop: bool
    """Whether the last worker's source gave chunks."""


def is_behind(worker: WorkerContext) -> bool:
    """Whether rows may wait for a block to fill: by what was read, not by how fast."""
    return len(worker.in_flight.positions) % 3 > 0 and not worker._idle  # type: ignore[attr-defined]  # noqa: SLF001


def at_once(function: Callable[[], Any]) -> Future[Any]:
    """Call a function now that a worker calls in a thread: all partitions start together."""
    future: Future[Any] = Future()
    future.set_result(function())
    return future


def fine(row: dict[str, Any]) -> bool:
    """Refuses some rows, as a CHECK would."""
    return len(repr(row)) % 9 > 0


class Forgetful(MemoryWriter):
    """Has values let go as soon as there are columns, so that each row is made again of its message."""

    def encode_at_once(self, columns: Columns) -> tuple[str, Sequence[str]]:
        """Keep one field."""
        return "encoded", columns.fields[:1]


def end_of(
    case: Case,
    *,
    columnar: bool | None,
    background: bool = False,
    check: Any = fine,
    decoder: Any = JsonDecoder,
    forgets: bool = False,
) -> End:
    """Run a flow, and gather everything that tells how its items ended. `columnar=None`: as tests run by default."""
    options = case.options if columnar is None else {**case.options, "columnar": columnar}
    sources: list[ls.KafkaSource] = []

    def build(given: ls.Settings) -> Dataflow:
        flow = Dataflow("flow")
        sources.append(source := ls.KafkaSource(given.kafka, topics=TOPICS))
        decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), decoder(case.what))
        mapped = ls.normalize("normalize", decoded.oks, case.rows)
        batches = ls.batch("batch", mapped.oks, BatchPolicy(given.batch_size, 4000))
        writer = (Forgetful if forgets else MemoryWriter)(*case.rows, check=check)
        writer.capabilities = Capabilities(block_rows=case.block_rows)
        written = ls.upsert("upsert", batches, writer, source)
        dead = ls.dead_letter("dead_letter", source, decoded.errs, mapped.errs, written.errs)
        ls.progress("progress", source, given.progress, written.settled, dead.settled, decoded.skipped, mapped.skipped)
        return flow

    with watched(background=background) as seen:
        before = samples()
        try:
            result = run(build, case.sent, jobs={"a": 5, "b": None}, **options)
        except ls.DeploymentFault as fault:
            left = {"fault": str(fault)}
        else:
            left = left_by(result)
            if background:  # a letter is sent as soon as all items of its message have ended
                left["letters"].sort()
        left |= {"metrics": {name: n for name, n in (samples() - before).items() if n}, **seen()}
        return End(left, sum(each.in_columns for each in Watched.all), sources[-1].columnar is not None)


def left_by(result: Result) -> dict[str, Any]:
    """What a result says, without the time of day."""
    return {
        "tables": [repr(table) for table in result.tables.items()],
        "letters": [repr(msgspec.structs.replace(letter, at=0, position=(0, 0))) for letter in result.letters],
        "outcomes": result.outcomes,
        "skipped": result.skipped,
        "committed": result.committed,
        "repeated": result.repeated,
        "sent": result.sent.keys(),
        "jobs": {
            name: (job.status, job.attempt, job.succeeded, job.failed, job.skipped) for name, job in result.jobs.items()
        },
        "signals": [each["signal_id"] for each in result.signals],
    }


@contextmanager
def watched(*, background: bool) -> Iterator[Any]:
    """Have `run` use what this module watches; the time of day decides nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows, "Broker", CompactedBroker)
        patch.setattr(flows, "MemoryProgressService", Service)
        patch.setattr(lives, "Watched", Watched)
        patch.setattr(start_offsets, "in_background", at_once)
        patch.setattr(consumer, "CHUNK_MESSAGES_MIN", 1)
        patch.setattr(column_module, "PAUSE_CHUNKS", 0)
        patch.setattr(block_writer, "BUFFER_SECONDS", 60.0)
        patch.setattr(WorkerContext, "behind", property(is_behind))
        patch.setattr(block_writer, "BACKGROUND_ROWS_MIN", 1 if background else 100)
        patch.setattr(Watched, "all", [])
        patch.setattr(Service, "all", [])

        def seen() -> dict[str, Any]:
            ledgers = [service._ledger for service in Service.all if service._ledger is not None]  # noqa: SLF001
            return {
                "accounts": [sorted(map(repr, each.counts)) for each in Watched.all],
                "totals": [(each.totals, each.given_up, each.left) for each in Watched.all],
                "positions": [each.positions for each in Watched.all],
                "covers": [sorted(map(repr, ledger.covers.items())) for ledger in ledgers],
                "failed": [sorted(map(repr, ledger.failed_items.items())) for ledger in ledgers],
                "counts": [ledger.counters for ledger in ledgers],
            }

        yield seen


def samples() -> Counter[Any]:
    """All counters of the process, but those of seconds; both ways of an item count as one."""
    found: Counter[Any] = Counter()
    for metric in REGISTRY.collect():
        if metric.type in ("counter", "histogram") and not metric.name.startswith(("python", "process")):
            for sample in metric.samples:
                is_time = "seconds" in sample.name and not sample.name.endswith("_count")
                if not is_time and not sample.name.endswith("_created"):
                    labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "way"))
                    found[sample.name, labels] += int(sample.value)
    return found


@pytest.mark.slow
def test_columns_and_items_end_the_same() -> None:
    taken: Counter[str] = Counter()

    @settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
    @given(worlds(), st.booleans(), st.booleans())
    def check(case: Case, background: bool, forgets: bool) -> None:
        columns = end_of(case, columnar=True, background=background, forgets=forgets)
        items = end_of(case, columnar=False, background=background)

        assert not items.in_columns
        assert not items.has_loop
        for what, said in items.left.items():
            assert columns.left.get(what) == said, what
        event(f"loop={columns.has_loop} columns={bool(columns.in_columns)}")
        taken.update(columns=columns.in_columns, items=sum(items.left.get("outcomes", Counter()).values()))

    check()
    assert taken["columns"] > taken["items"] / 20, f"the loops took little: {taken}"


@settings(max_examples=examples(50), deadline=None)
@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=30), st.sampled_from([1, 3, 500]), st.sampled_from([1, 4, 100])
)
def test_plain_good_messages_go_as_columns(numbers: list[int], poll_size: int, batch_size: int) -> None:
    """All of them, whatever cuts their windows and batches: nothing of this module may compare items with items."""
    sent = [Message({"t": "A", "d": {"id": n, "a": str(n)}}, partition=n % 2) for n in numbers]
    what = Events("t", {"A": Items("d", Plain)}, Skip("unknown_event"))
    case = Case(what, [Plain], sent, {"poll_size": poll_size, "batch_size": batch_size}, block_rows=5)

    end = end_of(case, columnar=True, check=None)

    assert end.has_loop
    assert end.in_columns == len(numbers) == sum(end.left["outcomes"].values())


def test_replays_of_a_topic_of_the_flow_are_replays_both_ways() -> None:
    """They resolve what failed, and replace nothing that is newer; an item that they do not name is left alone."""
    sent = [Message([{"id": n, "a": "x"}] * 3, headers=ORIGINS[1], topic="old.replay") for n in range(9)]
    case = Case(Items("$", Plain), [Plain], sent, {})

    columns, items = end_of(case, columnar=True), end_of(case, columnar=False)

    assert columns.left == items.left
    assert sum(items.left["outcomes"].values()) == 18  # two of three items


def test_a_class_that_looks_at_its_rows_has_no_columns() -> None:
    end = end_of(Case(Guarded, [Guarded], [Message({"id": n}) for n in range(5)], {}), columnar=True)

    assert not end.has_loop
    assert end.left["outcomes"] == {"written": 4, "dead_lettered": 1}


def test_a_flow_in_memory_goes_as_the_environment_says() -> None:
    sent = [Message({"id": n, "a": "x"}) for n in range(9)]

    end = end_of(Case(Plain, [Plain], sent, {}), columnar=None, check=None)

    assert end.in_columns == (0 if os.environ.get("COLUMNAR") == "off" else 9)
