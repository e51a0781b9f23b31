"""A flow and what it stands on: its table, a check of everything it needs, a new one of one's own."""

import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from lovelace_streams.cli.shared import Flow, err, faults, out, show
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.flows.discovery import topology
from lovelace_streams.settings import Settings
from lovelace_streams.writers import SupportsEvolution

app = typer.Typer()


@app.command()
@faults
def ddl(
    flow: Flow,
    diff: Annotated[
        bool, typer.Option("--diff", help="Compare with the real tables; exit code 1 if they differ.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Make missing tables, add missing columns.")] = False,
) -> None:
    """Print the CREATE TABLE of a flow's rows, or what the real tables lack; with --apply, add it.

    What can't be added (another type, another key) is named, and then nothing is changed: exit code 1.
    """
    if diff and apply:
        raise typer.BadParameter("--diff only looks: choose one of --diff and --apply")
    obstacles = differs = False
    for writer in topology(flow).writers:
        if not (diff or apply):
            print(writer.ddl())
            continue
        if not isinstance(writer, SupportsEvolution):
            raise DeploymentFault(f"{writer.name} compares no tables: `lovelace ddl {flow}` prints what makes them")
        found = writer.evolution(apply=apply)
        for statement in found.statements:
            print(statement)
        for obstacle in found.obstacles:
            err.print(obstacle, style="red", markup=False, highlight=False, soft_wrap=True)
        obstacles = obstacles or bool(found.obstacles)
        differs = differs or found.differs
    raise typer.Exit(int(obstacles if apply else differs))


@app.command()
@faults
def check(
    flow: Flow,
    sample: Annotated[
        int, typer.Option(min=0, help="How many messages to try, from the start and from the end of each partition.")
    ] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Connect to all a flow needs, compare rows with real tables, try a sample of records; writes nothing.

    Exit code 0: all is well; 1: records would fail; 78: something can't be right; 75: something is away.
    """
    from lovelace_streams.admin.check import check

    report = check(topology(flow), sample)
    if as_json:
        print(json.dumps({**msgspec.to_builtins(report), "exit": report.exit}))
        raise typer.Exit(report.exit)
    for finding in report.findings:
        style = {"away": "red", "deployment": "red", "note": "yellow"}.get(finding.state, "")
        console = err if style == "red" else out
        console.print(finding.text, style=style, markup=False, highlight=False, soft_wrap=True)
    trial = report.sample
    ends = ", ".join(f"{count} {name}" for name, count in sorted(trial.ends.items()))
    failing = sum(failure.items for failure in trial.failures)
    print(f"tried {trial.messages} messages, {trial.items} items: {ends or 'none written'}; {failing} would fail")
    names = ("reason", "step", "items", "detail", "example")
    show(names, ([f.reason, f.step, f.items, f.detail, f.example] for f in trial.failures))
    raise typer.Exit(report.exit)


@app.command()
@faults
def init(
    name: Annotated[str, typer.Argument(help="The new flow's name; dataflows/<name>.py is written.")],
    topic: Annotated[str, typer.Option(help="The topic it reads.")],
    table: Annotated[str, typer.Option(help="The table it writes; the row is taken from it where it exists.")],
) -> None:
    """Write a flow of your own for your own topic and table, without jobs: read it, run it, change it."""
    from lovelace_streams.admin.scaffold import write_flow

    path = write_flow(Settings(), name, topic, table, Path("dataflows"))
    print(f"wrote {path}; run it:  python -m bytewax.run dataflows.{name}")
