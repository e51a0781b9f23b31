"""A real PgBouncer before a Postgres: Debian's, unpacked beside the system."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from lovelace_streams.local.postgres import Postgres
from lovelace_streams.local.processes import HOST, ManagedServer
from tests.debian import unpacked_file, unpacked_program

INI = """[databases]
* = host={server_host} port={server_port}
broken = host={server_host} port=1
elsewhere = host={server_host} port={server_port} dbname=no_such_database
[pgbouncer]
listen_addr = {host}
listen_port = {port}
auth_type = scram-sha-256
auth_file = {folder}/users
admin_users = postgres
pool_mode = {mode}
max_client_conn = 20
default_pool_size = 3
query_wait_timeout = 2
server_login_retry = 1
unix_socket_dir =
"""
TLS = """client_tls_sslmode = require
client_tls_cert_file = {folder}/server.crt
client_tls_key_file = {folder}/server.key
"""


class PgBouncer(ManagedServer):
    """A pooler that knows the user `postgres`; with `tls` it takes encrypted connections only."""

    name = "pgbouncer"
    ordinary_user = True

    def __init__(self, home: Path, server: Postgres, mode: str = "transaction", *, tls: bool = False) -> None:
        super().__init__(home)
        self.server = server
        self.mode = mode
        self.tls = tls

    def dsn_of(self, database: str, user: str = "postgres", password: str | None = None) -> str:
        """The DSN of a database behind it."""
        secret = self.server.dsn.split(":")[2].split("@")[0] if password is None else password
        return f"postgresql://{user}:{secret}@{self.address}/{database}"

    @property
    def certificate(self) -> Path:
        """Its own, signed by itself for `localhost`."""
        return self.data / "server.crt"

    def prepare(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        # copied to where an ordinary user may read it, with the library that Debian's own image lacks
        shutil.copy(unpacked_program("pgbouncer", "pgbouncer", "usr/sbin"), self.data)
        shutil.copy(unpacked_file("libc-ares2", "usr/lib/x86_64-linux-gnu/libcares.so.2"), self.data)
        if self.tls:
            subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
            files = ["-out", str(self.certificate), "-keyout", str(self.data / "server.key")]
            subprocess.run(
                ["openssl", "req", "-new", "-x509", "-days", "2", "-nodes", *subject, *files],
                check=True,
                capture_output=True,
            )

    def before_launch(self) -> None:
        password = self.server.dsn.split(":")[2].split("@")[0]
        (self.data / "users").write_text(f'"postgres" "{password}"\n"stranger" "known-here-only"\n')
        values: dict[str, Any] = {"host": HOST, "port": self.port, "folder": self.data, "mode": self.mode}
        server = {"server_host": HOST, "server_port": self.server.port}
        ini = (INI + (TLS if self.tls else "")).format(**values, **server)
        (self.data / "pgbouncer.ini").write_text(ini)
        for path in (self.data, *self.data.iterdir()):
            path.chmod(0o755)

    def command(self) -> list[str]:
        return [str(self.data / "pgbouncer"), str(self.data / "pgbouncer.ini")]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "LD_LIBRARY_PATH": str(self.data)}
