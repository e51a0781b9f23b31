"""Generated Discord message dispatches for `lovelace demo` and tests: new messages, edits, deletions, and bad ones.

No person in it exists. `items(total, guild)` gives messages that hold exactly `total` items, each of another part of
another message, so that every item that succeeds is a row. About one item in a hundred is bad, and each kind occurs.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from dataflows.discord_messages import VIEW, messages
from lovelace_streams.submit import Outgoing

__all__ = ["bad_messages", "count_rows", "dispatch", "items", "message", "setup"]

encode = msgspec.json.encode
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
UPDATES, DELETIONS, BULKS, BULK = 5, 31, 97, 20
"""Every fifth single is an edit, every 31st a deletion, every 97th a bulk deletion of 20."""


def setup(ddl: str, guild: int) -> Iterator[str]:
    """Give the statements that make the table, with a rule that refuses something, and the view."""
    rules = ",\n  CONSTRAINT content_length CHECK content IS NULL OR lengthUTF8(content) <= 4000\n) ENGINE"
    yield ddl.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS").replace("\n) ENGINE", rules).rstrip(";")
    yield VIEW


def count_rows(guild: int) -> str:
    """Give SQL that counts the rows of a guild: one per part of a message."""
    return f"SELECT count() FROM discord_messages FINAL WHERE guild_id = {guild}"  # noqa: S608 - a number


def dispatch(event: str, data: Any, number: int | None = None) -> dict[str, Any]:
    """Make a gateway dispatch."""
    return {"op": 0, "t": event, "s": number, "d": data}


def message(number: int, guild: int, **changes: Any) -> dict[str, Any]:
    """Make a message as the gateway shows one (fields of Discord's API description)."""
    sent = EPOCH + timedelta(seconds=number % 100_000_000)
    base: dict[str, Any] = {
        "id": str(number),
        "channel_id": str(guild + number % 7),
        "guild_id": str(guild),
        "author": {
            "id": str(10**17 + number % 500),
            "username": f"user{number % 500}",
            "discriminator": "0",
            "global_name": f"Member {number % 500}",
            "avatar": None,
        },
        "type": 0,
        "content": f"message number {number}",
        "timestamp": sent.isoformat(),
        "edited_timestamp": None,
        "tts": False,
        "mention_everyone": False,
        "mentions": [],
        "mention_roles": [str(700_000_000_000_000_000 + n) for n in range(number % 3)],
        "attachments": [],
        "embeds": [],
        "pinned": False,
        "flags": 0,
    }
    return base | changes


def bad_messages(guild: int, number: int) -> Iterator[Outgoing]:
    """Give one message of one item for every kind of bad message, with numbers from `number` on."""

    def create(**changes: Any) -> bytes:
        nonlocal number
        number += 1
        return encode(dispatch("MESSAGE_CREATE", message(number, guild, **changes)))

    good = create()
    partial = {"id": str(number), "channel_id": "1", "guild_id": str(guild), "embeds": []}
    for value in (
        good.replace(b"message number", b"\xff\xfe"),  # not UTF-8
        good[:-20],  # not JSON
        b"\0\0\0\0\1" + b"\2" * 8,  # an Avro frame that is invalid, or whose schema is unknown
        create(id=str(2**65)),  # beyond 64 bits
        create(id=None),  # a null key field
        create(content="nul\0"),  # NUL in text
        create(content="surrogate-here").replace(b"surrogate-here", b"\\ud800"),  # a lone surrogate
        create(timestamp="2023-02-30T00:00:00+00:00"),  # a date that does not exist
        create(timestamp="1899-12-31T00:00:00+00:00"),  # one before ClickHouse's years
        create(mention_roles="not a list"),  # wrong type
        create(content="x" * 4001),  # CHECK
        encode(dispatch("MESSAGE_UPDATE", partial)),  # only what has changed
        encode(dispatch("MESSAGE_DELETE", {"channel_id": "1", "guild_id": str(guild)})),  # no key field
    ):
        yield Outgoing(f"{guild}:{number}".encode(), value)


def items(total: int, guild: int, *, bad: bool = True, first: int = 10**17) -> Iterator[Outgoing]:
    """Give messages with exactly `total` items: new ones, edits, single and bulk deletions; with `bad`, bad ones."""
    number, left = first, total

    def one(event: str, data: dict[str, Any]) -> Outgoing:
        [outgoing] = messages(dispatch(event, data, number))
        return outgoing

    if bad and total >= 200:  # noqa: PLR2004 - room for one of each
        wrong = list(bad_messages(guild, first + 10**9))
        yield from wrong
        yield Outgoing(b"", encode(dispatch("TYPING_START", {"guild_id": str(guild)})))  # skipped: unknown event
        left -= len(wrong) + 1
    while left > 0:
        number += 1
        told = message(number, guild)
        if number % BULKS == 0 and left >= BULK:
            ids = [str(number * 2 + (number - first) * BULK + n) for n in range(BULK)]
            yield one("MESSAGE_DELETE_BULK", {"ids": ids, "channel_id": told["channel_id"], "guild_id": str(guild)})
            left -= BULK
            continue
        if number % DELETIONS == 0:
            yield one("MESSAGE_DELETE", {name: told[name] for name in ("id", "channel_id", "guild_id")})
        elif number % UPDATES == 0:
            yield one("MESSAGE_UPDATE", told | {"edited_timestamp": told["timestamp"], "content": "edited"})
        else:
            yield one("MESSAGE_CREATE", told)
        left -= 1
