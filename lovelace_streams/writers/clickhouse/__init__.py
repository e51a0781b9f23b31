"""Rows into ClickHouse: `ClickHouseWriter`, and what it is made of."""

from lovelace_streams.writers.clickhouse.writer import ClickHouseWriter

__all__ = ["ClickHouseWriter"]
