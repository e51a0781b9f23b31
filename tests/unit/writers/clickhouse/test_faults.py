"""ClickHouse's codes, a line each: whose fault each one is, and its name (tests/servers asks the engine)."""

import pytest

from lovelace_streams.delivery.retry import may_be_one_rows_fault
from lovelace_streams.writers.clickhouse.faults import FAULTS, fault_of, reason_of

CODES = [
    (6, "CANNOT_PARSE_TEXT", "record"),
    (27, "CANNOT_PARSE_INPUT_ASSERTION_FAILED", "record"),
    (38, "CANNOT_PARSE_DATE", "record"),
    (41, "CANNOT_PARSE_DATETIME", "record"),
    (53, "TYPE_MISMATCH", "record"),
    (69, "ARGUMENT_OUT_OF_BOUND", "record"),
    (70, "CANNOT_CONVERT_TYPE", "record"),
    (72, "CANNOT_PARSE_NUMBER", "record"),
    (117, "INCORRECT_DATA", "record"),
    (131, "TOO_LARGE_STRING_SIZE", "record"),
    (153, "ILLEGAL_DIVISION", "record"),
    (321, "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE", "record"),
    (349, "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN", "record"),
    (376, "CANNOT_PARSE_UUID", "record"),
    (395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO", "record"),
    (407, "DECIMAL_OVERFLOW", "record"),
    (469, "VIOLATED_CONSTRAINT", "record"),
    (691, "UNKNOWN_ELEMENT_OF_ENUM", "record"),
    (3, "UNEXPECTED_END_OF_FILE", "destination"),
    (49, "LOGICAL_ERROR", "destination"),
    (74, "CANNOT_READ_FROM_FILE_DESCRIPTOR", "destination"),
    (75, "CANNOT_WRITE_TO_FILE_DESCRIPTOR", "destination"),
    (76, "CANNOT_OPEN_FILE", "destination"),
    (95, "CANNOT_READ_FROM_SOCKET", "destination"),
    (96, "CANNOT_WRITE_TO_SOCKET", "destination"),
    (107, "FILE_DOESNT_EXIST", "destination"),
    (159, "TIMEOUT_EXCEEDED", "destination"),
    (160, "TOO_SLOW", "destination"),
    (164, "READONLY", "destination"),
    (173, "CANNOT_ALLOCATE_MEMORY", "destination"),
    (198, "DNS_ERROR", "destination"),
    (201, "QUOTA_EXCEEDED", "destination"),
    (202, "TOO_MANY_SIMULTANEOUS_QUERIES", "destination"),
    (203, "NO_FREE_CONNECTION", "destination"),
    (209, "SOCKET_TIMEOUT", "destination"),
    (210, "NETWORK_ERROR", "destination"),
    (225, "NO_ZOOKEEPER", "destination"),
    (236, "ABORTED", "destination"),
    (241, "MEMORY_LIMIT_EXCEEDED", "destination"),
    (242, "TABLE_IS_READ_ONLY", "destination"),
    (243, "NOT_ENOUGH_SPACE", "destination"),
    (252, "TOO_MANY_PARTS", "destination"),
    (279, "ALL_CONNECTION_TRIES_FAILED", "destination"),
    (285, "TOO_FEW_LIVE_REPLICAS", "destination"),
    (286, "UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE", "destination"),
    (319, "UNKNOWN_STATUS_OF_INSERT", "destination"),
    (341, "UNFINISHED", "destination"),
    (394, "QUERY_WAS_CANCELLED", "destination"),
    (425, "SYSTEM_ERROR", "destination"),
    (439, "CANNOT_SCHEDULE_TASK", "destination"),
    (473, "DEADLOCK_AVOIDED", "destination"),
    (499, "S3_ERROR", "destination"),
    (574, "DISTRIBUTED_TOO_MANY_PENDING_BYTES", "destination"),
    (667, "NOT_INITIALIZED", "destination"),
    (722, "ASYNC_LOAD_WAIT_FAILED", "destination"),
    (735, "QUERY_WAS_CANCELLED_BY_CLIENT", "destination"),
    (745, "SERVER_OVERLOADED", "destination"),
    (999, "KEEPER_EXCEPTION", "destination"),
    (1000, "POCO_EXCEPTION", "destination"),
    (1001, "STD_EXCEPTION", "destination"),
    (1002, "UNKNOWN_EXCEPTION", "destination"),
    (10, "NOT_FOUND_COLUMN_IN_BLOCK", "deployment"),
    (16, "NO_SUCH_COLUMN_IN_TABLE", "deployment"),
    (36, "BAD_ARGUMENTS", "deployment"),
    (44, "ILLEGAL_COLUMN", "deployment"),
    (46, "UNKNOWN_FUNCTION", "deployment"),
    (47, "UNKNOWN_IDENTIFIER", "deployment"),
    (48, "NOT_IMPLEMENTED", "deployment"),
    (50, "UNKNOWN_TYPE", "deployment"),
    (60, "UNKNOWN_TABLE", "deployment"),
    (62, "SYNTAX_ERROR", "deployment"),
    (81, "UNKNOWN_DATABASE", "deployment"),
    (115, "UNKNOWN_SETTING", "deployment"),
    (192, "UNKNOWN_USER", "deployment"),
    (193, "WRONG_PASSWORD", "deployment"),
    (194, "REQUIRED_PASSWORD", "deployment"),
    (218, "TABLE_IS_DROPPED", "deployment"),
    (291, "DATABASE_ACCESS_DENIED", "deployment"),
    (452, "SETTING_CONSTRAINT_VIOLATION", "deployment"),
    (497, "ACCESS_DENIED", "deployment"),
    (516, "AUTHENTICATION_FAILED", "deployment"),
]


@pytest.mark.parametrize(("code", "name", "fault"), CODES)
def test_a_code_is_the_fault_of_its_owner(code: int, name: str, fault: str) -> None:
    assert fault_of(str(code)) == fault, name
    assert not may_be_one_rows_fault(str(code)) or fault == "destination"
    assert reason_of(str(code)) != "refused" or fault != "record" or name == "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"


def test_every_listed_code_has_a_line() -> None:
    assert {code for code, _, _ in CODES} == set(FAULTS)
    assert fault_of("8") == "unlisted"
    assert fault_of("0") == "deployment"
