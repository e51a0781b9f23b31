"""ClickHouse over HTTP as a process of the tests (clickhouse_http.py)."""

import sys
from pathlib import Path

import httpx

from lovelace_streams.local.processes import Program


class Server(Program):
    """ClickHouse over HTTP, to be stopped, frozen and started again."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, "clickhouse", [], ready=self.pings)
        self.password = "pass word"
        self.data = home / "clickhouse-data"

    def command(self) -> list[str]:
        script = Path(__file__).with_name("clickhouse_http.py")
        return [sys.executable, str(script), str(self.data), str(self.port), self.password]

    def pings(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/ping", trust_env=False, timeout=2).is_success
        except httpx.HTTPError:
            return False

    def dsn(self, password: str = "pass%20word", database: str = "default", settings: str = "") -> str:
        return f"http://default:{password}@127.0.0.1:{self.port}/{database}{settings}"
