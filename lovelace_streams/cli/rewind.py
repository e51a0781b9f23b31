"""Process records again from an earlier offset."""

import json
import sys
from typing import Annotated, Any

import typer

from lovelace_streams.cli.shared import Flow, err, print_table, report_faults
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.flows.discovery import topology
from lovelace_streams.flows.topology import Topology

app = typer.Typer()


@app.command()
@report_faults
def rewind(
    flow: Flow,
    to: Annotated[
        str, typer.Option(help="A time (2026-01-31T09:00:00Z), a duration before now (-2h), an offset, or earliest.")
    ],
    partition: Annotated[int | None, typer.Option(min=0, help="Move only this partition.")] = None,
    topic: Annotated[str | None, typer.Option(help="Move only in this one of the flow's topics.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would move, and move nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Move without asking.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with all partitions.")] = False,
) -> None:
    """Move a flow back in its topics, so that it processes records again. Stop its workers first.

    Rows are written again; jobs are not counted again. A table shows from where to where each partition moves. The last
    line is a JSON object.
    """
    from lovelace_streams.admin.rewind import RewindTarget, commit, plan

    built = topology(flow)
    source, group = built.source, str(built.source.pipeline)
    try:
        target = RewindTarget.of(to)
    except ValueError as error:
        raise DeploymentFault(f"--to {error}, an offset, or earliest") from None
    moves = plan(source.settings, group, _topics(built, topic), target, partition)
    names = ("topic", "partition", "from", "to", "records", "note")
    rows = [[m.topic, m.partition, m.committed, m.to if m.moves else m.committed, m.records, m.why] for m in moves]
    if not as_json:
        print_table(names, rows)
    records = sum(move.records for move in moves)
    result: dict[str, Any] = {
        "group": group,
        "partitions": sum(move.moves for move in moves),
        "records": records,
        "rewound": False,
    }
    if records:
        _warn(built, records, {move.topic for move in moves if move.records})
    if result["partitions"] and not dry_run and _sure(yes=yes):
        commit(source.settings, group, moves)
        result["rewound"] = True
    print(json.dumps(result | ({"moves": [dict(zip(names, row, strict=True)) for row in rows]} if as_json else {})))


def _topics(built: Topology, only: str | None) -> list[str]:
    if only is None:
        return list(built.topics)
    if only not in built.topics:
        raise DeploymentFault(f"--topic {only!r}: the flow reads {', '.join(built.topics)}; choose one of those")
    return [only]


def _warn(built: Topology, records: int, topics: set[str]) -> None:
    from lovelace_streams.admin.rewind import overwritten_tables

    counted = ", and no job counts them again: the progress service has these offsets" if built.progress else ""
    lines = [f"The workers process {records} records again when they start: they write the rows again{counted}."]
    lines += [
        f"{name} has no version: older values overwrite newer ones until the workers have caught up."
        for name in overwritten_tables(built, topics)
    ]
    for line in lines:
        err.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _sure(*, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise DeploymentFault(
            "nothing was moved, because standard input is no terminal: add --yes to move, or --dry-run to look"
        )
    return typer.confirm("Move the group?", err=True)
