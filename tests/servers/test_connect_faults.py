"""Why a connection failed, asked of real servers: Postgres, and PgBouncer before it."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.local.postgres import Postgres
from lovelace_streams.rows import Row
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers.postgres import PostgresWriter
from lovelace_streams.writers.postgres.connect_faults import UNKNOWN
from tests.servers.pgbouncer import PgBouncer

SECRET = "the-secret"


class Thing(Row, table="things", primary_key="id"):
    id: int


def fault(dsn: str) -> DestinationFault | DeploymentFault:
    """What a writer says that can't connect."""
    writer = PostgresWriter(PostgresSettings(dsn), Thing)
    with pytest.raises((DestinationFault, DeploymentFault)) as caught:
        writer.open()
    text = str(caught.value)
    assert SECRET not in text
    assert not urlsplit(dsn).password or str(urlsplit(dsn).password) not in text
    assert UNKNOWN.said not in text
    assert "table things" not in text, "it was connected"
    return caught.value


def waits(dsn: str, code: str, said: str) -> None:
    found = fault(dsn)
    assert isinstance(found, DestinationFault), found
    assert (found.code, said in str(found)) == (code, True), found


def stops(dsn: str, code: str, said: str) -> None:
    found = fault(dsn)
    assert isinstance(found, DeploymentFault), found
    assert (found.code, said in str(found), found.may_pass) == (code, True, True), found


def user(dsn: str, name: str, password: str = SECRET) -> str:
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{name}:{password}@{parts.netloc.rsplit('@', 1)[-1]}"))


