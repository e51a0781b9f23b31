"""A progress service and a members job, as the faults have them; a database to ask, and writers of it."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from lovelace_streams.rows import Row
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers.postgres import PostgresWriter
from tests.faults.conftest import job, service

__all__ = ["job", "service"]

Run = Callable[..., psycopg.Cursor[Any]]
MakeWriter = Callable[..., PostgresWriter]


@pytest.fixture
def run(database: str) -> Iterator[Run]:
    """Runs a statement in the test's database, each in a transaction of its own."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection.execute


@pytest.fixture
def writer_of(database: str) -> Iterator[MakeWriter]:
    """Makes a writer of these row classes, which is closed after the test.

    Options are those of `PostgresWriter` and of `PostgresSettings`; `dsn` is another database than the test's.
    """
    made = []

    def make(*rows: type[Row], dsn: str = database, one_by_one: bool = False, **settings: Any) -> PostgresWriter:
        writer = PostgresWriter(PostgresSettings(dsn, **settings), *rows, one_by_one=one_by_one)
        made.append(writer)
        return writer

    yield make
    for writer in made:
        writer.close()


@pytest.fixture
def open_writer(writer_of: MakeWriter) -> MakeWriter:
    """As `writer_of`, and opens it."""

    def make(*rows: type[Row], **options: Any) -> PostgresWriter:
        writer = writer_of(*rows, **options)
        writer.open()
        return writer

    return make
