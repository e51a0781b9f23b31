"""What becomes of each of Discord's dispatches, in a real table: no broker, the same steps as the flow."""

import json
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from dataflows.discord import EVENTS, SOURCE, Member, MemberJoined, MemberLeft, messages
from dataflows.discord import flow as dataflow
from dataflows.discord_sample import bad_messages, dispatch, member, setup
from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.operators.batch import cut
from lovelace_streams.records import Envelope, Record
from lovelace_streams.rows.normalizer import normalizer
from lovelace_streams.settings import BatchPolicy, PostgresSettings
from lovelace_streams.testing import Message, run
from lovelace_streams.writers import Entry, Refusal
from lovelace_streams.writers.postgres import PostgresWriter
from lovelace_streams.writers.postgres.ddl import create_table

GUILD = 41771983423143937
T0 = 1_700_000_000_000


class Flow:
    """Decode, normalize, batch, upsert: what ends how."""

    def __init__(self, database: str) -> None:
        self.database = database
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(setup(create_table(*SOURCE.rows), GUILD).encode())
        self.decoder = JsonDecoder(EVENTS)
        self.normalizer = normalizer(Member)
        self.writer = PostgresWriter(PostgresSettings(database), *SOURCE.rows)
        self.writer.open()
        self.offset = 0
        self.ends: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def send(self, *values: bytes | None | dict[str, Any], items: int | None = None, at: int = T0) -> "Flow":
        oks: list[Envelope] = []
        errs: list = []
        skipped: list = []
        for value in values:
            raw = json.dumps(value).encode() if isinstance(value, dict) else value
            self.offset += 1
            record = Record("t", 0, self.offset, self.offset, 1, None, raw, [], at, declared=items)
            self.decoder.decode(record, oks, errs, skipped)
        rows = []
        for envelope in oks:
            try:
                row = self.normalizer.normalize(envelope, int(time.time() * 1000))
            except RecordFault as fault:
                self.ends["dead_lettered"] += 1
                self.reasons[fault.reason] += 1
            else:
                rows.append(Envelope(envelope.record, envelope.item, row))
        for batch in cut(rows, BatchPolicy(rows=100)):
            for result in self.writer.write([Entry(e.payload) for e in batch.envelopes]):
                refused = isinstance(result, Refusal)
                self.ends["dead_lettered" if refused else str(result)] += 1
                if refused:
                    self.reasons[result.reason] += 1
        for letter in errs:
            self.ends["dead_lettered"] += letter.count
            self.reasons[letter.reason] += letter.count
        for reason, envelope in skipped:
            self.ends["skipped"] += envelope.count
            self.reasons[reason] += envelope.count
        return self

    def rows(self, columns: str = "*") -> list[tuple]:
        with psycopg.connect(self.database) as connection:
            return connection.execute(f"select {columns} from discord_members order by user_id").fetchall()


@pytest.fixture
def flow(database: str):
    made = Flow(database)
    yield made
    made.writer.close()


def add(user: int, event: str = "GUILD_MEMBER_ADD", **changes: Any) -> dict[str, Any]:
    return dispatch(event, member(user, **changes) | {"guild_id": str(GUILD)})


def test_a_member_is_normalized(flow: Flow) -> None:
    flow.send(add(9, nick="Nine", roles=["7", "8"]))

    [row] = flow.rows("guild_id, user_id, username, display_name, roles, avatar, left_at, seen_at")
    seen = datetime.fromtimestamp(T0 / 1000, UTC)
    assert row == (GUILD, 9, "user9", "Nine", [7, 8], f"{9:032x}", None, seen)


def test_an_update_mentions_only_some_fields_and_the_others_are_kept(flow: Flow) -> None:
    flow.send(add(9, nick="Nine", roles=["7"]))
    flow.send(dispatch("GUILD_MEMBER_UPDATE", {"guild_id": str(GUILD), "user": {"id": "9"}, "roles": ["8"]}), at=T0 + 1)

    assert flow.rows("username, display_name, roles") == [("user9", "Nine", [8])]


