"""ClickHouse's error codes: whose fault each one is, and the reason that a dead letter gives for it (law 5).

Codes and names are the engine's own (`errorCodeToName`); tests/servers/test_clickhouse.py compares them with it. Only a
constraint's name is read from an error's text (`constraint_in`), because ClickHouse gives it nowhere else.
"""

import re
from typing import Literal

from lovelace_streams.records import Reason
from lovelace_streams.writers import Refusal

Fault = Literal["record", "destination", "deployment", "unlisted"]

FAULTS: dict[int, Fault] = {
    6: "record",  # CANNOT_PARSE_TEXT
    27: "record",  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
    38: "record",  # CANNOT_PARSE_DATE
    41: "record",  # CANNOT_PARSE_DATETIME
    53: "record",  # TYPE_MISMATCH
    69: "record",  # ARGUMENT_OUT_OF_BOUND
    70: "record",  # CANNOT_CONVERT_TYPE
    72: "record",  # CANNOT_PARSE_NUMBER
    117: "record",  # INCORRECT_DATA
    131: "record",  # TOO_LARGE_STRING_SIZE
    153: "record",  # ILLEGAL_DIVISION
    321: "record",  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    349: "record",  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    376: "record",  # CANNOT_PARSE_UUID
    395: "record",  # FUNCTION_THROW_IF_VALUE_IS_NON_ZERO
    407: "record",  # DECIMAL_OVERFLOW
    469: "record",  # VIOLATED_CONSTRAINT
    691: "record",  # UNKNOWN_ELEMENT_OF_ENUM
    3: "destination",  # UNEXPECTED_END_OF_FILE
    49: "destination",  # LOGICAL_ERROR
    74: "destination",  # CANNOT_READ_FROM_FILE_DESCRIPTOR
    75: "destination",  # CANNOT_WRITE_TO_FILE_DESCRIPTOR
    76: "destination",  # CANNOT_OPEN_FILE
    95: "destination",  # CANNOT_READ_FROM_SOCKET
    96: "destination",  # CANNOT_WRITE_TO_SOCKET
    107: "destination",  # FILE_DOESNT_EXIST
    159: "destination",  # TIMEOUT_EXCEEDED
    160: "destination",  # TOO_SLOW
    164: "destination",  # READONLY
    173: "destination",  # CANNOT_ALLOCATE_MEMORY
    198: "destination",  # DNS_ERROR
    201: "destination",  # QUOTA_EXCEEDED
    202: "destination",  # TOO_MANY_SIMULTANEOUS_QUERIES
    203: "destination",  # NO_FREE_CONNECTION
    209: "destination",  # SOCKET_TIMEOUT
    210: "destination",  # NETWORK_ERROR
    225: "destination",  # NO_ZOOKEEPER
    236: "destination",  # ABORTED
    241: "destination",  # MEMORY_LIMIT_EXCEEDED
    242: "destination",  # TABLE_IS_READ_ONLY
    243: "destination",  # NOT_ENOUGH_SPACE
    252: "destination",  # TOO_MANY_PARTS
    279: "destination",  # ALL_CONNECTION_TRIES_FAILED
    285: "destination",  # TOO_FEW_LIVE_REPLICAS
    286: "destination",  # UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
    319: "destination",  # UNKNOWN_STATUS_OF_INSERT
    341: "destination",  # UNFINISHED
    394: "destination",  # QUERY_WAS_CANCELLED
    425: "destination",  # SYSTEM_ERROR
    439: "destination",  # CANNOT_SCHEDULE_TASK
    473: "destination",  # DEADLOCK_AVOIDED
    499: "destination",  # S3_ERROR
    574: "destination",  # DISTRIBUTED_TOO_MANY_PENDING_BYTES
    667: "destination",  # NOT_INITIALIZED
    722: "destination",  # ASYNC_LOAD_WAIT_FAILED
    735: "destination",  # QUERY_WAS_CANCELLED_BY_CLIENT
    745: "destination",  # SERVER_OVERLOADED
    999: "destination",  # KEEPER_EXCEPTION
    1000: "destination",  # POCO_EXCEPTION
    1001: "destination",  # STD_EXCEPTION
    1002: "destination",  # UNKNOWN_EXCEPTION
    10: "deployment",  # NOT_FOUND_COLUMN_IN_BLOCK
    16: "deployment",  # NO_SUCH_COLUMN_IN_TABLE
    36: "deployment",  # BAD_ARGUMENTS
    44: "deployment",  # ILLEGAL_COLUMN
    46: "deployment",  # UNKNOWN_FUNCTION
    47: "deployment",  # UNKNOWN_IDENTIFIER
    48: "deployment",  # NOT_IMPLEMENTED
    50: "deployment",  # UNKNOWN_TYPE
    60: "deployment",  # UNKNOWN_TABLE
    62: "deployment",  # SYNTAX_ERROR
    81: "deployment",  # UNKNOWN_DATABASE
    115: "deployment",  # UNKNOWN_SETTING
    192: "deployment",  # UNKNOWN_USER
    193: "deployment",  # WRONG_PASSWORD
    194: "deployment",  # REQUIRED_PASSWORD
    218: "deployment",  # TABLE_IS_DROPPED
    291: "deployment",  # DATABASE_ACCESS_DENIED
    452: "deployment",  # SETTING_CONSTRAINT_VIOLATION
    497: "deployment",  # ACCESS_DENIED
    516: "deployment",  # AUTHENTICATION_FAILED
}
"""ClickHouse's error code → whose fault it is. A code that is not listed may be the deployment's or the record's."""

