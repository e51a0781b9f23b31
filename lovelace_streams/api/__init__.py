"""The progress service: an exact, idempotent ledger of settled offsets, and one signal when all items of a job are in.

app ─▶ models (requests and answers) ─▶ ledger (what they mean) ─▶ store, queries.sql (how Postgres does it)
 └──▶ auth (tokens), signals (the outbox's sender), events (streams of states), gauges (metrics), page (for people)
"""

from lovelace_streams.api.app import create_app
from lovelace_streams.api.config import ApiSettings

__all__ = ["ApiSettings", "create_app"]