def test_null_is_not_absent(flow: Flow) -> None:
    flow.send(add(9))
    flow.send(dispatch("GUILD_MEMBER_UPDATE", {"guild_id": str(GUILD), "user": {"id": "9", "avatar": None}}), at=T0 + 1)

    assert flow.rows("avatar, username") == [(None, "user9")]


def test_an_update_without_a_nick_keeps_the_stored_one(flow: Flow) -> None:
    user = {"id": "9", "username": "User9", "global_name": "Global"}
    flow.send(add(9, nick="Nine"))
    flow.send(dispatch("GUILD_MEMBER_UPDATE", {"guild_id": str(GUILD), "user": user}), at=T0 + 1)
    assert flow.rows("username, display_name") == [("user9", "Nine")]

    flow.send(dispatch("GUILD_MEMBER_UPDATE", {"guild_id": str(GUILD), "user": user, "nick": None}), at=T0 + 2)
    assert flow.rows("display_name") == [("Global",)]

    flow.send(dispatch("GUILD_MEMBER_UPDATE", {"guild_id": str(GUILD), "user": user, "nick": "Ten"}), at=T0 + 3)
    assert flow.rows("display_name") == [("Ten",)]


def test_an_update_of_a_member_that_is_not_stored_leaves_its_name_to_the_column(flow: Flow) -> None:
    flow.send(dispatch("GUILD_MEMBER_UPDATE", {"guild_id": str(GUILD), "user": {"id": "9", "username": "nine"}}))

    assert flow.rows("user_id, username, display_name") == [(9, "nine", None)]


@pytest.mark.parametrize("event", ["GUILD_MEMBER_ADD", "GUILD_MEMBERS_CHUNK"])
def test_a_member_that_joins_again_has_not_left(flow: Flow, event: str) -> None:
    gone = dispatch("GUILD_MEMBER_REMOVE", {"guild_id": str(GUILD), "user": {"id": "9"}})
    here = add(9) if event == "GUILD_MEMBER_ADD" else dispatch(event, {"guild_id": str(GUILD), "members": [member(9)]})
    flow.send(add(9, nick="Nine"))
    flow.send(gone, at=T0 + 1000)
    assert flow.rows("left_at is null") == [(False,)]

    flow.send(here, at=T0 + 2000)
    assert flow.rows("left_at is null") == [(True,)]
    flow.send(gone, at=T0 + 1500)  # late
    assert flow.rows("left_at is null") == [(True,)]


def test_a_member_that_leaves_keeps_the_rest(flow: Flow) -> None:
    flow.send(add(9, nick="Nine"))
    flow.send(dispatch("GUILD_MEMBER_REMOVE", {"guild_id": str(GUILD), "user": {"id": "9"}}), at=T0 + 1000)

    left = datetime.fromtimestamp((T0 + 1000) / 1000, UTC)
    assert flow.rows("display_name, left_at") == [("Nine", left)]


def test_an_older_dispatch_does_not_overwrite_a_newer_one(flow: Flow) -> None:
    flow.send(add(9, nick="new"), at=T0 + 10)
    flow.send(add(9, nick="old"), at=T0)

    assert flow.rows("display_name") == [("new",)]
    assert flow.ends == {"written": 1, "superseded": 1}


def test_a_chunk_of_a_thousand_members_with_one_user_id(flow: Flow) -> None:
    chunk = dispatch(
        "GUILD_MEMBERS_CHUNK", {"guild_id": str(GUILD), "members": [member(9, nick=f"{n}") for n in range(1000)]}
    )

    flow.send(chunk)

    assert flow.rows("display_name") == [("999",)]
    assert flow.ends["dead_lettered"] == 0
    assert flow.ends["written"] + flow.ends["superseded"] == 1000
    assert flow.ends["superseded"] >= 990  # a winner a batch of 100: 10 written, of which one is left in the end


