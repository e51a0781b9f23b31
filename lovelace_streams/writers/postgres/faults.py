"""Whose fault an error of Postgres is, and what a dead letter says of it: tables from SQLSTATE.

Only codes decide, never texts. The one exception is connect_faults.py: libpq gives no code before it is connected.
"""

from typing import Literal

from lovelace_streams.records import Reason
from lovelace_streams.writers import Refusal
from lovelace_streams.writers.isolation import Refused

Fault = Literal["record", "destination", "deployment", "unlisted"]

FAULTS: dict[str, Fault] = {
    "09": "record",  # triggered action
    "20": "record",  # case not found, of a trigger
    "22": "record",  # data exception
    "23": "record",  # integrity constraint
    "27": "record",  # triggered data change
    "2F": "record",  # SQL routine
    "38": "record",  # external routine
    "39": "record",  # external routine invocation, trigger protocol
    "44": "record",  # WITH CHECK OPTION
    "54": "record",  # too long for an index, too many columns
    "P0": "record",  # PL/pgSQL: RAISE EXCEPTION, no or too many rows, an assertion
    "08": "destination",  # connection
    "25": "destination",  # the session's transaction is not as we left it; 25006: a standby, or a disk that filled up
    "40": "destination",  # serialization failure, deadlock
    "53": "destination",  # disk full, out of memory, too many connections
    "55006": "destination",  # object in use
    "55P03": "destination",  # lock not available
    "55P04": "destination",  # a label of an enum that is not committed yet
    "57": "destination",  # cancelled, shutdown, starting up
    "58": "destination",  # system, I/O
    "72": "destination",  # snapshot too old
    "XX": "destination",  # internal, corrupted
    "0A": "deployment",  # feature not supported
    "0L": "deployment",  # grantor
    "0P": "deployment",  # role
    "24": "deployment",  # cursor state: a pooler gives each statement another session
    "26": "deployment",  # no such prepared statement: a pooler gives each transaction another session
    "28": "deployment",  # authorization
    "2D": "deployment",  # a trigger that commits
    "34": "deployment",  # no such cursor
    "3B": "deployment",  # no such savepoint
    "3D": "deployment",  # no such database
    "3F": "deployment",  # no such schema
    "42": "deployment",  # no such table or column, no privilege; 42P05: as 26
    "55": "deployment",  # not in the state for it: published without a replica identity, a sequence not used yet
}
"""SQLSTATE, or its class, → whose fault (law 5). The longer entry wins."""

REASONS = {
    "23502": Reason.NOT_NULL,
    "23514": Reason.CHECK,
    "23505": Reason.UNIQUE,
    "23P01": Reason.UNIQUE,
    "23503": Reason.FOREIGN_KEY,
    "22003": Reason.OUT_OF_RANGE,
    "22008": Reason.OUT_OF_RANGE,
}

_POOLER = "a pooler gives each statement another session: use its transaction mode"
ADVICE = {
    "55000": "is the table published without a replica identity? ALTER TABLE … REPLICA IDENTITY",
    **dict.fromkeys(("24", "26", "34", "3B"), _POOLER),
}
"""What to do about a code of the deployment, or a class, if comparing the table with the rows does not help."""

PREPARED_ELSEWHERE = frozenset({"26000", "42P05", "0A000"})
"""Codes of a statement that was prepared in another session, or for a table that was another one."""

UNIQUE_VIOLATION = "23505"
FOREIGN_KEY_VIOLATION = "23503"
ENCODE_ERROR = "22000"
"""data_exception: the code of a value that could not even be sent."""

NUMBER_OUT_OF_RANGE = "22003"
"""numeric_value_out_of_range: the server's code of a number before the point that is too long, ours of one after it."""

DEPENDS_ON_OTHER_ROWS = frozenset({FOREIGN_KEY_VIOLATION, UNIQUE_VIOLATION, "23P01"})
"""Codes of rules that look at other rows: believed of a single row only after one more try."""
QUERYABLE = frozenset({"23502", "23514", FOREIGN_KEY_VIOLATION})
"""Codes of rules that the catalogue tells: one query finds all rows that break them."""
TOLERATED_IN_SUBTRANSACTIONS = (
    *(code for code, fault in FAULTS.items() if fault in ("record", "deployment") and code != "0A"),
    "21000",
)
"""Codes that may be one row's outcome while the rows around it are written. feature_not_supported (0A) is not among
them: it concerns our own script. 21000 is the outcome of two rows that a trigger gave one key: each alone has none."""
NO_SUBTRANSACTIONS = frozenset({"42501", "42704", "0A000"})
"""Codes of a server without PL/pgSQL, or one that does not allow us to use it."""


def fault_of(sqlstate: str) -> Fault:
    """Tell whose fault a code is.

    >>> fault_of("23505"), fault_of("25006"), fault_of("21000")
    ('record', 'destination', 'unlisted')
    """
    return FAULTS.get(sqlstate) or FAULTS.get(sqlstate[:2], "unlisted")


def reason_of(sqlstate: str) -> Reason:
    """Return the reason that a dead letter gives for a code.

    >>> reason_of("22P02"), reason_of("42501")
    (<Reason.BAD_VALUE: 'bad_value'>, <Reason.REFUSED: 'refused'>)
    """
    return REASONS.get(sqlstate) or (Reason.BAD_VALUE if sqlstate.startswith("22") else Reason.REFUSED)


def refused_by(sqlstate: str, rule: str) -> Refused:
    """Return the outcome of an attempt that this code refused; the code is not the destination's fault."""
    is_records = fault_of(sqlstate) == "record"
    reason = reason_of(sqlstate) if is_records else Reason.REFUSED
    return Refused(Refusal(reason, sqlstate, rule), again=sqlstate in DEPENDS_ON_OTHER_ROWS, suspect=not is_records)


def not_encodable(column: str, code: str = ENCODE_ERROR) -> Refusal:
    """Return the refusal of a row with a value that could not be sent, or would not be stored as it is."""
    return Refusal(reason_of(code), code, column)
