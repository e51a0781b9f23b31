"""What users' tests stand on: `mapped` and `run` give what the flow would, and say clearly what happened instead."""

from datetime import UTC, datetime
from typing import Annotated

import pytest
from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from lovelace_streams import DeploymentFault, DestinationFault
from lovelace_streams.submit import Outgoing
from lovelace_streams.testing import MemoryWriter, Message, mapped, run
from lovelace_streams.writers.postgres import PostgresWriter


class Item(ls.Row, table="items", primary_key="id", version="seen_at"):
    id: int
    name: Annotated[str | None, str.strip]
    seen_at: Annotated[datetime, ls.FromKafka("timestamp")]


EVENTS = ls.Events("t", {"one": ls.Items("d", Item), "many": ls.Items("d", Item)}, ls.Skip("unknown_event"))


def flow(settings: ls.Settings | None = None, what=Item) -> Dataflow:
    settings = settings or ls.Settings()
    source = ls.KafkaSource(settings.kafka, topics=["items", "more"])
    flow = Dataflow("items")
    raw = ls.kafka_source("kafka", flow, source)
    decoded = ls.decode("decode", raw, ls.JsonDecoder(what))
    items = ls.normalize("normalize", decoded.oks, Item)
    batches = ls.batch("batch", items.oks, settings.batch)
    written = ls.upsert("upsert", batches, PostgresWriter(settings.postgres, Item), source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, items.errs, written.errs)
    settled = (written.settled, dead.settled, decoded.skipped, items.skipped)
    ls.progress("progress", source, settings.progress, *settled)
    return flow


def events(settings: ls.Settings) -> Dataflow:
    return flow(settings, EVENTS)


def test_a_mapping_gives_rows_letters_and_skips() -> None:
    payloads = ({"t": "many", "d": [{"id": 1, "name": " a "}, {"id": "x"}]}, {"t": "other"}, b"\xff", None)

    result = mapped(EVENTS, *payloads)

    assert [(row.id, row.name) for row in result.rows] == [(1, "a")]
    assert {(letter.step, letter.reason, letter.item) for letter in result.letters} == {
        ("normalize", "wrong_type", 1),
        ("decode", "not_utf8", 0),
    }
    assert result.skipped == ["unknown_event", "tombstone"]


def test_a_mapping_may_be_a_function_or_a_decoder_of_ones_own() -> None:
    def twice(raw):
        return [Item(id=raw["id"] + n, name=ls.UNSET, seen_at=datetime(2020, 1, 1, tzinfo=UTC)) for n in range(2)]

    assert [row.id for row in mapped(twice, {"id": 5}).rows] == [5, 6]
    assert mapped(ls.JsonDecoder(Item), {"id": 5}, to=Item).row.id == 5
    with pytest.raises(TypeError, match="to="):
        mapped(ls.JsonDecoder(Item), {"id": 5})


def test_time_and_headers_come_from_the_message() -> None:
    at = datetime(2021, 5, 5, tzinfo=UTC)

    assert mapped(Item, Message({"id": 1}, timestamp=at)).row.seen_at == at
    assert mapped(Item, Message({"id": 1}, items=3)).letter.count == 3


def test_what_there_was_instead_of_a_row_is_said() -> None:
    with pytest.raises(AssertionError, match=r"expected one row, got 0 rows; .*wrong_type: expected int, got bool"):
        _ = mapped(Item, {"id": True}).row
    with pytest.raises(AssertionError, match="expected one dead letter, got 1 row$"):
        _ = mapped(Item, {"id": 1}).letter