def test_one_bad_member_does_not_cost_its_chunk(flow: Flow) -> None:
    listed = [member(n) for n in range(1, 1001)]
    listed[500] = {"nick": "nobody"}

    flow.send(dispatch("GUILD_MEMBERS_CHUNK", {"guild_id": str(GUILD), "members": listed}))

    assert flow.ends == {"written": 999, "dead_lettered": 1}
    assert flow.reasons == {"missing": 1}


def test_an_undecodable_chunk_counts_its_headers_number(flow: Flow) -> None:
    flow.send(b'{"t": "GUILD_MEMBERS_CHUNK", "d": {"members": [', items=1000)

    assert flow.ends == {"dead_lettered": 1000}


def test_every_kind_of_bad_item_fails_with_its_reason_and_its_neighbours_are_written(flow: Flow) -> None:
    first = add(10**17 + 1)
    bad = [message.value for message in bad_messages(GUILD, 10**18)]

    flow.send(first, *bad, add(5))

    assert flow.reasons == {
        "not_utf8": 1,
        "not_json": 2,
        "too_deep": 1,
        "out_of_range": 1,
        "bad_value": 3,  # NUL, a lone surrogate, a date that does not exist
        "missing": 1,
        "null": 1,
        "wrong_type": 1,
        "check": 1,
        "not_null": 1,
        "foreign_key": 1,
        "refused": 1,  # the trigger's
        "unique": 1,
    }
    assert flow.ends == {"written": 2, "dead_lettered": len(bad)}
    assert [user for (user,) in flow.rows("user_id")] == [5, 10**17 + 1]


def test_tombstones_unknown_events_and_empty_chunks_are_skipped(flow: Flow) -> None:
    flow.send(
        None,
        {"t": "TYPING_START", "d": {}},
        {"op": 11},
        dispatch("GUILD_MEMBERS_CHUNK", {"guild_id": "1", "members": []}),
    )

    assert flow.ends == {"skipped": 4}
    assert flow.reasons == {"tombstone": 1, "unknown_event": 1, "no_event": 1, "empty": 1}


def test_bare_members_are_wrapped_and_dispatches_are_not(flow: Flow) -> None:
    [wrapped] = messages(member(9), guild=str(GUILD))
    [as_it_is] = messages(add(10))
    assert next(messages(member(9), guild=GUILD)).value == wrapped.value

    flow.send(wrapped.value, as_it_is.value)

    assert [user for (user,) in flow.rows("user_id")] == [9, 10]
    assert wrapped.key == f"{GUILD}:9".encode()
    with pytest.raises(ValueError, match="--option guild="):
        list(messages(member(9)))


def test_the_source_names_what_the_command_line_needs() -> None:
    assert (SOURCE.name, SOURCE.topic) == ("discord", "discord.members.raw")
    assert SOURCE.rows == (Member, MemberJoined, MemberLeft)


def test_the_whole_flow_without_a_server() -> None:
    listed = [member(n) for n in range(1, 101)]
    listed[50] = {"nick": "nobody"}
    chunk = dispatch("GUILD_MEMBERS_CHUNK", {"guild_id": str(GUILD), "members": listed})
    sent = [Message(message.value, job="g", items=message.items) for message in messages(chunk)]

    result = run(dataflow, [*sent, Message(b"{", job="g"), {"t": "TYPING_START"}], jobs={"g": 101})

    assert result.outcomes == {"written": 99, "dead_lettered": 2, "skipped": 1}
    assert result.letter("missing").items == [(50, "missing")]
    assert result.row("discord_members", user_id=7)["display_name"] == "Member 7"
    assert (result.jobs["g"].status, len(result.signals)) == ("completed", 1)
    assert result.committed[SOURCE.topic, 0] == 3
