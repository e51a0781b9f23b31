"""Connect to the service's database: with the settings that its statements rely on, and with the cause of a failure.

A database that is away is waited for, and said in one line a reason and a minute. What waiting does not change (login,
database, TLS, `pg_hba.conf`) ends the service once it has lasted as long as a worker's refused login.
"""

import logging
import time
from typing import Any, Self

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from lovelace_streams.api.config import ApiSettings
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.observability.outages import OutageLog
from lovelace_streams.runtime.grace import LOGIN_SECONDS, Grace
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers.postgres.connect_faults import connect_fault
from lovelace_streams.writers.postgres.session import ENCODING, pins

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 5


def reason_of(error: Exception, cause: str) -> str:
    """Say why a statement failed: why no connection can be opened, else by its code or class. Never by its text."""
    return cause or getattr(error, "sqlstate", None) or type(error).__name__


class Database:
    """The service's database: how to connect to it, and what is known of it."""

    def __init__(self, settings: ApiSettings) -> None:
        self.name = PostgresSettings(settings.dsn).name
        self.outage = OutageLog(log, "waiting for the database", database=self.name)
        self.fault: DeploymentFault | None = None
        """Why the service has to end."""
        self.cause = ""
        """Why the last connection failed, without user or password; "" if it succeeded."""
        self._dsn = settings.dsn
        self._login = Grace(LOGIN_SECONDS)
        # the pool repeats each failure, in the server's own words
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of each connection."""
        return {"autocommit": True, "row_factory": dict_row, "connect_timeout": CONNECT_SECONDS, **ENCODING}

    @property
    def connection_class(self) -> type[AsyncConnection[DictRow]]:
        """The class of the pool's connections: one that can't be opened is noted here."""
        database = self

        class NotedConnection(AsyncConnection[DictRow]):
            @classmethod
            async def connect(cls, conninfo: str = "", **parameters: Any) -> Self:
                try:
                    connection = await super().connect(conninfo, **parameters)
                except (psycopg.Error, ValueError) as error:
                    raise psycopg.OperationalError(str(database.failed(error))) from None
                database.succeeded()
                return connection

        return NotedConnection

    async def connect(self) -> AsyncConnection[DictRow]:
        """Open a connection beside the pool. Raises `psycopg.OperationalError`, whose text is ours."""
        connection = await self.connection_class.connect(self._dsn, **self.parameters)
        await self.configure(connection)
        return connection

    async def configure(self, connection: AsyncConnection[Any]) -> None:
        """Pin the settings that the statements rely on, whatever the role or the environment set."""
        await connection.execute(pins(connection.info.server_version, 0, in_transaction=False), prepare=False)

    def failed(self, error: Exception) -> Exception:
        """Note a connection that could not be opened; give its fault."""
        fault = connect_fault(error, self.name)
        self.cause = str(fault)
        if self._login.believes(fault, time.monotonic()) and isinstance(fault, DeploymentFault):
            self.fault = self.fault or fault
        self.outage.away(fault)
        return fault

    def succeeded(self) -> None:
        """Note that a connection was opened."""
        self.cause = ""
        self._login.accepted()
        self.outage.back()