TYPE_MISMATCH = "53"
INCORRECT_DATA = "117"
TOO_LARGE_STRING_SIZE = "131"
VALUE_OUT_OF_RANGE = "321"
NULL_IN_ORDINARY_COLUMN = "349"
DECIMAL_OVERFLOW = "407"
VIOLATED_CONSTRAINT = "469"
UNKNOWN_ENUM_ELEMENT = "691"

BODY_TOO_LARGE = "413"
"""HTTP's status of a proxy that takes no request of this size. (The server's own 413 is no code of an insert.)"""

REASONS = {
    VIOLATED_CONSTRAINT: Reason.CHECK,
    NULL_IN_ORDINARY_COLUMN: Reason.NOT_NULL,
    "69": Reason.OUT_OF_RANGE,
    TOO_LARGE_STRING_SIZE: Reason.OUT_OF_RANGE,
    VALUE_OUT_OF_RANGE: Reason.OUT_OF_RANGE,
    DECIMAL_OVERFLOW: Reason.OUT_OF_RANGE,
    "395": Reason.REFUSED,
    BODY_TOO_LARGE: Reason.REFUSED,
}
"""Code → the reason in a dead letter, where it is neither `bad_value` (the record's) nor `refused` (all others)."""

CONNECTION_LOST, TIMEOUT = "08006", "timeout"
"""Not the server's codes: the connection was lost, or the client's deadline ran out."""
NO_CODE = "0"
"""Not the server's code: an answer in HTTP that ClickHouse did not write."""
BLOCK_LIMITS = frozenset({"252", "241", BODY_TOO_LARGE})
"""Codes that may speak of the block and not of the server: too many partitions in one insert (252, which is also too
many parts), more memory than one query may use (241, which is also more than there is), too large a request. A smaller
block tells the two apart."""
TOO_MANY_PARTS = "252"
REFUSED_STATUSES = frozenset({400, 401, 403, 404})
"""HTTP statuses that mean `NO_CODE`: a proxy refuses the request, or the host is no ClickHouse."""

_CONSTRAINT = re.compile(r"Constraint `(\w+)` for table")


class ColumnValueError(Exception):
    """A value that its column can't hold: reason, code and column, never the value (law 10)."""

    def __init__(self, reason: Reason, code: str, column: str = "") -> None:
        super().__init__(reason, code, column)
        self.reason = reason
        self.code = code
        self.column = column

    def refusal(self, column: str) -> Refusal:
        """Return the refusal of the row that holds the value."""
        return Refusal(self.reason, self.code, column)


def fault_of(code: str) -> Fault:
    """Return whose fault a code is.

    >>> fault_of("469"), fault_of("252"), fault_of("60"), fault_of("8")
    ('record', 'destination', 'deployment', 'unlisted')
    """
    if code == BODY_TOO_LARGE:
        return "record"
    return "deployment" if code == NO_CODE else FAULTS.get(int(code), "unlisted")


def reason_of(code: str) -> Reason:
    """Return the reason that a dead letter gives for a code.

    >>> reason_of("469"), reason_of("72"), reason_of("8")
    (<Reason.CHECK: 'check'>, <Reason.BAD_VALUE: 'bad_value'>, <Reason.REFUSED: 'refused'>)
    """
    return REASONS.get(code) or (Reason.BAD_VALUE if fault_of(code) == "record" else Reason.REFUSED)


def code_of(error: Exception, http_status: int) -> str:
    """Return the server's code of a driver's error, or `CONNECTION_LOST`, `TIMEOUT`, `NO_CODE` without one.

    `http_status` is the status of the connection's last answer, 0 without an answer.
    """
    from clickhouse_connect.driver.exceptions import OperationalError, ProgrammingError
    from urllib3.exceptions import TimeoutError as HttpTimeoutError

    code = getattr(error, "code", None)
    if code is not None:
        return str(code)
    if isinstance(error.__cause__, HttpTimeoutError):
        return TIMEOUT
    if http_status == int(BODY_TOO_LARGE):
        return BODY_TOO_LARGE
    if isinstance(error, OperationalError) or http_status >= 500 or http_status == 429:  # noqa: PLR2004 - HTTP's own
        return CONNECTION_LOST
    return NO_CODE if http_status in REFUSED_STATUSES or isinstance(error, ProgrammingError) else CONNECTION_LOST


def constraint_in(error: Exception, code: str, constraints: frozenset[str]) -> str:
    """Return the violated constraint that the error's text names, if the table has one of that name; else `""`.

    The text also quotes the row, so nothing else of it may reach a dead letter (law 10).
    """
    named = _CONSTRAINT.search(str(error)) if code == VIOLATED_CONSTRAINT else None
    return named[1] if named is not None and named[1] in constraints else ""
