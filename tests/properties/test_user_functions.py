"""Whatever a user's functions answer or raise, each item ends once, by a port, for a reason of a closed set."""

import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

import lovelace_streams as ls
from lovelace_streams import Before, Reason, Row, Skip, rule
from lovelace_streams.delivery.blocks import without_foreign
from lovelace_streams.formats.decoder import Ports
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.operators.normalize import sort
from lovelace_streams.operators.ports import by_list
from lovelace_streams.records import Envelope, Record, SkipReason
from lovelace_streams.rows.normalizer import normalizer
from lovelace_streams.writers.memory import MemoryWriter
from tests.examples import examples

NOW = 1_700_000_000_000
OWN = ("draft", "too_old")


class Point(Row, table="points", primary_key="id"):
    id: int
    x: int | None = None


class Foreign(Row, table="elsewhere", primary_key="id"):
    id: int


class NoTable(Row):
    id: int


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("secret")

    __repr__ = __str__


EXCEPTIONS = [
    ValueError("secret"), KeyError("secret"), RecursionError(), MemoryError(), SystemExit("secret"), GeneratorExit(),
    StopIteration("secret"), StopAsyncIteration(), Unprintable(), BaseException("secret"), UnicodeError(), OSError(5),
    ls.RecordFault(Reason.CHECK, "own"), ls.RecordFault("secret", 7), ls.DeploymentFault("secret"),  # type: ignore[arg-type]
    ls.DestinationFault("57014", "secret"), AssertionError(), ExceptionGroup("secret", [ValueError()]),
]  # fmt: skip


def made_rows() -> st.SearchStrategy[Any]:
    """What stands for a row: sound ones, and those that are not."""
    return st.one_of(
        st.builds(lambda n: Point(id=n), st.sampled_from([1, 2, 2**63, "3", None, [], ls.UNSET, 1.5])),
        st.builds(lambda: Foreign(id=1)),
        st.builds(lambda: NoTable(id=1)),
        st.sampled_from([Skip(), Skip("draft"), Skip("secret")]),
        st.sampled_from([None, "secret", b"secret", {}, {"id": 1}, [], (), 5, Point, object()]),
    )


def raiser(error: BaseException) -> Any:
    raise error


def yielding(rows: list[Any], error: BaseException | None) -> Iterator[Any]:
    yield from rows
    if error is not None:
        raise error


ANSWERS: st.SearchStrategy[Callable[[], Any]] = st.one_of(
    made_rows().map(lambda row: lambda: row),
    st.lists(made_rows(), max_size=3).map(lambda rows: lambda: rows),
    st.builds(
        lambda rows, error: lambda: yielding(rows, error),
        st.lists(made_rows(), max_size=3),
        st.one_of(st.none(), st.sampled_from(EXCEPTIONS)),
    ),
    st.sampled_from(EXCEPTIONS).map(lambda error: lambda: raiser(error)),
)


def items_of(decoder: JsonDecoder, count: int) -> list[Envelope[Any]]:
    oks: list[Envelope[Any]] = []
    for n in range(count):
        record = Record("t", 0, n, n, 0, None, json.dumps({"id": n, "x": 1}).encode(), [], NOW)
        decoder.decode(record, oks, [], [])
    return oks


def ends(ports: Ports) -> list[int]:
    """The offsets of all items, by whatever port they left."""
    assert {letter.reason for letter in ports.errs} <= set(Reason)
    assert not any("secret" in letter.detail for letter in ports.errs)
    assert {reason for reason, _ in ports.skipped} <= {*SkipReason, *OWN}
    left = [e.record.offset for e in ports.oks] + [e.record.offset for _, e in ports.skipped]
    return sorted(left + [letter.record.offset for letter in ports.errs])


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(ANSWERS, min_size=1, max_size=5))
def test_every_item_of_a_mapping_function_ends_once(answers: list[Callable[[], Any]]) -> None:
    def mapping(item: dict[str, Any]) -> Any:
        return answers[item["id"]]()

    items = items_of(JsonDecoder(mapping), len(answers))
    mapper = normalizer(mapping, skips=OWN)
    [ports] = by_list("normalize", lambda envelopes: sort(mapper, envelopes), OWN)(items)

    assert ends(ports) == list(range(len(answers)))
    writer = MemoryWriter(Point)
    own, foreign = without_foreign("upsert", ports.oks, writer)
    assert len(own) + len(foreign) == len(ports.oks)
    assert all(letter.reason is Reason.RULE for letter in foreign)
    event(f"rows={bool(own)} foreign={bool(foreign)} letters={bool(ports.errs)} skips={bool(ports.skipped)}")


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(ANSWERS, min_size=1, max_size=4), st.sampled_from(["before", "after", "rule"]))
def test_every_item_of_a_row_class_with_functions_ends_once(answers: list[Callable[[], Any]], where: str) -> None:
    answer: Callable[[Any], Any] = lambda value: answers[value % len(answers)]()  # noqa: E731
    mark: Any = {"before": Before(answer), "after": answer}.get(where)
    body: dict[str, Any] = {
        "__annotations__": {"id": Annotated[int, mark] if mark else int, "x": int},
        "__module__": __name__,
    }
    if where == "rule":
        body["judged"] = rule("id")(lambda self: answer(self.id))
    row = type(Row)("Made", (Row,), body, table="made", primary_key="id")

    ports = sort(normalizer(row), items_of(JsonDecoder(row), 5))

    assert ends(ports) == list(range(5))


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(st.sampled_from(["ok", "draft", "filtered", "secret", 7, None, "err", "err: secret"]), max_size=6))
def test_every_item_of_a_step_of_ones_own_ends_once(fates: list[Any]) -> None:
    def own(envelopes: list[Envelope[Any]]) -> Ports:
        ports = Ports()
        for envelope, fate in zip(envelopes, fates, strict=True):
            if fate == "ok":
                ports.oks.append(envelope)
            elif str(fate).startswith("err"):
                reason: Any = Reason.CHECK if fate == "err" else "secret"
                detail: Any = "" if fate == "err" else 7
                ports.errs.append(ls.DeadLetter(envelope.record, envelope.item, 1, "own", reason, detail))
            else:
                ports.skipped.append((fate, envelope))
        return ports

    items = items_of(JsonDecoder(Point), len(fates))
    if items:
        [ports] = by_list("own", own, OWN)(items)

        assert ends(ports) == list(range(len(fates)))
