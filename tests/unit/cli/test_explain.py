"""`lovelace explain`: what it prints for people and for programs, and what `lovelace check` notes of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from msgspec import structs
from typer.testing import CliRunner

from lovelace_streams.cli import app
from lovelace_streams.flows.discovery import dataflow
from lovelace_streams.flows.explain import note, plans_of
from lovelace_streams.settings import Settings
from lovelace_streams.sources.plan import ColumnPlan, StepPlan

Explain = Callable[..., Result]

OWN = "tests.unit.cli.own_flow"
NEEDS = "op.map('look'), a step of the flow's own, takes items"


@pytest.fixture
def explain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Explain:
    """The command in a folder without a file of settings, and without variables that forbid columns."""
    monkeypatch.chdir(tmp_path)
    for name in ("COLUMNAR", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return lambda *arguments, **variables: CliRunner().invoke(app, ["explain", *arguments], env=variables)


def test_it_says_which_way_each_step_and_event_goes(explain: Explain) -> None:
    done = explain("dataflows.discord")
    head, *rows = done.stdout.splitlines()
    cells = [row.split("\t") for row in rows]

    assert done.exit_code == 0
    assert head == "kafka: discord.members.raw: messages pass as columns, decoded and mapped in one loop"
    assert ["step", "decode", "decode", "columns", ""] in cells
    assert ["event", "GUILD_MEMBERS_CHUNK", "MemberJoined", "columns", ""] in cells
    assert [cell[3] for cell in cells if cell[0] == "write"] == [
        "COPY",
        "one statement",
        "several statements in one transaction",
    ]


def test_it_says_what_keeps_a_flow_from_columns(explain: Explain) -> None:
    head, *rows = explain(OWN).stdout.splitlines()

    assert head == f"kafka: items: messages pass as items, because {NEEDS}"
    assert f"step\tlook\top.map\titems\t{NEEDS}" in rows
    assert "event\tevery message\tItem\titems\t" in rows


def test_programs_get_one_object(explain: Explain) -> None:
    told = json.loads(explain(OWN, "--json").stdout)
    [source] = told["sources"]
    steps = {step["step"]: step for step in source["steps"]}

    assert (told["flow"], source["source"], source["topics"]) == (OWN, "kafka", ["items"])
    assert (source["way"], source["reasons"]) == ("items", [NEEDS])
    assert (steps["look"]["needs_items"], steps["look"]["way"], steps["batch"]["needs_items"]) == (NEEDS, "items", "")
    assert steps["upsert"]["writes"] == [{"way": "row by row", "when": "always, into a dict"}]
    assert source["events"] == [{"event": "", "becomes": "Item", "needs_items": "", "way": "items"}]


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"COLUMNAR": "off"}, "COLUMNAR=off"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"},
            "tracing is on, and a span is linked to each record",
        ),
        ({"COLUMNAR": "perhaps"}, ""),
    ],
)
def test_the_settings_are_those_of_a_worker(explain: Explain, variables: dict[str, str], reason: str) -> None:
    done = explain("dataflows.discord", **variables)

    if reason:
        assert f"messages pass as items, because {reason}" in done.stdout
    else:
        assert (done.exit_code, done.stderr.count("\n")) == (78, 1)
        assert "invalid settings: COLUMNAR" in done.stderr


def test_a_flow_that_is_not_there_is_told_in_one_line(explain: Explain) -> None:
    done = explain("nosuch")

    assert (done.exit_code, done.stderr.count("\n")) == (78, 1)
    assert "no dataflow 'nosuch'" in done.stderr


@pytest.mark.usefixtures("explain")
@pytest.mark.parametrize(("name", "noted"), [(OWN, [NEEDS]), ("dataflows.discord", [])])
def test_check_has_a_note_of_a_flow_that_could_be_quick(name: str, noted: list[str]) -> None:
    notes = filter(None, map(note, plans_of(dataflow(name), Settings())))

    assert list(notes) == [
        f"kafka: messages pass item by item, because {each}: `lovelace explain FLOW` says more" for each in noted
    ]


def test_check_has_none_of_a_flow_that_is_as_quick_as_it_can_be() -> None:
    plan = ColumnPlan("kafka", ("items",), (StepPlan("decode", "decode", "CsvDecoder gives items"),))

    assert (note(plan), note(structs.replace(plan, could=True))[:38]) == ("", "kafka: messages pass item by item, bec")
