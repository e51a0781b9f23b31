"""Check the versions of Avro schemas, and register them."""

import os
from pathlib import Path
from typing import Annotated

import typer

from lovelace_streams.admin.schemas import (
    FOLDER,
    History,
    built_flows,
    changes,
    histories,
    problems,
    register,
    topics,
    touched,
)
from lovelace_streams.cli.shared import err, print_table, report_faults
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.flows.topology import Topology
from lovelace_streams.settings import Settings

app = typer.Typer(no_args_is_help=True, help=__doc__)

Names = Annotated[list[str] | None, typer.Argument(help="Schemas as SOURCE/RECORD; without a name, all of them.")]
Folder = Annotated[Path, typer.Option(help="The folder with the schemas, as SOURCE/RECORD.avsc.")]


@app.command("check")
@report_faults
def check(names: Names = None, folder: Folder = FOLDER) -> None:
    """Check that each version reads the data of all older ones; print which columns the last change touches.

    It connects to no server. Exit code 1: a version is wrong, or a flow reads what its own schema no longer has.
    """
    flows, misfits = _flows()
    wrong = len(misfits)
    for misfit in misfits:
        err.print(misfit, style="red", markup=False, soft_wrap=True)
    for history in _named(names, folder):
        for problem in problems(history):
            wrong += 1
            err.print(problem, style="red", markup=False, soft_wrap=True)
        count = len(history.kept)
        print(f"{history.name}: {count} version{'' if count == 1 else 's'} of {history.newest.name}")
        before = history.previous
        changed = changes(before.root, history.newest.root) if before is not None else {}
        for path, what in changed.items():
            print(f"  {'.'.join(path)}: {what}")
        for name, found in flows.items():
            if columns := list(touched(history, changed, found)):
                print(f"  touches {name}: {', '.join(columns)}")
    raise typer.Exit(1 if wrong else 0)


@app.command("register")
@report_faults
def register_(
    names: Names = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(help="Register for these topics; by default for those that flows read by the schema."),
    ] = None,
    folder: Folder = FOLDER,
) -> None:
    """Register every version in the registry of SCHEMA_REGISTRY_URL, as TOPIC-value. A repetition changes nothing."""
    settings = Settings()
    rows = []
    flows, misfits = _flows()
    if misfits and not topic:
        raise DeploymentFault("; ".join(misfits))
    for history in _named(names, folder):
        if wrong := next(problems(history), None):
            raise DeploymentFault(wrong)
        for each in topic or sorted({t for found in flows.values() for t in topics(history, found)}):
            rows += [(history.name, *done) for done in register(settings, history, each)]
    if not rows:
        raise DeploymentFault("no flow reads a topic by these schemas: name the topic with --topic")
    print_table(("schema", "subject", "version", "id", ""), rows)


def _named(names: list[str] | None, folder: Path) -> list[History]:
    found = {history.name: history for history in histories(folder)}
    if unknown := [name for name in names or () if name not in found]:
        raise DeploymentFault(f"no schema {unknown[0]!r} in {folder}: choose one of {', '.join(found)}")
    return [history for name, history in found.items() if not names or name in names]


def _flows() -> tuple[dict[str, Topology], list[str]]:
    """Return the flows that can be built, and what is wrong with those that their own schemas do not fit."""
    # building connects to no server, so any registry's address will do
    os.environ.setdefault("SCHEMA_REGISTRY_URL", "http://127.0.0.1:8081")
    flows = built_flows()
    for name, fault in flows.left_out.items():
        err.print(f"{name} is left out: {fault}", markup=False, soft_wrap=True)
    return flows.built, [f"{name} does not fit its schema: {misfit}" for name, misfit in flows.misfits.items()]
