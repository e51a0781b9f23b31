"""Whose fault is it? The answer decides what happens, and it is given by codes, never by message texts (law 5).

    LovelaceError
    ├── RecordFault        the record's: dead-letter it, go on
    ├── DestinationFault   the destination's: wait, retry, dead-letter nothing
    └── DeploymentFault    the deployment's: stop with one line and exit code 78

No text here holds a record's value, a credential or a DSN's password (law 10); all of them survive pickling.
"""

from typing import ClassVar

from lovelace_streams.records import Reason

EXIT_DEPLOYMENT = 78
"""EX_CONFIG of sysexits.h: restarting does not help, somebody has to look."""


class LovelaceError(Exception):
    """Everything that this library raises on purpose."""


class RecordFault(LovelaceError):  # noqa: N818 - a fault is whose it is, an error is what is raised
    """An item that can't be what it should; leaves its step by `errs`.

    >>> print(RecordFault(Reason.WRONG_TYPE, "expected int, got str at $.user.id"))
    wrong_type: expected int, got str at $.user.id
    """

    def __init__(self, reason: Reason, detail: str = "", code: str = "") -> None:
        super().__init__(reason, detail, code)
        self.reason = reason
        self.detail = detail
        self.code = code

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


class DestinationFault(LovelaceError):  # noqa: N818
    """The other side is down, frozen, full or read-only; never a verdict about a record.

    `code` is the SQLSTATE (or the HTTP status), `"timeout"` where the client's own deadline ran out, `"08006"` for a
    lost connection. `DestinationFault.at_once` codes are tried again at once, thrice, before they count.
    """

    at_once: ClassVar[frozenset[str]] = frozenset({"40001", "40P01"})

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.detail} ({self.code})" if self.detail else self.code


class DeploymentFault(LovelaceError):  # noqa: N818
    """Wrong table, column, credential or setting: the message is one line, names both sides and the way out."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message, code)
        self.message = message
        self.code = code

    def __str__(self) -> str:
        return self.message
