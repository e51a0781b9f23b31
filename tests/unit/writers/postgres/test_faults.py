"""Whose fault a SQLSTATE is: the table of the writer, a line each."""

import pytest

from lovelace_streams.records import Reason
from lovelace_streams.writers.postgres.faults import fault_of, reason_of


@pytest.mark.parametrize(
    ("sqlstate", "fault"),
    [
        ("22001", "record"),  # string too long
        ("22003", "record"),  # number out of range
        ("22P02", "record"),  # not an enum's label
        ("23502", "record"),
        ("23503", "record"),
        ("23505", "record"),
        ("23514", "record"),  # also: no partition for the row
        ("23P01", "record"),
        ("38000", "record"),
        ("39P01", "record"),  # a trigger broke its protocol
        ("44000", "record"),
        ("54000", "record"),  # too long for an index
        ("P0001", "record"),  # RAISE EXCEPTION
        ("P0002", "record"),  # of a trigger: no row, too many rows, an assertion
        ("P0004", "record"),
        ("09000", "record"),  # a triggered action
        ("20000", "record"),  # a CASE without a branch
        ("27000", "record"),  # a trigger changed the row before us
        ("2F005", "record"),  # a function that returned nothing
        ("08006", "destination"),
        ("40001", "destination"),
        ("40P01", "destination"),
        ("53100", "destination"),  # disk full
        ("53300", "destination"),  # too many connections
        ("55P03", "destination"),  # lock timeout
        ("57014", "destination"),  # statement timeout
        ("57P01", "destination"),  # shut down by the administrator
        ("57P03", "destination"),  # starting up
        ("58030", "destination"),  # I/O
        ("25006", "destination"),  # read-only
        ("XX000", "destination"),
        ("XX002", "destination"),  # index corrupted
        ("0A000", "deployment"),
        ("28P01", "deployment"),  # wrong password
        ("3D000", "deployment"),
        ("3F000", "deployment"),
        ("42501", "deployment"),  # no privilege; RLS for some rows is judged by their neighbours
        ("42703", "deployment"),
        ("42P01", "deployment"),
        ("25001", "destination"),  # the session is not as we left it
        ("25P02", "destination"),
        ("25P03", "destination"),
        ("55006", "destination"),  # in use
        ("55P04", "destination"),  # a label that is not committed yet
        ("72000", "destination"),
        ("55000", "deployment"),  # no replica identity
        ("55P02", "deployment"),
        ("26000", "deployment"),  # no such prepared statement
        ("42P05", "deployment"),  # it is there already
        ("34000", "deployment"),
        ("3B001", "deployment"),
        ("2D000", "deployment"),  # a trigger that commits
        ("0P000", "deployment"),
        ("21000", "unlisted"),  # two rows that a trigger gives one key
        ("HV000", "unlisted"),  # of another server behind a foreign table: a probe tells
        ("MY001", "unlisted"),
        ("02000", "unlisted"),
    ],
)
def test_whose_fault(sqlstate, fault):
    assert fault_of(sqlstate) == fault


@pytest.mark.parametrize(
    ("sqlstate", "reason"),
    [
        ("23502", Reason.NOT_NULL),
        ("23514", Reason.CHECK),
        ("23505", Reason.UNIQUE),
        ("23P01", Reason.UNIQUE),
        ("23503", Reason.FOREIGN_KEY),
        ("22003", Reason.OUT_OF_RANGE),
        ("22008", Reason.OUT_OF_RANGE),
        ("22001", Reason.BAD_VALUE),
        ("22P05", Reason.BAD_VALUE),
        ("P0001", Reason.REFUSED),
        ("54000", Reason.REFUSED),
        ("42501", Reason.REFUSED),
    ],
)
def test_reason(sqlstate, reason):
    assert reason_of(sqlstate) == reason
