"""What becomes of each dispatch about a message: in a real table of ClickHouse's engine, and in the flow as it runs."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import clickhouse_connect
import fastavro
import pytest

from dataflows import discord_messages
from dataflows.discord_messages import EVENTS, SCHEMA, SOURCE, messages
from dataflows.discord_messages_sample import bad_messages, count_rows, dispatch, items, message, setup
from lovelace_streams.delivery.blocks import entries_of
from lovelace_streams.formats.decoder import Ports
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.operators.batch import cut
from lovelace_streams.operators.normalize import sort
from lovelace_streams.records import Record
from lovelace_streams.rows.normalizer import normalizer
from lovelace_streams.settings import BatchPolicy, ClickHouseSettings
from lovelace_streams.testing import Message, run
from lovelace_streams.writers import Refusal, RowOutcome, check_capabilities
from lovelace_streams.writers.clickhouse import ClickHouseWriter

GUILD = 41771983423143937
T0 = datetime(2024, 5, 1, tzinfo=UTC)


class Table:
    """The table as the demo makes it, and messages written to it as the flow would."""

    def __init__(self, dsn: str) -> None:
        self.client = clickhouse_connect.get_client(dsn=dsn)
        self.writer = ClickHouseWriter(ClickHouseSettings(dsn), *SOURCE.rows)
        for statement in setup(self.writer.ddl(), GUILD):
            self.client.command(statement)
        check_capabilities(self.writer)
        self.writer.open()
        self.decoder, self.normalizer = JsonDecoder(EVENTS), normalizer(*SOURCE.rows)
        self.offset = 0

    def send(self, *payloads: Any, at: int = 0) -> list[Any]:
        """What the rows of these payloads came to; each is a message, `at` seconds after the first."""
        decoded = Ports()
        for payload in payloads:
            self.offset += 1
            value = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
            stamp = int(T0.timestamp() + at) * 1000
            record = Record("t", 0, self.offset, self.offset, 1, None, value, [], stamp)
            self.decoder.decode(record, decoded.oks, decoded.errs, decoded.skipped)
        mapped = sort(self.normalizer, decoded.oks)
        results: list[Any] = [letter.reason for letter in (*decoded.errs, *mapped.errs)]
        for batch in cut(mapped.oks, BatchPolicy()):
            results += self.writer.write(entries_of(batch.envelopes)[0])
        return [result.reason if isinstance(result, Refusal) else result for result in results]

    def now(self, number: int) -> dict[str, Any]:
        """A message as the view shows it."""
        query = f"select * from discord_messages_now where message_id = {number}"
        [row] = self.client.query(query, tz_mode="aware").named_results()
        return dict(row)


@pytest.fixture
def table(clickhouse: str):
    made = Table(clickhouse)
    yield made
    made.writer.close()
    made.client.close()


def create(number: int, **changes: Any) -> dict[str, Any]:
    return dispatch("MESSAGE_CREATE", message(number, GUILD, **changes))


def update(number: int, content: str) -> dict[str, Any]:
    edited = {"content": content, "edited_timestamp": "2024-05-01T00:00:01+00:00"}
    return dispatch("MESSAGE_UPDATE", message(number, GUILD, **edited))


def delete(number: int) -> dict[str, Any]:
    told = message(number, GUILD)
    return dispatch("MESSAGE_DELETE", {name: told[name] for name in ("id", "channel_id", "guild_id")})


def test_a_message_is_a_row_with_its_columns(table: Table) -> None:
    assert table.send(create(8)) == [RowOutcome.WRITTEN]

    row = table.now(8)
    assert (row["channel_id"], row["guild_id"], row["author_id"]) == (GUILD + 1, GUILD, 10**17 + 8)
    assert (row["content"], row["kind"], row["pinned"]) == ("message number 8", 0, False)
    assert row["mention_roles"] == [700_000_000_000_000_000, 700_000_000_000_000_001]
    assert (row["sent_at"], row["edited_at"]) == (datetime(2020, 1, 1, 0, 0, 8, tzinfo=UTC), None)
    assert (row["seen_at"], row["deleted_at"]) == (T0, None)


def test_an_edit_replaces_and_an_older_picture_that_comes_late_does_not(table: Table) -> None:
    table.send(create(1), at=1)
    table.send(update(1, "edited"), at=3)
    table.send(update(1, "an earlier edit"), at=2)

    assert table.now(1)["content"] == "edited"


def test_of_two_edits_in_one_millisecond_the_later_in_the_topic_stays_also_when_they_are_read_again(
    table: Table,
) -> None:
    both = update(1, "first"), update(1, "second")
    table.send(*both)
    table.offset = 0
    table.send(*both)

    assert table.now(1)["content"] == "second"


def test_a_deletion_keeps_what_the_message_said_and_no_late_picture_undoes_it(table: Table) -> None:
    table.send(create(1), at=1)
    table.send(delete(1), at=2)
    table.send(update(1, "late"), at=3)

    row = table.now(1)
    assert row["deleted_at"] == datetime(2024, 5, 1, 0, 0, 2, tzinfo=UTC)
    assert (row["content"], row["author_id"]) == ("late", 10**17 + 1)


def test_many_deleted_at_once_are_an_item_each_and_a_bad_id_costs_only_its_own(table: Table) -> None:
    told = {"channel_id": str(GUILD + 1), "guild_id": str(GUILD)}
    table.send(create(1), create(8), create(15))

    results = table.send(dispatch("MESSAGE_DELETE_BULK", {"ids": ["1", "not an id", "15"], **told}), at=1)

    assert sorted(map(str, results)) == ["written", "written", "wrong_type"]
    assert [table.now(number)["deleted_at"] is not None for number in (1, 8, 15)] == [True, False, True]


def test_an_update_that_tells_only_what_has_changed_is_dead_lettered_and_blanks_nothing(table: Table) -> None:
    table.send(create(1))
    partial = dispatch("MESSAGE_UPDATE", {"id": "1", "channel_id": str(GUILD + 1), "embeds": []})

    assert table.send(partial, at=1) == ["missing"]
    assert table.now(1)["content"] == "message number 1"


def test_every_kind_of_bad_message_fails_with_its_reason_and_its_neighbours_are_written(table: Table) -> None:
    bad = [outgoing.value for outgoing in bad_messages(GUILD, 10**18)]
    results = table.send(create(1), *bad, create(2))

    counts = {str(reason): results.count(reason) for reason in set(results)}
    assert counts == {
        "written": 2, "not_utf8": 1, "not_json": 2, "out_of_range": 2, "null": 1, "bad_value": 3, "wrong_type": 1,
        "check": 1, "missing": 2,
    }  # fmt: skip


def test_the_sample_holds_as_many_items_as_asked_for_and_a_row_for_each_that_succeeds(table: Table) -> None:
    made = list(items(1000, GUILD))
    assert sum(outgoing.items for outgoing in made) == 1000

    results = table.send(*(outgoing.value for outgoing in made))
    written = results.count(RowOutcome.WRITTEN)
    assert (written, len(results)) == (1000 - 14, 999)  # 13 bad ones, and an event that nobody knows
    [(rows,)] = table.client.query(count_rows(GUILD)).result_rows
    assert rows == written


def framed(schema_id: int, schema: dict[str, Any], payload: dict[str, Any]) -> bytes:
    out = io.BytesIO(b"\0" + schema_id.to_bytes(4, "big"))
    out.seek(5)
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), payload)
    return out.getvalue()


def test_avro_and_json_lie_on_one_topic() -> None:
    schema = json.loads(Path(SCHEMA).read_text())
    told = message(7, GUILD)
    author = told["author"] | {"id": int(told["author"]["id"])}
    avro = {name: told[name] for name in ("type", "content", "pinned", "mention_everyone", "tts", "flags")} | {
        "id": 7, "channel_id": GUILD, "guild_id": GUILD, "author": author, "mention_roles": [5],
        "timestamp": datetime(2020, 1, 1, 0, 0, 7, tzinfo=UTC), "edited_timestamp": None,
    }  # fmt: skip
    deleted = {"id": 7, "channel_id": GUILD, "guild_id": GUILD}
    result = run(
        discord_messages.flow,
        [
            framed(3, schema, {"t": "MESSAGE_CREATE", "d": avro}),
            create(14),
            framed(3, schema, {"t": "MESSAGE_DELETE", "d": deleted}),
            framed(4, schema, {"t": "MESSAGE_DELETE", "d": deleted}),
        ],
        schemas={3: schema},
        schema_registry_url="http://registry.test",
        clickhouse_dsn="http://nobody.test",
    )

    row = result.row(message_id=7, part="message")
    assert (row["author_id"], row["content"], row["mention_roles"]) == (10**17 + 7, "message number 7", [5])
    assert row["sent_at"] == datetime(2020, 1, 1, 0, 0, 7, tzinfo=UTC)
    assert result.row(message_id=7, part="deletion")["deleted_at"] is not None
    assert result.row(message_id=14)["channel_id"] == GUILD
    assert result.letter("unknown_schema")


def test_bare_messages_are_wrapped_and_dispatches_are_not() -> None:
    [wrapped] = messages(message(9, GUILD), guild="5")
    assert next(messages(message(9, GUILD), guild=5)).value == wrapped.value
    [as_it_is] = messages(create(10))

    assert json.loads(wrapped.value)["d"]["guild_id"] == "5"
    assert wrapped.key == f"{GUILD + 2}:9".encode()
    assert json.loads(as_it_is.value) == create(10)
    result = run(discord_messages.flow, [wrapped, as_it_is, Message({"t": "TYPING_START"})], clickhouse_dsn="http://x")
    assert len(result.rows()) == 2
    assert result.skipped == {"unknown_event": 1}


def test_the_source_names_its_own_pipeline_topic_and_rows() -> None:
    """A job that `lovelace submit` opens waits for the pipeline of this name: the flow's own."""
    assert (SOURCE.name, SOURCE.topic) == (discord_messages.flow().flow_id, "discord.messages.raw")
    assert {row.__table__.name for row in SOURCE.rows} == {"discord_messages"}
