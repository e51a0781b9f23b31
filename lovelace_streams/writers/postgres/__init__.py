"""Rows into Postgres: `PostgresWriter`, and what it is made of."""

from lovelace_streams.writers.postgres.writer import PostgresWriter

__all__ = ["PostgresWriter"]
