"""Avro by columns and by items through a whole flow, while its schema changes in mid-stream: both leave the same."""

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lovelace_streams import Events, From, FromKafka, Items, Row, Skip
from lovelace_streams.avro import AvroDecoder, SingleObject
from lovelace_streams.formats.avro import decoder
from lovelace_streams.testing import Message
from tests.examples import examples
from tests.properties.test_columns_and_items import HEADERS, JOB, Case, end_of
from tests.unit.formats.avro.messages import encoded


class Seen(Row, table="first", primary_key="id", version="at"):
    id: int
    name: Annotated[str | None, From("name", "user.name"), str.upper]
    count: int | None = 7
    at: datetime
    read_at: Annotated[datetime | None, FromKafka("timestamp")]


class Left(Row, table="second", primary_key="id"):
    id: int
    why: Annotated[Literal["a", "b"], From("name")]


MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
USER = {"type": "record", "name": "User", "fields": [{"name": "name", "type": "string"}]}
NEW: list[Any] = [
    {"name": "user", "type": ["null", USER], "default": None},
    {"name": "count", "type": ["null", "long"], "default": None},
]


def version(kind: str, *more: Any) -> dict[str, Any]:
    fields = [
        {"name": "id", "type": kind},
        {"name": "name", "type": ["null", "string"]},
        {"name": "at", "type": MILLIS},
    ]
    item = {"type": "record", "name": "Item", "fields": [*fields, *more]}
    event = [{"name": "t", "type": "string"}, {"name": "d", "type": ["null", item]}]
    return {"type": "record", "name": "Event", "fields": event}


VERSIONS = [version("int"), version("long", *NEW)]
FRAMING = SingleObject(*VERSIONS)
WHAT = Events("t", {"A": Items("d", Seen), "B": Items("d", Left)}, Skip("unknown_event"))
DATA = st.fixed_dictionaries(
    {
        "id": st.integers(0, 5),
        "name": st.sampled_from(["a", "b", "é", "a", "b", None, "a\0"]),
        "at": st.sampled_from(
            [datetime(2024, 1, 1, tzinfo=UTC), datetime(2023, 1, 1, tzinfo=UTC)] * 3
            + [datetime(2200, 1, 1, tzinfo=UTC)]
        ),
        "user": st.sampled_from([None, {"name": "u"}]),
        "count": st.sampled_from([1, 2, None]),
    }
)
EVENTS = st.fixed_dictionaries({"t": st.sampled_from(["A", "A", "B", "Z"]), "d": st.one_of(*[DATA] * 5, st.none())})


@st.composite
def worlds(draw: st.DrawFn) -> Case:
    """Messages in runs of one version or the other, most of them good."""
    sent = []
    which, headers = 0, HEADERS[0]
    least = draw(st.sampled_from([5, 20]))
    for event, turn in draw(st.lists(st.tuples(EVENTS, st.integers(0, 20)), min_size=least, max_size=40)):
        if 3 < turn < 7:  # noqa: PLR2004 - the ends of a range are drawn more often
            which = 1 - which
        elif turn == 7:  # noqa: PLR2004
            headers = draw(st.sampled_from([*HEADERS, JOB, []]))
        value: bytes | None = b"\xc3\x01" + FRAMING.schemas[which].fingerprint() + encoded(event, VERSIONS[which])
        if turn == 8:  # noqa: PLR2004
            value = draw(st.sampled_from([None, b"", value[:-1], value + b"\0", b"\0" + value, value[:5], value[:10]]))  # type: ignore[index, operator]
        sent.append(Message(value, headers=headers, partition=draw(st.integers(0, 1)), topic="raw"))
    options = {
        "poll_size": draw(st.sampled_from([3, 500])),
        "batch_size": draw(st.sampled_from([1, 3, 100])),
        "restart_after": draw(st.sampled_from([(), (1,)])) if len(sent) > 1 else (),
    }
    return Case(WHAT, [Seen, Left], sent, options)


@pytest.mark.slow
def test_avro_ends_the_same_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "TOGETHER_MIN", 1)
    taken: Counter[str] = Counter()

    @settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
    @given(worlds(), st.booleans())
    def check(case: Case, background: bool) -> None:
        how: dict[str, Any] = {
            "background": background,
            "decoder": lambda what: AvroDecoder(FRAMING, what, reader=VERSIONS[1]),
        }
        columns, items = end_of(case, columnar=True, **how), end_of(case, columnar=False, **how)

        assert (items.in_columns, items.has_loop) == (0, False)
        for what, said in items.left.items():
            assert columns.left.get(what) == said, what
        taken.update(columns=columns.in_columns, items=sum(items.left.get("outcomes", Counter()).values()))

    check()
    assert taken["columns"] > taken["items"] / 20, f"the loops took little: {taken}"
