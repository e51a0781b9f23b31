"""The members job from a real broker to real Postgres, beside the database's own limit, in one run.

    make bench ARGS="members --rows 300000"

*job*: one worker as in production, with dead letters, the ledger (a real progress service) and commits on; from the
first read to the job's completion as the service dates it. Messages hold one member each.
*database*: the same rows as prebuilt COPY text and nothing else, in blocks as large as the writer's: straight into the
table, which only new rows allow, and staged and merged with ON CONFLICT.

*New* rows go into an empty table. *Existing* rows are a second full picture: each is there already, with an older
version, so each is updated. Runs alternate, so that whatever else the machine does hits all alike.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import database
from benchmarks.common import (
    BLOCK,
    GUILD,
    SETTINGS,
    TABLE,
    Servers,
    alternate,
    arguments,
    count_rows,
    fresh_topic,
    make_table,
    messages,
    say,
    servers,
    submit,
    summary,
    work,
)

PAIRS = [
    (f"job, {name}, {rows} rows", f"database, {how} {size}, {rows} rows")
    for name, size in BLOCK.items()
    for rows, how in (("new", "copy"), ("new", "merge"), ("existing", "merge"))
]


class Bench:
    """What is measured, on one set of servers."""

    def __init__(self, servers: Servers, rows: int) -> None:
        say(f"preparing {rows} rows")
        self.servers = servers
        self.rows = rows
        self.messages = list(messages(rows))
        self.lines = database.lines(rows)

    def measurements(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """By name, in the order of a run."""
        made: dict[str, Callable[[], dict[str, Any]]] = {}
        for name, size in BLOCK.items():
            made[f"job, {name}, new rows"] = partial(self.job, name)
            made[f"database, copy {size}, new rows"] = partial(self.database, name, database.copy)
            made[f"database, merge {size}, new rows"] = partial(self.database, name, database.merge)
            made[f"job, {name}, existing rows"] = partial(self.job, name, existing=True)
            made[f"database, merge {size}, existing rows"] = partial(self.database, name, database.merge, existing=True)
        return made

    def job(self, name: str, *, existing: bool = False) -> dict[str, Any]:
        """Submit all of it, then start a worker and wait until the service says that the job is complete."""
        self.prepare(existing=existing)
        with fresh_topic(self.servers.settings) as topic:
            job = submit(self.servers, topic, self.messages, self.rows)
            result = work(self.servers, topic, job, self.rows, SETTINGS[name])
        self.check()
        return result

    def database(self, name: str, how: database.Write, *, existing: bool = False) -> dict[str, Any]:
        """The same rows as blocks, on as many connections, and nothing else."""
        blocks = database.cut(self.lines, BLOCK[name])
        connections = int(SETTINGS[name].get("POSTGRES_POOL", "1"))
        self.prepare(existing=existing)
        result = database.write(self.servers, blocks, how, self.rows, connections)
        self.check()
        return result

    def prepare(self, *, existing: bool) -> None:
        """An empty table, or one with an older version of each row."""
        make_table(self.servers)
        if existing:
            database.fill(self.servers, self.lines)

    def check(self) -> None:
        """No row may be missing or old, or the number means nothing."""
        count = count_rows(self.servers, f"guild_id = {GUILD} and {TABLE.version} > '{database.OLD}'")
        if count != self.rows:
            sys.exit(f"{count} of {self.rows} rows are in the table")


def main() -> int:
    """Run it; prints its JSON lines."""
    options = arguments("members", __doc__, rows=100_000, runs=3).parse_args()
    with servers() as started:
        bench = Bench(started, options.rows)
        results = alternate("members", bench.measurements(), options.runs, options.minutes)
    sizes = {
        "message_bytes": round(sum(len(message.value) for message in bench.messages) / options.rows),
        "row_bytes": round(sum(map(len, bench.lines)) / options.rows),
    }
    print(json.dumps(summary("members", results, PAIRS, rows=options.rows, settings=SETTINGS, **sizes)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