def test_every_item_of_a_flow_is_accounted_for() -> None:
    good = {"t": "many", "d": [{"id": n, "name": f"{n}"} for n in range(1000)]}
    chunk = {"t": "many", "d": [{"id": 1, "name": "again"}, {"id": None}, {"id": 2000}]}

    result = run(events, [good, chunk, {"t": "other"}, None, "{", {"t": "many", "d": []}])

    assert sum(result.outcomes.values()) == 1000 + 3 + 1 + 1 + 1 + 1
    assert result.outcomes == {"written": 1002, "dead_lettered": 2, "skipped": 3}
    assert result.skipped == {"unknown_event": 1, "tombstone": 1, "empty": 1}
    assert len(result.rows()) == 1001
    assert result.row("items", id=1)["name"] == "again"
    assert sorted((letter.reason, letter.items) for letter in result.letters) == [
        ("not_json", [(0, "not_json")]),
        ("null", [(1, "null")]),
    ]
    assert result.letter("not_json").value == b"{"
    assert result.committed["items", 0] == 6


def test_messages_keep_their_topic_partition_and_order() -> None:
    first = Message({"id": 1, "name": "first"}, partition=1, timestamp=datetime(2021, 1, 2, tzinfo=UTC))
    older = Message({"id": 1, "name": "older"}, topic="more", timestamp=datetime(2021, 1, 1, tzinfo=UTC))

    result = run(flow, [first, older, Outgoing(b"2", b'{"id": 2}')])

    assert result.row(id=1)["name"] == "first"
    assert result.outcomes == {"written": 2, "superseded": 1}
    assert result.committed == {("items", 1): 1, ("more", 0): 1, ("items", 0): 1}
    with pytest.raises(ValueError, match="message 0 is sent to elsewhere"):
        run(flow, [Message({}, topic="elsewhere")])


def test_more_messages_than_one_window_holds() -> None:
    result = run(flow, [{"id": n} for n in range(50)], poll_size=7, batch_size=3)

    assert result.all_written().outcomes == {"written": 50}
    assert result.committed["items", 0] == 50


def test_a_second_run_finds_what_the_first_wrote() -> None:
    table = MemoryWriter(Item)

    run(flow, [{"id": 1, "name": "kept"}], writers=[table])
    result = run(flow, [Message({"id": 1}, timestamp=datetime(2030, 1, 1, tzinfo=UTC))], writers=[table])

    assert result.letter("version_in_future").step == "normalize"
    assert result.rows() == list(table.table.values())
    assert result.row(id=1)["name"] == "kept"


def test_a_job_completes_and_its_workflow_would_be_told() -> None:
    messages = [Message({"id": 1}, job="j"), Message("[", job="j", items=2), {"id": 2}]

    result = run(flow, messages, jobs={"j": 3, "k": None})

    assert (result.jobs["j"].status, result.jobs["k"].status) == ("completed", "open")
    assert result.signals == [
        {"signal_id": "j#1", "job_id": "j", "source": "test", "succeeded": 1, "failed": 2, "skipped": 0}
    ]


def test_a_fault_of_the_deployment_is_raised() -> None:
    with pytest.raises(DeploymentFault, match="a thousand items in a row were refused by 'normalize'"):
        run(flow, [Message({"id": None}, job=f"job-{n % 2}") for n in range(1000)])


def test_a_destination_that_never_answers_ends_by_the_clock() -> None:
    class Down(MemoryWriter):
        def write(self, block):
            raise DestinationFault("08006", "nobody there")

    with pytest.raises(TimeoutError, match=r"1 messages are not settled after 0\.2 s"):
        run(flow, [{"id": 1}], writers=[Down(Item)], timeout=0.2)


def test_what_there_was_instead_in_a_flow_is_said() -> None:
    result = run(flow, [{"id": 1, "name": "a"}, {"id": "?"}])

    with pytest.raises(AssertionError, match=r"one row with id=2, got 0 of 1: .*wrong_type: expected int"):
        result.row(id=2)
    with pytest.raises(AssertionError, match=r"the flow writes items, not others"):
        result.row("others", id=1)
    with pytest.raises(AssertionError, match=r"one dead letter for null, got 0; 1 written; 1 dead_lettered"):
        result.letter("null")
    with pytest.raises(AssertionError, match=r"every item to be written; .*1 dead_lettered"):
        result.all_written()


def test_no_environment_reaches_a_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUMER_GROUP_ID", "theirs")
    monkeypatch.setenv("PROGRESS_API_URL", "http://127.0.0.1:9")

    result = run(flow, ["?"])

    assert list(result.sent) == ["items.dlq"]


