"""Which flows the demo shows: those that come with something to show."""

from pathlib import Path

import pytest

import dataflows
from lovelace_streams.cli import demo
from lovelace_streams.flows.discovery import flow_names


def test_a_flow_of_ones_own_is_none_of_the_demos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "accounts.py").write_text("SOURCE = None\n", encoding="utf-8")
    monkeypatch.setattr(dataflows, "__path__", [*dataflows.__path__, str(tmp_path)])

    assert "accounts" in flow_names()
    assert demo.demonstrated_flows() == ["discord", "discord_messages"]
