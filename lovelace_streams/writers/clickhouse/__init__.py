"""Rows into ClickHouse: `ClickHouseWriter` and its parts."""

from lovelace_streams.writers.clickhouse.writer import ClickHouseWriter

__all__ = ["ClickHouseWriter"]