def test_a_flow_that_makes_its_own_settings_is_run_in_memory_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROGRESS_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PROGRESS_API_TOKEN", "t")

    assert run(lambda: flow(None), [{"id": 1}]).all_written().rows()
    assert run(flow(None), [{"id": 1}]).all_written().rows()


def test_a_flow_that_is_none_is_refused() -> None:
    with pytest.raises(DeploymentFault, match="reads no topic: begin it with ls.kafka_source"):
        run(Dataflow("empty"), [])
    with pytest.raises(TypeError, match="no writer of others"):
        run(
            flow,
            [],
            writers=[
                MemoryWriter(
                    type("Other", (ls.Row,), {"__annotations__": {"id": int}}, table="others", primary_key="id")
                )
            ],
        )


class Part(ls.Row, table="parts", primary_key=("item", "number")):
    item: int
    number: int


def into_both(settings: ls.Settings, what, target) -> Dataflow:
    source = ls.KafkaSource(settings.kafka, topics=["items"])
    flow = Dataflow("both")
    decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(what))
    rows = ls.normalize("normalize", decoded.oks, target, source)
    writer = PostgresWriter(settings.postgres, Item, Part)
    written = ls.upsert("upsert", ls.batch("batch", rows.oks, settings.batch), writer, source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, rows.errs, written.errs)
    ls.commit("commit", source, written.settled, dead.settled, decoded.skipped, rows.skipped)
    return flow


def test_an_item_with_rows_of_several_tables() -> None:
    def parts(raw):
        at = datetime(2020, 1, 1, tzinfo=UTC)
        rows = [Part(item=raw["id"], number=number) for number in raw["parts"]]
        return [Item(id=raw["id"], name=ls.UNSET, seen_at=at), *rows]

    def both(settings: ls.Settings) -> Dataflow:
        return into_both(settings, parts, parts)

    result = run(both, [{"id": 1, "parts": [1, 2]}, {"id": 2, "parts": []}])

    assert result.outcomes == {"written": 2}
    assert result.rows("parts") == [{"item": 1, "number": 1}, {"item": 1, "number": 2}]
    assert [row["id"] for row in result.rows("items")] == [1, 2]
    strict = MemoryWriter(Item, Part, check=lambda row: row.get("number") != 2)
    assert run(both, [{"id": 1, "parts": [1, 2]}], writers=[strict]).letter("check").items == [(0, "check")]
    assert strict.tables == {"items": {}, "parts": {}}, "none of an item's rows stays"


def test_events_of_several_tables() -> None:
    kinds = ls.Events("t", {"item": ls.Items("d", Item), "part": ls.Items("d", Part)}, ls.Skip("unknown_event"))
    messages = [{"t": "item", "d": {"id": 1}}, {"t": "part", "d": {"item": 1, "number": 7}}]

    result = run(lambda settings: into_both(settings, kinds, (Item, Part)), messages)

    assert result.all_written().rows("parts") == [{"item": 1, "number": 7}]
    assert result.row("items", id=1)
    with pytest.raises(DeploymentFault, match="decode gives items of Part, which normalize was not told of"):
        run(lambda settings: into_both(settings, kinds, Item), messages)


def test_jobs_need_a_flow_that_reports() -> None:
    def bare(settings: ls.Settings) -> Dataflow:
        source = ls.KafkaSource(settings.kafka, topics=["items"])
        flow = Dataflow("bare")
        decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(Item))
        items = ls.normalize("normalize", decoded.oks, Item)
        batches = ls.batch("batch", items.oks, settings.batch)
        written = ls.upsert("upsert", batches, MemoryWriter(Item), source)
        dead = ls.dead_letter("dead_letter", source, decoded.errs, items.errs, written.errs)
        ls.commit("commit", source, written.settled, dead.settled, decoded.skipped, items.skipped)
        return flow

    assert run(bare, [None]).committed == {("items", 0): 1}
    with pytest.raises(TypeError, match="knows no jobs"):
        run(bare, [], jobs={"j": 1})
