"""Discord members → Postgres with Quix Streams and its own PostgreSQLSink, as its documentation advises.

Run by its own environment (requirements.txt), not by the project's. `commit_every` is what its documentation gives to
adjust how many messages are written in one go ("Performance considerations" of its custom sinks); the sink then writes
what a checkpoint holds a partition, in statements of 100 rows (psycopg2's `execute_values`), in one transaction.

- The table exists, so the sink neither alters it nor adds its own columns (`schema_auto_update`, `include_metadata`).
- Its upsert has no condition: an older row overwrites a newer one. It is allowed to do less than the others here.
- It has no dead letters: what the table refuses ends the application.
"""

import os
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from quixstreams import Application
from quixstreams.sinks.community.postgresql import PostgreSQLSink


def member(raw: dict[str, Any], _key: Any, timestamp: int, _headers: Any) -> dict[str, Any]:
    """A message's row."""
    data = raw["d"]
    user = data["user"]
    return {
        "guild_id": int(data["guild_id"]),
        "user_id": int(user["id"]),
        "username": user["username"].lower(),
        "display_name": data["nick"] or user["global_name"] or user["username"],
        "roles": "{" + ",".join(data["roles"]) + "}",
        "joined_at": data["joined_at"],
        "avatar": user["avatar"],
        "seen_at": datetime.fromtimestamp(timestamp / 1000, UTC),
    }


dsn = urlsplit(os.environ["POSTGRES_DSN"])
app = Application(
    broker_address=os.environ["KAFKA_BROKERS"],
    consumer_group=f"{os.environ['TOPIC']}-quix",
    auto_offset_reset="earliest",
    auto_create_topics=False,
    commit_every=int(os.environ["BATCH"]),
    loglevel="WARNING",
)
sink = PostgreSQLSink(
    host=dsn.hostname or "",
    port=dsn.port or 5432,
    dbname=dsn.path.lstrip("/"),
    user=dsn.username or "",
    password=dsn.password or "",
    table_name="discord_members",
    schema_auto_update=False,
    primary_key_columns=["guild_id", "user_id"],
    upsert_on_primary_key=True,
    include_metadata=False,
)
topic = app.topic(os.environ["TOPIC"])
members = app.dataframe(topic).filter(lambda raw: raw["t"] in {"GUILD_MEMBER_ADD", "GUILD_MEMBER_UPDATE"})
members.apply(member, metadata=True).sink(sink)

if __name__ == "__main__":
    app.run()
