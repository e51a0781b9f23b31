"""Faults, named for whose they are. That decides what happens, and codes decide it, never message texts (law 5).

    LovelaceError
    ├── RecordFault        the record's: dead-letter it, go on
    ├── DestinationFault   the destination's: wait, retry, dead-letter nothing
    └── DeploymentFault    the deployment's: stop with one line and exit code 78

No text of a fault holds a record's value, a credential or a DSN's password (law 10). All faults survive pickling.
The headers of dead letters name `lovelace_streams.errors.RecordFault`: neither the class nor this module moves.
"""

import re
from typing import ClassVar

from lovelace_streams.records import Reason

EXIT_DEPLOYMENT = 78
"""EX_CONFIG of sysexits.h: a restart does not help, an operator has to mend the deployment."""


FLOW = re.compile(r"(?<=`lovelace )(\w+) FLOW\b")
"""A command of ours in a text. Whoever writes the text knows no flow: `with_flow` names it where it is shown."""


def with_flow(text: str, flow: str | None) -> str:
    """Name the flow in the commands that a text recommends; leave them as they are for a flow that is not known.

    >>> with_flow("the table lacks a column: `lovelace ddl FLOW --apply` adds it", "orders")
    'the table lacks a column: `lovelace ddl orders --apply` adds it'
    """
    return text if not flow else FLOW.sub(lambda command: f"{command[1]} {flow}", text)


_ADDRESSED = re.compile(r"<(?:bound |built-in )?(?:function |method )?(.+?)(?: of [^<>]+)? at 0x[0-9a-f]+>")


def shown(thing: object) -> str:
    """Show what a flow's author passed by mistake: a function by its name, no object by its address in memory.

    >>> def total(order): ...
    >>> shown(total), shown([total]), shown(object()), shown("total"), shown(int)
    ('total', '[total]', 'object object', "'total'", "<class 'int'>")
    """
    text = repr(thing)
    while (plainer := _ADDRESSED.sub(r"\1", text)) != text:
        text = plainer
    return text


class LovelaceError(Exception):
    """The base of all exceptions that this library raises on purpose."""


class RecordFault(LovelaceError):  # noqa: N818 - the glossary's word: a fault has an owner
    """An item that can't be decoded, normalized or written; it leaves its step by `errs` and becomes a dead letter.

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


class DestinationFault(LovelaceError):  # noqa: N818 - as RecordFault
    """A destination that is down, frozen, full or read-only; never a verdict about a record.

    `code` is the SQLSTATE, ClickHouse's code or the HTTP status; `"timeout"` if the client's own deadline ran out,
    `"08006"` for a lost connection. Codes of `at_once` are retried at once, up to three times, before they count.
    `unproven`: it may as well be one record's, and there was no other row to tell.
    """

    at_once: ClassVar[frozenset[str]] = frozenset({"40001", "40P01"})

    def __init__(self, code: str, detail: str = "", *, unproven: bool = False) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.unproven = unproven

    def __str__(self) -> str:
        return f"{self.detail} ({self.code})" if self.detail else self.code


class DeploymentFault(LovelaceError):  # noqa: N818 - as RecordFault
    """A wrong table, column, credential or setting: the message is one line, names both sides and says what to do.

    `may_pass`: a server that is starting answers the same (a user that it does not know yet), so a worker believes it
    only when it has lasted (`runtime.grace`). A command believes it at once.
    """

    def __init__(self, message: str, code: str = "", *, may_pass: bool = False) -> None:
        super().__init__(message, code)
        self.message = message
        self.code = code
        self.may_pass = may_pass

    def __str__(self) -> str:
        return self.message