def at(dsn: str, database: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{database}"))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server of this module's own, whose pg_hba.conf and roles it changes."""
    server = Postgres(tmp_path_factory.mktemp("own")).start()
    server.execute(f"create role guest login password '{SECRET}'")
    server.execute(f"create role nologin nologin password '{SECRET}'")
    yield server
    server.stop()


@pytest.fixture
def hba(own: Postgres) -> Iterator[Callable[[str], None]]:
    """Write the line of pg_hba.conf for `guest`."""
    path = own.data / "data" / "pg_hba.conf"
    before = path.read_text()

    def write(line: str) -> None:
        loaded = own.execute("select pg_conf_load_time()")
        path.write_text(f"{line}\nhost all postgres all scram-sha-256\n" if line else before)
        own.execute("select pg_reload_conf()")
        while own.execute("select pg_conf_load_time()") == loaded:
            time.sleep(0.01)

    yield write
    write("")


def fill(stack: ExitStack, dsn: str) -> None:
    """Connect until no more connections are taken."""
    with suppress(psycopg.OperationalError):
        while True:
            stack.enter_context(psycopg.connect(dsn))


# -- Postgres ----------------------------------------------------------------------------------------------------------


def test_a_login_that_postgres_refuses_stops_and_says_what_is_wrong(own: Postgres) -> None:
    stops(user(own.dsn, "postgres"), "28P01", "refuses the user or password of POSTGRES_DSN")
    stops(user(own.dsn, "nobody_here"), "28P01", "refuses the user or password of POSTGRES_DSN")
    stops(own.dsn.replace(urlsplit(own.dsn).password or "", ""), "28P01", "POSTGRES_DSN has none")
    stops(user(own.dsn, "nologin"), "28000", "does not let it log in")


def test_a_database_that_is_not_there_or_not_open_to_the_user_stops(own: Postgres) -> None:
    stops(at(own.dsn, "no_such_database"), "3D000", "no such database")
    own.execute("create database closed")
    own.execute("revoke connect on database closed from public")
    stops(user(at(own.dsn, "closed"), "guest"), "42501", "GRANT CONNECT")


def test_what_pg_hba_conf_refuses_stops(own: Postgres, hba: Callable[[str], None]) -> None:
    for line in ("", "host all guest all reject", "hostssl all guest all scram-sha-256"):
        hba(line or "local all all reject")
        stops(user(own.dsn, "guest"), "28000", "pg_hba.conf")


def test_a_service_that_knows_the_users_may_be_away(own: Postgres, hba: Callable[[str], None]) -> None:
    hba("host all guest all ident")
    waits(user(own.dsn, "guest"), "28000", "asks another service")


def test_parameters_that_postgres_does_not_take_stop_and_are_named(
    own: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops(f"{own.dsn}?options=-c%20no_such_setting%3D{SECRET}", "08P01", "the parameter no_such_setting")
    stops(f"{own.dsn}?options=-c%20statement_timeout%3D{SECRET}", "22023", "the parameter statement_timeout")
    monkeypatch.setenv("PGOPTIONS", "-c other_setting=1")
    stops(own.dsn, "08P01", "the parameter other_setting")


def test_tls_that_the_server_does_not_speak_stops(own: Postgres) -> None:
    stops(f"{own.dsn}?sslmode=require", "08004", "does not speak TLS")


def test_a_connection_string_that_can_not_be_stops(own: Postgres) -> None:
    stops(f"postgresql://u:{SECRET}@127.0.0.1:99999/x", "08004", "can't be connected to as POSTGRES_DSN says")
    stops(f"{own.dsn}?sslmode=mostly", "08004", "can't be connected to as POSTGRES_DSN says")
    stops(f"{own.dsn}?require_auth=md5", "08004", "require_auth")
    for dsn in (f"postgresql://u:{SECRET}@.a.b/x", f"postgresql://u:{SECRET}@127.0.0.1/x?no_such_option=1"):
        assert "is not a connection string" in str(fault(dsn))


def test_a_server_that_is_away_is_waited_for_and_the_cause_is_said(own: Postgres) -> None:
    waits(f"postgresql://u:{SECRET}@no-such-host.invalid/x", "08001", "its host name is not known")
    waits(f"postgresql://u:{SECRET}@127.0.0.1:1/x", "08001", "refuses connections")
    waits(f"postgresql:///x?host=/no-such-folder&password={SECRET}", "08001", "refuses connections")
    waits(f"{own.dsn}?target_session_attrs=standby", "25006", "target_session_attrs")
    own.freeze()
    try:
        waits(f"{own.dsn}?connect_timeout=2", "08001", "does not answer in time")
    finally:
        own.thaw()


@pytest.mark.parametrize("addresses", ["127.0.0.2,127.0.0.1", "127.0.0.1,127.0.0.2"])
def test_what_a_server_says_counts_before_another_address_of_its_name_where_nobody_listens(
    own: Postgres, addresses: str
) -> None:
    """`localhost` often means ::1 too, on which most servers do not listen."""
    port = urlsplit(own.dsn).port
    way = f"host=localhost,localhost hostaddr={addresses} port={port},{port} dbname=postgres"

    stops(f"{way} user=postgres password={SECRET}", "28P01", "refuses the user or password of POSTGRES_DSN")
    stops(f"{way} user=guest password={SECRET} options='-c no_such=1'", "08P01", "no_such")
    waits(f"{way.replace(str(port), '1')} user=postgres", "08001", "refuses connections")


def test_one_address_of_several_that_may_come_back_is_waited_for(own: Postgres) -> None:
    wrong = user(own.dsn, "postgres").replace("127.0.0.1:", "127.0.0.1:1,127.0.0.1:")

    waits(wrong, "08001", "refuses connections")


def test_limits_of_connections_are_waited_for(own: Postgres) -> None:
    own.execute("alter role guest connection limit 0")
    waits(user(own.dsn, "guest"), "53300", "limit of connections")
    own.execute("alter role guest connection limit -1")
    own.execute("create database narrow connection limit 0")
    waits(user(at(own.dsn, "narrow"), "guest"), "53300", "limit of connections")
    with ExitStack() as stack:
        fill(stack, user(own.dsn, "guest"))
        waits(user(own.dsn, "guest"), "53300", "limit of connections")


def test_a_server_that_starts_or_ends_is_waited_for(own: Postgres) -> None:
    codes = set()
    own.kill()
    own.launch()
    while not own.answers():  # it recovers
        writer = PostgresWriter(PostgresSettings(own.dsn), Thing)
        try:
            writer.open()
        except DestinationFault as found:
            codes.add(found.code)
        except DeploymentFault as found:  # connected: there is no such table
            codes |= set() if "table things" in str(found) else {found.code}
    assert codes <= {"08001", "57P03"}
    assert codes


def test_a_database_that_is_closed_for_a_while_is_waited_for(own: Postgres) -> None:
    own.execute("create database shut allow_connections false")
    waits(at(own.dsn, "shut"), "55000", "accepts no connections to its database now")


# -- PgBouncer ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bouncer(own: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgBouncer]:
    pooler = PgBouncer(tmp_path_factory.mktemp("pooler"), own).start()
    yield pooler
    pooler.stop()


@pytest.fixture(scope="module")
def encrypted(own: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgBouncer]:
    pooler = PgBouncer(tmp_path_factory.mktemp("encrypted"), own, tls=True).start()
    yield pooler
    pooler.stop()


def test_what_a_pooler_refuses_stops_and_says_what_is_wrong(
    bouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops(bouncer.dsn_of("postgres", password=SECRET), "28P01", "refuses the user or password")
    stops(bouncer.dsn_of("postgres", "nobody_here", SECRET), "28P01", "refuses the user or password")
    stops(f"{bouncer.dsn_of('postgres')}?options=-c%20geqo%3Doff", "08P01", "the parameter options")
    monkeypatch.setenv("PGGEQO", "off")
    stops(bouncer.dsn_of("postgres"), "08P01", "the parameter geqo")


def test_what_the_server_behind_a_pooler_refuses_stops(bouncer: PgBouncer) -> None:
    for _ in range(2):  # the pooler tells it again from its memory
        stops(bouncer.dsn_of("elsewhere"), "3D000", "no such database")
        stops(bouncer.dsn_of("postgres", "stranger", "known-here-only"), "28P01", "refuses the user or password")


def test_a_pooler_without_its_server_or_at_its_limit_is_waited_for(bouncer: PgBouncer) -> None:
    waits(f"{bouncer.dsn_of('broken')}?connect_timeout=20", "08001", "does not answer in time")
    with ExitStack() as stack:
        fill(stack, bouncer.dsn_of("postgres"))
        waits(bouncer.dsn_of("postgres"), "53300", "limit of connections")


def test_a_database_that_a_pooler_has_disabled_is_waited_for(bouncer: PgBouncer) -> None:
    with psycopg.connect(bouncer.dsn_of("postgres")):
        pass
    with psycopg.connect(bouncer.dsn_of("pgbouncer"), autocommit=True) as admin:
        admin.pgconn.exec_(b"DISABLE postgres")
        try:
            waits(bouncer.dsn_of("postgres"), "55000", "accepts no connections to its database now")
        finally:
            admin.pgconn.exec_(b"ENABLE postgres")


def test_tls_that_is_required_or_fails_stops(encrypted: PgBouncer, tmp_path: Path) -> None:
    dsn = encrypted.dsn_of("postgres")
    mine, system = encrypted.certificate, "/etc/ssl/certs/ca-certificates.crt"

    stops(f"{dsn}?sslmode=disable", "08004", "takes encrypted connections only")
    stops(f"{dsn}?sslmode=verify-full&sslrootcert={system}", "08004", "certificate that does not pass")
    stops(f"{dsn}?sslmode=verify-full&sslrootcert={tmp_path}/none", "08004", "certificate that does not pass")
    stops(f"{dsn}?sslmode=verify-full&sslrootcert={mine}", "08004", "certificate that does not pass")  # made for a name
    stops(encrypted.dsn_of("postgres", password=SECRET), "28P01", "refuses the user or password")
