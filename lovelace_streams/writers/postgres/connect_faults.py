"""Why a connection to Postgres, or to a pooler before it, failed; and whether waiting may help.

The one place where texts decide (law 5): libpq gives no SQLSTATE before a connection stands, only the server's own
sentence. `CAUSES` lists the sentences of Postgres 14 to 18, libpq, psycopg and PgBouncer, each with what we say
instead: theirs name users and addresses. A sentence that is not listed, as of a server whose `lc_messages` is not
English, is waited for: an outage dead-letters nothing and stops nobody.
"""

import re

import msgspec
import psycopg

from lovelace_streams.errors import DeploymentFault, DestinationFault

NO_CONNECTION = "08001"
REJECTED = "08004"
"""The server rejects the connection: the code where the server itself would have sent none."""


class Cause(msgspec.Struct, frozen=True):
    """One cause of failed connections."""

    code: str
    """The SQLSTATE that the server sends with it, else one of class 08."""
    said: str
    """What is wrong, after the destination's name."""
    remedy: str
    waits: bool
    """Whether it may pass by itself. Else it is the deployment's fault, once it has lasted longer than a start."""
    text: re.Pattern[str]
    """In a line of the error's text; its group `name` is a parameter's name, which may be shown."""


def _cause(code: str, said: str, remedy: str, text: str, *, waits: bool) -> Cause:
    return Cause(code, said, remedy, waits, re.compile(text, re.IGNORECASE))


def _waits(code: str, said: str, remedy: str, text: str) -> Cause:
    return _cause(code, said, remedy, text, waits=True)


def _stops(code: str, said: str, remedy: str, text: str) -> Cause:
    return _cause(code, said, remedy, text, waits=False)


_PARAMETER = r'"?(?P<name>[a-z_][a-z0-9_.]*)"?'

CAUSES = (
    _waits(
        NO_CONNECTION, "can't be found: its host name is not known", "correct the name, or mend the name service",
        r"failed to resolve host|could not translate (host name|Unix-domain socket path)",
    ),
    _waits(
        NO_CONNECTION, "refuses connections", "start it, or correct its address",
        r"Connection refused|failed: No such file or directory",
    ),
    _waits(
        NO_CONNECTION, "does not answer in time", "start it, or correct its address",
        r"timeout expired|Connection timed out|query_wait_timeout|client_login_timeout",
    ),
    _waits(
        NO_CONNECTION, "can't be reached: the network gives it up", "mend the way to it, or correct its address",
        r"No route to host|(Network|Host) is unreachable|Connection reset|closed the connection unexpectedly"
        r"|could not (receive|send) data|SSL SYSCALL error|unexpected eof while reading",
    ),
    _waits(
        "53300", "is at its limit of connections", "raise the limit, or connect fewer clients",
        r"too many clients already|remaining connection slots are reserved|too many connections for (role|database)"
        r"|no more connections allowed|client connections exceeded|max_client_conn|number of requested standby",
    ),
    _waits(
        "57P03", "is starting", "wait until it has started",
        r"database system is (starting up|in recovery mode|not (yet )?accepting connections)",
    ),
    _waits(
        "57P03", "is shutting down", "start it again",
        r"database system is shutting down|terminating connection due to administrator command|server is shutting down",
    ),
    _waits(
        "25006", "is not the kind of server that target_session_attrs of POSTGRES_DSN asks for",
        "wait for the fail-over, or correct it",
        r"session is (not )?read-only|server is (not )?in hot standby mode",
    ),
    _waits(
        "55000", "accepts no connections to its database now",
        "ALTER DATABASE … ALLOW_CONNECTIONS, or enable it in the pooler",
        r'database ".*" is (not currently accepting connections|disabled)',
    ),
    _waits(
        "28000", "asks another service who its users are, which refuses the user of POSTGRES_DSN or is away",
        "start that service (LDAP, PAM, RADIUS, GSSAPI, ident), or correct the user and password",
        r"(LDAP|PAM|RADIUS|GSSAPI|SSPI|Ident|OAuth bearer) authentication failed",
    ),
    _stops(
        "28P01", "wants a password, and POSTGRES_DSN has none", "write it there, or in PGPASSWORD",
        r"no password supplied",
    ),
    _stops(
        "28P01", "refuses the user or password of POSTGRES_DSN", "correct them",
        r"authentication failed|no such user|login rejected|socket login rejected|auth failed",
    ),
    _stops(
        "28000", "does not know the user of POSTGRES_DSN, or does not let it log in", "CREATE ROLE … LOGIN",
        r'role ".*" (does not exist|is not permitted to log in)',
    ),
    _stops(
        "28000", "lets no such connection in: pg_hba.conf has no line for this user, database and address",
        "add a line there, and reload it",
        r"pg_hba\.conf (entry|rejects)",
    ),
    _stops(
        "3D000", "has no such database as POSTGRES_DSN names", "create it, or correct the name",
        r'database ".*" does not exist|no such database',
    ),
    _stops(
        "42501", "does not let the user of POSTGRES_DSN connect to its database", "GRANT CONNECT ON DATABASE",
        r"permission denied for database",
    ),
    _stops(
        REJECTED, "takes encrypted connections only", "add sslmode=require, or stronger, to POSTGRES_DSN",
        r"SSL required|server requires (SSL|encryption)",
    ),
    _stops(
        REJECTED, "does not speak TLS, and POSTGRES_DSN asks for it", "set up TLS there, or correct sslmode",
        r"does not support SSL|doesn't support GSSAPI encryption|GSSAPI encryption required",
    ),
    _stops(
        REJECTED, "shows a certificate that does not pass",
        "correct sslrootcert and the host name in POSTGRES_DSN, or the certificate",
        r"certificate verify failed|server certificate for .* does not match|root certificate file .* does not exist"
        r"|(could not read|could not load) .*root certificate|did not offer.* certificate",
    ),
    _stops(
        REJECTED, "fails to agree with us on TLS",
        "correct sslcert, sslkey and the other ssl… parameters of POSTGRES_DSN",
        r"requires a valid client certificate|could not (load|read|open) (certificate|private key) file"
        r"|private key file .* (has group|must be|does not)|certificate present, but not private key"
        r"|alert (handshake failure|unknown ca|bad certificate|certificate|protocol version|no certificate)"
        r"|wrong version number|no protocols available|no shared cipher|SSL certificate",
    ),
    _stops(
        REJECTED, "logs users in otherwise than POSTGRES_DSN asks for", "correct require_auth and channel_binding",
        r"authentication method requirement|channel binding (is )?required|none of the server's SASL",
    ),
    _stops(
        "08P01", "does not take the parameter {name} of POSTGRES_DSN, PGOPTIONS or another PG… variable",
        "take it out; PgBouncer takes those that its ignore_startup_parameters lists",
        rf"(startup parameter:|unrecognized configuration parameter|denied to set parameter) {_PARAMETER}",
    ),
    _stops(
        "22023", "does not take the value of the parameter {name} in POSTGRES_DSN, PGOPTIONS or another PG… variable",
        "correct it",
        rf"invalid value for parameter {_PARAMETER}",
    ),
    _stops(
        REJECTED, "can't be connected to as POSTGRES_DSN says", "correct it: postgresql://user:password@host/database",
        r"invalid port number|invalid integer value|invalid \S+ value|definition of service|not supported by this build"
        r"|invalid connection option|unsupported frontend protocol|invalid when SSL support",
    ),
    # last: the pooler's sentence holds the server's, if it has one
    _waits(
        NO_CONNECTION, "is a pooler without a way to its server", "start the server, or correct the pooler",
        r"server login (has been failing|failed)|server conn crashed|cannot connect|connect failed|server_login_retry"
        r"|bouncer (config error|resources exhaustion)|pgbouncer",
    ),
)  # fmt: skip
"""In each line of an error's text the first that matches counts."""

