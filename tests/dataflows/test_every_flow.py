"""Every dataflow of the repository runs from one end to the other without a server."""

import importlib
from pathlib import Path

import pytest

from lovelace_streams.testing import run

FLOWS = sorted(
    path.stem
    for path in (Path(__file__).parents[2] / "dataflows").glob("*.py")
    if "def flow(" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", FLOWS)
def test_it_accounts_for_what_is_no_message_of_its_own(name: str) -> None:
    result = run(importlib.import_module(f"dataflows.{name}").flow, [None, b"\xff\xfe"])

    assert result.outcomes == {"skipped": 1, "dead_lettered": 1}
    assert list(result.committed.values()) == [2]
