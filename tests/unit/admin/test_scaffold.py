"""A new flow's row, from the names and types of messages: every name that a message has can be read."""

import ast
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lovelace_streams as ls
from lovelace_streams.admin.scaffold.from_messages import shape_of_objects
from lovelace_streams.admin.scaffold.module import render
from lovelace_streams.admin.scaffold.shape import FlowReading, FlowShape
from lovelace_streams.testing import mapped

MESSAGE = {
    "id": 7,
    "k8s.pod.name": "pod",
    "items[0]": 5,
    "with-dash": True,
    "a.b": 1,
    "a-b": 2,
    "": 3,
    "broken\nimport os": 4,
    "a name with blanks and so long that the line is wrapped": "2024-01-01T00:00:00Z",
    "class": "x",
}
FIELDS = """
    id: int
    k8s_pod_name: Annotated[str, From(("k8s.pod.name",))]
    items_0: Annotated[int, From(("items[0]",))]
    with_dash: Annotated[bool, From("with-dash")]
    a_b: Annotated[int, From(("a.b",))]
    # a-b: a name that no Python field can have
    # : a name that no Python field can have
    broken_import_os: Annotated[int, From("broken\\nimport os")]
    a_name_with_blanks_and_so_long_that_the_line_is_wrapped: Annotated[
        datetime, From("a name with blanks and so long that the line is wrapped")
    ]
"""


def module_of(*messages: dict[str, Any]) -> str:
    shape = shape_of_objects(messages)
    assert isinstance(shape, FlowShape)
    return render("orders", "orders.raw", "orders", shape, FlowReading())


def test_names_that_no_field_can_have_are_read_by_their_path() -> None:
    text = module_of(MESSAGE)

    assert FIELDS in text
    space: dict[str, Any] = {"__name__": "made"}
    exec(compile(ast.parse(text), "made", "exec"), space)  # noqa: S102 - the module that was written
    sys.modules["made"] = type(sys)("made")
    sys.modules["made"].__dict__.update(space)
    row = mapped(space["Orders"], MESSAGE).row
    assert (row.k8s_pod_name, row.items_0, row.with_dash, row.a_b, row.broken_import_os) == ("pod", 5, True, 1, 4)
    at = row.a_name_with_blanks_and_so_long_that_the_line_is_wrapped
    assert at == datetime(2024, 1, 1, tzinfo=UTC)
    assert isinstance(row, ls.Row)


def test_the_module_is_formatted(tmp_path: Path) -> None:
    path = tmp_path / "orders.py"
    path.write_text(module_of(MESSAGE))

    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--diff", str(path)]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == ""


def test_the_key_is_a_name_of_the_message() -> None:
    shape = shape_of_objects([{"order.id": 1, "number": 2}, {"order.id": 2, "number": 2}])

    assert shape is not None
    assert shape.key == ("number",)