UNKNOWN = Cause(
    NO_CONNECTION,
    "can't be connected to, for a reason that we don't know",
    "see its own log, and correct POSTGRES_DSN",
    True,
    re.compile(""),
)


def cause_of(error: psycopg.Error) -> tuple[Cause, str]:
    """Return the cause of a failed connection, and the name of the parameter that it is about, or "".

    A text has lines for each address that was tried, and for each way (with TLS, without). Of the servers that a DSN
    names, one that may come back counts first, so that a standby's refusal does not stop a worker whose primary is
    starting. Of the addresses of one name, what a server says counts before one where nobody listens: `localhost`
    means ::1 too.
    """
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return _of_line("timeout expired") or (UNKNOWN, "")
    if error.pgconn is not None and error.pgconn.needs_password:
        return _of_line("no password supplied") or (UNKNOWN, "")
    found = [cause for lines in _by_server(str(error)) if (cause := _of_server(lines)) is not None]
    if not found:
        return UNKNOWN, ""
    return next((each for each in found if each[0].waits), found[0])


_ATTEMPT = re.compile(r"- (host: .*, port: .*), hostaddr: ")
"""Begins what psycopg says of one address, if it has tried several."""


def _by_server(text: str) -> list[list[str]]:
    """Split an error's text into the lines of each host and port, whatever the number of their addresses."""
    servers: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if attempt := _ATTEMPT.match(line):
            lines = servers.setdefault(attempt[1], [])
        lines.append(line)
    return list(servers.values()) or [lines]


def _of_server(lines: list[str]) -> tuple[Cause, str] | None:
    found = [cause for line in lines if (cause := _of_line(line)) is not None]
    answers = [each for each in found if each[0].code != NO_CONNECTION] or found
    return next((each for each in answers if each[0].waits), next(iter(answers), None))


def _of_line(line: str) -> tuple[Cause, str] | None:
    for cause in CAUSES:
        if match := cause.text.search(line):
            return cause, match.groupdict().get("name") or ""
    return None


def connect_fault(error: Exception, name: str) -> DestinationFault | DeploymentFault:
    """Turn what a failed connection raised into a fault; `name` is the destination's, without credentials.

    >>> connect_fault(psycopg.OperationalError("FATAL:  the database system is starting up"), "postgresql://db/app")
    DestinationFault('57P03', 'postgresql://db/app (POSTGRES_DSN) is starting: wait until it has started')

    A `DeploymentFault` may still pass (`may_pass`): a server that is being set up does not know its users yet.
    """
    if not isinstance(error, psycopg.OperationalError):  # also a host name that can't be one, or a codec
        return DeploymentFault(
            f"POSTGRES_DSN is not a connection string ({name}): write postgresql://user:password@host/database"
        )
    cause, parameter = cause_of(error)
    text = f"{name} (POSTGRES_DSN) {cause.said.format(name=parameter)}: {cause.remedy}"
    if cause.waits:
        return DestinationFault(cause.code, text)
    return DeploymentFault(f"{text} (SQLSTATE {cause.code})", cause.code, may_pass=True)
