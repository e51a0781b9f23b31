"""The progress service and its database: why it can't connect, and when it ends."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import httpx
import psycopg
import pytest

from lovelace_streams.api.config import ApiSettings
from lovelace_streams.api.connecting import Database
from lovelace_streams.errors import EXIT_DEPLOYMENT
from lovelace_streams.local.processes import free_port
from lovelace_streams.runtime.grace import Grace
from tests.faults.harness import DEADLINE, ROOT, eventually

SECRET = "the-secret"


def wrong(dsn: str) -> str:
    return f"postgresql://postgres:{SECRET}@{dsn.partition('@')[2]}"


class Process:
    """`python -m lovelace_streams.api` with a database that does not let it in."""

    def __init__(self, dsn: str, log: Path) -> None:
        self.log = log
        self.port = free_port()
        settings = {"POSTGRES_DSN": dsn, "PROGRESS_API_TOKEN": "t", "API_PORT": str(self.port), "TEMPORAL_ADDRESS": ""}
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lovelace_streams.api"],
                cwd=ROOT,
                env={**os.environ, **settings},
                stdout=file,
                stderr=file,
            )

    def readiness(self) -> str:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz", trust_env=False, timeout=5).text
        except httpx.HTTPError:
            return ""


@pytest.mark.slow
def test_a_database_that_refuses_the_service_ends_it_with_one_line(database: str, tmp_path: Path) -> None:
    service = Process(wrong(database), tmp_path / "api.log")

    eventually(lambda: "refuses the user or password" in service.readiness())
    assert service.process.wait(DEADLINE) == EXIT_DEPLOYMENT

    text = service.log.read_text()
    assert "refuses the user or password of POSTGRES_DSN" in text.strip().splitlines()[-1]
    assert SECRET not in text
    assert "Traceback" not in text
    assert text.count("waiting for the database") <= 2, "a line for each try"


def test_a_database_that_is_away_is_waited_for_and_readiness_says_why(tmp_path: Path) -> None:
    service = Process(f"postgresql://postgres:{SECRET}@127.0.0.1:1/x", tmp_path / "api.log")
    try:
        eventually(lambda: "refuses connections: start it" in service.readiness())
        assert SECRET not in service.readiness() + service.log.read_text()
        assert service.process.poll() is None
    finally:
        service.process.kill()
        service.process.wait()


def test_a_refusal_is_believed_when_it_has_lasted_and_forgotten_when_it_passes(database: str) -> None:
    async def scenario() -> None:
        refused = Database(ApiSettings(dsn=wrong(database), token="t"))
        with pytest.raises(psycopg.OperationalError, match="refuses the user or password"):
            await refused.connect()
        assert refused.fault is None
        refused._login = Grace(0.0)
        with pytest.raises(psycopg.OperationalError):
            await refused.connect()
        assert refused.fault is not None

        refused._dsn, refused.fault = database, None
        await (await refused.connect()).close()
        assert (refused.cause, refused.fault) == ("", None)

    asyncio.run(scenario())


def test_no_setting_of_role_or_environment_reaches_the_services_statements(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c array_nulls=off -c datestyle=German -c timezone=Asia/Tokyo")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")

    async def scenario() -> list[str]:
        connection = await Database(ApiSettings(dsn=database, token="t")).connect()
        names = ("array_nulls", "datestyle", "timezone", "client_encoding")
        found = [await (await connection.execute(f"show {name}")).fetchone() for name in names]
        await connection.close()
        return [value for row in found for value in (row or {}).values()]

    assert asyncio.run(scenario()) == ["on", "ISO, MDY", "UTC", "UTF8"]
