"""A row's text shows no personal data: failing tests, tracebacks and logs print it."""

from typing import Annotated

import msgspec
import pytest
from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from lovelace_streams import UNSET, From, Pii, Row
from lovelace_streams.testing import MemoryWriter, mapped, run


class Member(Row, table="members", primary_key="id"):
    id: int
    name: Annotated[str | None, From("user.name"), str.lower, Pii("username")]
    mail: Annotated[str, Pii("email")] | None
    roles: list[int] | None


class Family(Row, table="families", primary_key="id"):
    id: int
    members: Annotated[list[str], Pii("name")]


ADA = Member(id=7, name="ada", mail="ada@example.org", roles=[1])


def test_marked_values_are_masked_and_others_are_shown() -> None:
    assert repr(ADA) == "Member(id=7, name=<username>, mail=<email>, roles=[1])"
    assert repr(Family(id=1, members=["ada", "bob"])) == "Family(id=1, members=<name>)"


def test_whether_there_is_a_value_is_shown() -> None:
    assert repr(Member(id=7, name=None, mail=UNSET, roles=UNSET)) == "Member(id=7, name=None, mail=UNSET, roles=UNSET)"


@pytest.mark.parametrize("show", [str, repr, "{}".format, lambda row: repr([row]), lambda row: repr({"row": row})])
def test_no_way_of_printing_shows_them(show) -> None:
    assert "ada" not in show(ADA)


def test_rich_prints_the_same() -> None:
    from rich.pretty import pretty_repr

    assert pretty_repr(ADA) == repr(ADA)


def test_a_failing_comparison_shows_the_row_masked() -> None:
    result = mapped(Member, {"id": 7, "user": {"name": "Ada"}, "mail": "ada@example.org"})

    with pytest.raises(AssertionError) as failed:
        assert [result.row] == [ADA]
    assert "ada" not in str(failed.value)
    assert "Ada" not in str(failed.value)
    assert "<username>" in str(failed.value)


def test_values_are_compared_and_kept_as_before() -> None:
    assert msgspec.structs.replace(ADA) == ADA
    assert msgspec.structs.asdict(ADA)["name"] == "ada"
    assert msgspec.structs.replace(ADA, name="bob") != ADA


def test_a_class_whose_annotations_cannot_be_read_shows_nothing() -> None:
    broken = type("Broken", (Row,), {"__annotations__": {"id": "NotDefinedAnywhere"}}, table="b", primary_key="id")

    assert repr(broken(id="ada")) == "Broken(id=<hidden>)"


def test_a_row_that_a_test_does_not_find_is_not_shown_with_them() -> None:
    def flow(settings: ls.Settings) -> Dataflow:
        source = ls.KafkaSource(settings.kafka, topics=["members"])
        flow = Dataflow("members")
        decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(Member))
        members = ls.normalize("normalize", decoded.oks, Member)
        batches = ls.batch("batch", members.oks, settings.batch)
        written = ls.upsert("upsert", batches, MemoryWriter(Member), source)
        dead = ls.dead_letter("dead_letter", source, decoded.errs, members.errs, written.errs)
        ls.commit("commit", source, written.settled, dead.settled, decoded.skipped, members.skipped)
        return flow

    result = run(flow, [{"id": 7, "user": {"name": "Ada"}, "mail": "ada@example.org"}])

    with pytest.raises(AssertionError, match=r"\{'id': 7, 'name': '<username>'\}") as failed:
        result.row(id=8, name="bob")
    assert "ada" not in str(failed.value)
