"""Messages as a Discord gateway sends them, and what a decoder makes of one."""

import json
from datetime import datetime
from typing import Annotated, Any

import msgspec

from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.decoder import sort
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import DeadLetter, Envelope, Record, SkipReason
from lovelace_streams.rows import From, FromKafka, Row, Skip
from lovelace_streams.rows.normalizer import RawItem, normalizer

NOW = 1_700_000_000_000


class Member(Row, table="members", primary_key=("guild_id", "user_id"), version="seen_at"):
    guild_id: Annotated[int, From("$.d.guild_id")]
    user_id: Annotated[int, From("user.id")]
    username: Annotated[str | None, From("user.username"), str.lower]
    roles: list[int] | None
    joined_at: datetime | None
    seen_at: Annotated[datetime, FromKafka("timestamp")]


EVENTS = Events(
    "t",
    {
        "GUILD_MEMBER_ADD": Items("d", Member),
        "GUILD_MEMBER_UPDATE": Items("d", Member),
        "GUILD_MEMBERS_CHUNK": Items("d.members", Member),
    },
    otherwise=Skip("unknown_event"),
)


DISCORD = JsonDecoder(EVENTS)
NORMALIZER = normalizer(Member)


class Decoded:
    def __init__(self, decoder: JsonDecoder, value: Any, **fields: Any) -> None:
        if not isinstance(value, bytes | None):
            value = json.dumps(value).encode()
        self.record = Record("topic", 0, 0, 0, 0, None, value, [], NOW, **fields)
        self.oks: list[Envelope[RawItem]] = []
        self.errs: list[DeadLetter] = []
        self.skipped: list[tuple[SkipReason, Envelope[Any]]] = []
        copy = msgspec.structs.replace(self.record)
        decoder.decode(self.record, self.oks, self.errs, self.skipped)
        window = sort(decoder, [Envelope(copy, 0, b"")])  # both ways are one
        assert [(e.item, e.payload.item is None) for e in window.oks] == [
            (e.item, e.payload.item is None) for e in self.oks
        ]
        assert (window.errs, window.skipped, copy) == (self.errs, self.skipped, self.record)

    @property
    def ends(self) -> list[tuple[Any, ...]]:
        """Each item (or whole message) with what became of it: a user's id, or the reason."""
        made: list[tuple[Any, ...]] = []
        for envelope in self.oks:
            try:
                row = NORMALIZER.normalize(envelope, NOW)
                made.append((envelope.item, envelope.count, row.user_id))
            except RecordFault as fault:
                made.append((envelope.item, envelope.count, str(fault.reason)))
        made += [(letter.item, letter.count, str(letter.reason)) for letter in self.errs]
        made += [(envelope.item, envelope.count, str(reason)) for reason, envelope in self.skipped]
        assert self.record.items == sum(count for _, count, _ in made)
        return sorted(made)


def member(user: Any = "1", **fields: Any) -> dict[str, Any]:
    return {"user": {"id": user, "username": "Ann"}, "roles": ["1"], "joined_at": "2015-04-26T06:26:56Z", **fields}


def add(**fields: Any) -> dict[str, Any]:
    return {"op": 0, "t": "GUILD_MEMBER_ADD", "s": 1, "d": {"guild_id": "9", **member(), **fields}}


def chunk(members: Any, guild: Any = "9") -> dict[str, Any]:
    return {"op": 0, "t": "GUILD_MEMBERS_CHUNK", "s": 1, "d": {"guild_id": guild, "members": members}}
