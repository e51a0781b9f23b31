"""Commands about one flow: its tables, a check of everything it needs, a new flow."""

import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from lovelace_streams.cli.shared import Flow, err, out, print_table, report_faults
from lovelace_streams.errors import DeploymentFault, with_flow
from lovelace_streams.flows.discovery import dataflow, topology
from lovelace_streams.flows.explain import HEAD, headline, plans_of, table, told
from lovelace_streams.settings import Settings
from lovelace_streams.writers import SupportsEvolution

app = typer.Typer()


@app.command()
@report_faults
def ddl(
    flow: Flow,
    diff: Annotated[
        bool, typer.Option("--diff", help="Print what the real tables lack; exit code 1 if they differ.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Create missing tables, and add missing columns.")] = False,
) -> None:
    """Print the CREATE TABLE statements of a flow; compare or change the real tables.

    If a difference needs more than an addition (another type, another key), --apply names it, changes nothing, and ends
    with exit code 1.
    """
    if diff and apply:
        raise typer.BadParameter("--diff changes nothing: choose one of --diff and --apply")
    obstacles = differs = False
    for writer in topology(flow).writers:
        if not (diff or apply):
            print(writer.ddl())
            continue
        if not isinstance(writer, SupportsEvolution):
            raise DeploymentFault(
                f"{writer.name}: --diff and --apply are for Postgres; run what `lovelace ddl {flow}` prints"
            )
        found = writer.evolution(apply=apply)
        for statement in found.statements:
            print(statement)
        for obstacle in found.obstacles:
            err.print(obstacle, style="red", markup=False, highlight=False, soft_wrap=True)
        obstacles = obstacles or bool(found.obstacles)
        differs = differs or found.differs
    raise typer.Exit(int(obstacles if apply else differs))


@app.command()
@report_faults
def check(
    flow: Flow,
    sample: Annotated[
        int, typer.Option(min=0, help="Try this many messages from the start and from the end of each partition.")
    ] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a flow before it runs: its servers, topics and tables, and a sample of records. It writes nothing.

    Exit code 0: the flow would run; 1: records would fail; 75: a server does not answer; 78: a table, topic, right or
    setting is wrong.
    """
    from lovelace_streams.admin.check import check
    from lovelace_streams.admin.check.report import Finding

    report = check(topology(flow), sample)
    report.findings = [Finding(finding.state, with_flow(finding.text, flow)) for finding in report.findings]
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
    print_table(names, ([f.reason, f.step, f.items, f.detail, f.example] for f in trial.failures), head=False)
    raise typer.Exit(report.exit)


@app.command()
@report_faults
def explain(
    flow: Flow,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say which way a flow's messages go, and why: many at once, as columns, or item by item. It connects to nothing.

    For each source: its steps, the events of its messages with the rows that they become, and how the writer writes.
    docs/fast-flows.md tells what makes a flow fast.
    """
    plans = plans_of(dataflow(flow), Settings())
    if as_json:
        print(json.dumps({"flow": flow, "sources": [told(plan) for plan in plans]}))
        return
    for plan in plans:
        out.print(headline(plan), markup=False, highlight=False, soft_wrap=True)
        print_table(HEAD, table(plan), head=False)


@app.command()
@report_faults
def init(
    name: Annotated[str, typer.Argument(help="The new flow's name; its file is dataflows/NAME.py.")],
    topic: Annotated[str, typer.Option(help="The topic that the flow reads.")],
    table: Annotated[str, typer.Option(help="The table that the flow writes; its columns become the row's fields.")],
    new: Annotated[
        bool,
        typer.Option("--new", help="The topic or the table does not exist yet: take the row from what there is."),
    ] = False,
    schema: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.avsc",
            help="A schema that wrote the messages, if they are Avro and name no registry; repeat it for each version.",
        ),
    ] = None,
) -> None:
    """Write a new flow for a topic and a table, as a file of yours to read, run and change.

    The newest messages say how the topic is decoded: JSON, or Avro of a schema registry (SCHEMA_REGISTRY_URL) or of
    --schema. Several kinds of messages in one topic are named.
    """
    from lovelace_streams.admin.scaffold import write_flow

    path = write_flow(
        Settings(),
        name,
        topic,
        table,
        Path("dataflows"),
        schemas=schema or (),
        is_new=new,
        note=lambda line: err.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True),
    )
    print(f"wrote {path}; run it:  python -m bytewax.run dataflows.{name}")
