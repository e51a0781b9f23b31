"""The progress service: an exact, idempotent ledger of what is settled, and the one signal when a job is all in.

app ─▶ models (what is asked) ─▶ ledger (what it means) ─▶ store, queries.sql (how Postgres does it)
 └──▶ signals (the outbox's sender), events (who is told as it happens), gauges, page (what people see)
"""

from lovelace_streams.api.app import create_app
from lovelace_streams.api.config import ApiSettings

__all__ = ["ApiSettings", "create_app"]
