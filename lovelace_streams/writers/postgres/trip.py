"""Send statements in one network round trip, by libpq's pipeline mode itself, and read what the server answers.

psycopg's own pipeline makes a cursor a statement, and sends each as it comes: for a transaction that writes nothing the
worker and the server then use more CPU, which is most of what a small block costs.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2s
from itertools import count
from typing import Any, NamedTuple

import psycopg
from psycopg import errors, generators
from psycopg.abc import PQGen
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

REFUSED = frozenset({ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE})
INTEGERS = frozenset({20, 21, 23})
"""The oids of int8, int2 and int4."""

Prepared = set[bytes]
"""The statements that a session has prepared."""


class Query(NamedTuple):
    """A statement and its parameters, each in the place of a `%s`.

    Without parameters (None) a `%` in it is a `%`. `prepare`: the session keeps it, where sessions are ours to keep.
    """

    text: bytes
    parameters: Sequence[str] | None = None
    prepare: bool = False


class NotSent(psycopg.DataError):
    """A value that can't be encoded. It carries no text, which might quote the value."""


def trip(
    connection: psycopg.Connection[Any], queries: Sequence[Query], prepared: Prepared | None = None
) -> PQGen[list[PGresult]]:
    """Run statements in order; return the result of each. Raises the `psycopg.Error` of the first that failed.

    `prepared` are those of the session, to which it adds; None if another session may follow. As with psycopg's own
    generators, `connection.wait` runs one, `together` runs several of as many connections.
    """
    encoding = connection.info.encoding  # a function of the database may have changed it
    sent = [(_numbered(query), _encoded(query, encoding), query.prepare) for query in queries]
    results = yield from _trip(connection.pgconn, sent, prepared)
    raise_refused(connection, results)
    return results


def rows_of(result: PGresult) -> list[tuple[Any, ...]]:
    """Return the rows that a query gave: integers, and all else as text."""
    reads = [int if result.ftype(column) in INTEGERS else bytes.decode for column in range(result.nfields)]
    return [
        tuple(
            None if (value := result.get_value(row, column)) is None else read(value)
            for column, read in enumerate(reads)
        )
        for row in range(result.ntuples)
    ]


def raise_refused(connection: psycopg.Connection[Any], results: Sequence[PGresult]) -> None:
    """Raise the `psycopg.Error` of the first result that is one."""
    for result in results:
        if result.status in REFUSED:
            raise errors.error_from_result(result, encoding=connection.info.encoding)


def _trip(
    pgconn: PGconn, queries: Sequence[tuple[bytes, list[bytes] | None, bool]], prepared: Prepared | None
) -> PQGen[list[PGresult]]:
    """Return the result of each query, or of those up to one that failed because the connection is lost."""
    pgconn.enter_pipeline_mode()
    try:
        preparations: list[bytes | None] = []
        for text, parameters, prepare in queries:
            if prepared is None or not prepare:
                pgconn.send_query_params(text, parameters)
            else:
                if text not in prepared and text not in preparations:
                    pgconn.send_prepare(_name(text), text)
                    preparations.append(text)
                pgconn.send_query_prepared(_name(text), parameters)
            preparations.append(None)
        pgconn.pipeline_sync()
        yield from generators.send(pgconn)
        results: list[PGresult] = []
        for preparation in preparations:
            try:
                [result] = yield from generators.fetch_many(pgconn)
            except (psycopg.OperationalError, ValueError):
                if any(each.status in REFUSED for each in results):
                    return results  # the server said why it ends the session
                raise psycopg.OperationalError from None
            if preparation is None or result.status in REFUSED:
                results.append(result)
            elif prepared is not None and result.status == ExecStatus.COMMAND_OK:
                prepared.add(preparation)
        yield from generators.fetch_many(pgconn)  # the end of the pipeline
        return results
    finally:
        with suppress(psycopg.OperationalError):  # the connection is lost
            pgconn.exit_pipeline_mode()


def _encoded(query: Query, encoding: str) -> list[bytes] | None:
    try:
        return None if query.parameters is None else [text.encode(encoding) for text in query.parameters]
    except ValueError:
        raise NotSent from None


def _numbered(query: Query) -> bytes:
    return query.text if query.parameters is None else _with_numbers(query.text)


@lru_cache(maxsize=256)
def _with_numbers(text: bytes) -> bytes:
    """Return a statement with `$1`, `$2`, … in the place of each `%s`.

    >>> _with_numbers(b"select %s, 7 %% %s")
    b'select $1, 7 % $2'
    """
    numbers = count(1)
    return re.sub(b"%[s%]", lambda found: b"%" if found[0] == b"%%" else b"$%d" % next(numbers), text)


@lru_cache(maxsize=256)
def _name(text: bytes) -> bytes:
    """Name a prepared statement by what it says: behind a pooler the same name may be another client's."""
    return b"lovelace_" + blake2s(text, digest_size=12).hexdigest().encode()
