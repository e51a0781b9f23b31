"""Generated Discord dispatches for `lovelace demo`, benchmarks and tests: singles, chunks, and every kind of bad item.

No person in it exists: names are numbers. `members(total, guild)` gives messages that hold exactly `total` items with
distinct user ids. About one item in a hundred is bad, and each kind occurs.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from dataflows.discord import SOURCE, Member, messages
from dataflows.onboarding import Onboarding, activities
from lovelace_streams.submit import Outgoing

__all__ = ["ROWS", "WORKFLOW", "activities", "bad_messages", "count_rows", "dispatch", "member", "members", "setup"]

encode = msgspec.json.encode
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
BIG = 30 * 1024 * 1024
NESTING = 10_000
UPDATES, LEAVERS, CHUNKS = 5, 47, 10
"""Every fifth single is an update, every 47th a leaver; every tenth message is a chunk."""

TABLES = f"""
create table if not exists discord_guilds (guild_id bigint primary key);
{{ddl}}
alter table {Member.__table__.name}
  alter username set default '', alter username set not null,
  add constraint known_guild foreign key (guild_id) references discord_guilds,
  add constraint name_length check (char_length(username) <= 32),
  add constraint one_picture_each unique (guild_id, avatar);
create function refuse_impostors() returns trigger language plpgsql as
  $$begin if new.username = 'everyone' then raise 'no member is called that'; end if; return new; end$$;
create trigger impostors before insert or update on {Member.__table__.name}
  for each row execute function refuse_impostors();
"""
"""The demo's tables: the rows' own DDL, and a rule of every kind that can refuse a row."""

ROWS = SOURCE.rows
WORKFLOW = Onboarding


def setup(ddl: str, guild: int) -> str:
    """Give SQL that makes the tables, if they do not exist, and the guild."""
    return f"""
do $do$ begin
  if to_regclass('{Member.__table__.name}') is null then {TABLES.format(ddl=ddl)} end if;
end $do$;
insert into discord_guilds values ({guild}) on conflict do nothing"""  # noqa: S608 - our own names and a number


def member(user: int, **changes: Any) -> dict[str, Any]:
    """Make a member as Discord's API shows one (fields of its OpenAPI description), 400 to 500 bytes of JSON."""
    base: dict[str, Any] = {
        "avatar": None,
        "banner": None,
        "communication_disabled_until": None,
        "flags": 0,
        "joined_at": (EPOCH + timedelta(seconds=user % 100_000_000)).isoformat(),
        "nick": f"nick {user}" if user % 3 == 0 else None,
        "pending": False,
        "premium_since": None,
        "roles": [str(700_000_000_000_000_000 + n) for n in range(user % 4)],
        "user": {
            "id": str(user),
            "username": f"User{user}",
            "avatar": f"{user:032x}",
            "discriminator": "0",
            "public_flags": 0,
            "global_name": f"Member {user}",
        },
        "mute": False,
        "deaf": False,
    }
    return base | changes


def dispatch(event: str, data: Any, number: int | None = None) -> dict[str, Any]:
    """Make a gateway dispatch."""
    return {"op": 0, "t": event, "s": number, "d": data}


def bad_messages(guild: int, user: int) -> Iterator[Outgoing]:
    """Give one message for every kind of bad item (docs/delivery-guarantees.md), with user ids from `user` on."""
    text = str(guild)

    def add(changes: dict[str, Any] | None = None, person: dict[str, Any] | None = None, in_guild: str = text) -> bytes:
        nonlocal user
        user += 1
        base = member(user)
        whole = base | (changes or {}) | {"guild_id": in_guild, "user": base["user"] | (person or {})}
        return encode(dispatch("GUILD_MEMBER_ADD", whole))

    good = add()
    for value in (
        good.replace(b"User", b"\xff\xfe"),  # not UTF-8
        good[:-20],  # not JSON
        b'{"t":"GUILD_MEMBER_ADD","d":' + b'{"a":' * NESTING + b"1" + b"}" * NESTING + b"}",  # too deep
        b'{"t":"' + b"x" * BIG,  # 30 MB that are not JSON
        add(person={"id": str(2**65)}),  # beyond 64 bits
        add(person={"username": "nul\0"}),  # NUL in text
        add({"nick": "surrogate-here"}).replace(b"surrogate-here", b"\\ud800"),  # a lone surrogate
        encode(dispatch("GUILD_MEMBER_ADD", {"guild_id": text, "user": {"username": "nobody"}})),  # no key field
        add(person={"id": None}),  # a null key field
        add({"roles": "not a list"}),  # wrong type
        add({"joined_at": "2023-02-30T00:00:00+00:00"}),  # a date that does not exist
        add(person={"username": "x" * 33}),  # CHECK
        add(person={"username": None}),  # NOT NULL
        add(in_guild="1"),  # foreign key
        add(person={"username": "everyone"}),  # trigger
        add(person={"avatar": f"{10**17 + 1:032x}"}),  # UNIQUE: the first member's picture
    ):
        yield Outgoing(f"{guild}:{user}".encode(), value)


def members(total: int, guild: int, *, bad: bool = True, first: int = 10**17) -> Iterator[Outgoing]:
    """Give messages with exactly `total` items: chunks of 100, singles, a few leavers; with `bad`, bad ones."""
    text, user, left = str(guild), first, total

    def chunk(size: int, number: int, spoil: int = 0) -> Outgoing:
        nonlocal user, left
        listed = []
        for n in range(size):
            user += 1
            listed.append(member(user) if n >= spoil else {"nick": "no user at all"})
        left -= size
        data = {"guild_id": text, "members": listed, "chunk_index": number, "chunk_count": 0}
        [message] = messages(dispatch("GUILD_MEMBERS_CHUNK", data))
        return message

    def single(number: int) -> Outgoing:
        nonlocal user, left
        user += 1
        left -= 1
        data = member(user) | {"guild_id": text}
        event = "GUILD_MEMBER_UPDATE" if number % UPDATES == 0 else "GUILD_MEMBER_ADD"
        if number % LEAVERS == 0:
            event, data = "GUILD_MEMBER_REMOVE", {"guild_id": text, "user": data["user"]}
        [message] = messages(dispatch(event, data, number))
        return message

    if left:
        yield single(1)  # its picture is what the UNIQUE kind collides with
    if bad and total >= 200:  # noqa: PLR2004 - room for one of each
        wrong = list(bad_messages(guild, first + 10**9))
        left -= len(wrong)
        yield from wrong
        yield chunk(100, 0, spoil=1)  # one bad member does not cost its chunk
        broken = chunk(10, 1)
        yield Outgoing(broken.key, broken.value[:-5], broken.items)  # undecodable: its header's number fails
        yield Outgoing(b"", encode(dispatch("PRESENCE_UPDATE", {"guild_id": text})))  # skipped: unknown event
        left -= 1
    number = 2
    while left > 0:
        number += 1
        yield chunk(100, number) if number % CHUNKS == 0 and left >= 100 else single(number)  # noqa: PLR2004


def count_rows(guild: int) -> str:
    """Give SQL that counts the rows of a guild."""
    return f"select count(*) from {Member.__table__.name} where guild_id = {guild}"  # noqa: S608
