"""The database alone: the job's own rows as prebuilt COPY text, the limit that no writer can pass.

`copy` goes straight into the table, which only new rows allow; `merge` stages a block and merges it with ON CONFLICT,
as a writer must whose rows may be there already. A transaction a block, on as many connections as the writer has.
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg

from benchmarks.common import COLUMNS, TABLE, Servers, payload, speed
from dataflows import discord, discord_sample
from lovelace_streams import UNSET, RecordContext

Write = Callable[[psycopg.Connection[Any], str], None]
OLD = "2020-01-01T00:00:00+00:00"
"""The version of rows that were there before: whoever writes them again is newer."""


def lines(rows: int, number: Callable[[int], int] = lambda n: n) -> list[str]:
    """The rows of `common.messages`, each as a line of the text that COPY takes: members `number(1)`, `number(2)`, …"""
    now = datetime.now(UTC)
    made = []
    for n in range(1, rows + 1):
        raw = discord_sample.dispatch("GUILD_MEMBER_ADD", payload(number(n)))
        row = discord.Member.from_raw(raw["d"], root=raw, of=RecordContext(timestamp=now))
        made.append("\t".join(copy_text(getattr(row, name)) for name in COLUMNS) + "\n")
    return made


def cut(lines: Sequence[str], size: int) -> list[str]:
    """Lines as blocks of so many rows."""
    return ["".join(lines[at : at + size]) for at in range(0, len(lines), size)]


def copy_text(value: Any) -> str:
    """A value in COPY's text format; what is absent is NULL here."""
    if value is None or value is UNSET:
        return r"\N"
    if isinstance(value, list):
        return "{" + ",".join(map(str, value)) + "}"
    if isinstance(value, datetime):
        return value.isoformat()
    return re.sub(r"[\\\t\n\r]", lambda found: "\\" + found.group(), str(value))


def copy(connection: psycopg.Connection[Any], block: str) -> None:
    """Straight into the table."""
    _copy_into(connection, TABLE.name, block)


def merge(connection: psycopg.Connection[Any], block: str) -> None:
    """Staged, then merged: the newer row wins."""
    _copy_into(connection, "stage", block)
    columns, key = ", ".join(COLUMNS), ", ".join(TABLE.key)
    rest = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in TABLE.key)
    connection.execute(
        f"insert into {TABLE.name} ({columns}) select {columns} from stage on conflict ({key}) do update set {rest}"
        f" where {TABLE.name}.{TABLE.version} <= excluded.{TABLE.version}".encode()
    )


def _copy_into(connection: psycopg.Connection[Any], table: str, block: str) -> None:
    with connection.cursor().copy(f"copy {table} ({', '.join(COLUMNS)}) from stdin".encode()) as copying:
        copying.write(block)


def write(servers: Servers, blocks: Sequence[str], how: Write, rows: int, connections: int = 1) -> dict[str, Any]:
    """Write all blocks, a transaction each, shared out over so many connections; CPU is this process's."""
    opened = [servers.connect() for _ in range(connections)]
    for connection in opened:
        connection.execute(f"create temp table stage (like {TABLE.name}) on commit delete rows".encode())
    failed: list[BaseException] = []

    def carry(at: int) -> None:
        try:
            for block in blocks[at::connections]:
                with opened[at].transaction():
                    how(opened[at], block)
        except BaseException as error:  # noqa: BLE001 - a thread's failure is the benchmark's
            failed.append(error)

    threads = [threading.Thread(target=carry, args=(at,)) for at in range(connections)]
    began, cpu, others, wal = time.perf_counter(), time.process_time(), servers.cpu(), servers.wal()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    used = servers.cpu()["postgres"] - others["postgres"]
    wal = servers.wal() - wal
    for connection in opened:
        connection.close()
    if failed:
        raise failed[0]
    return speed(rows, seconds, cpu) | {
        "servers_cpu_us_per_row": {"postgres": round(used / rows * 1e6, 2)},
        "wal_bytes_per_row": round(wal / rows),
    }


def fill(servers: Servers, lines: Sequence[str]) -> None:
    """Put the rows there, with a version that any other is newer than."""
    with servers.connect() as connection:
        for block in cut(lines, 10_000):
            copy(connection, re.sub(r"[^\t]*\n", f"{OLD}\n", block) if COLUMNS[-1] == TABLE.version else block)
        connection.execute(f"analyze {TABLE.name}".encode())
        connection.execute("checkpoint")
