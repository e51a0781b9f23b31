"""Processing records again from an earlier place on."""

import json
import sys
from typing import Annotated

import typer

from lovelace_streams.cli.shared import Flow, err, faults, show
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.flows.discovery import topology
from lovelace_streams.flows.topology import Topology

app = typer.Typer()


@app.command()
@faults
def rewind(
    flow: Flow,
    to: Annotated[str, typer.Option(help="A time (2026-01-31T09:00:00Z, or -2h), an offset, or earliest.")],
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition.")] = None,
    topic: Annotated[str | None, typer.Option(help="Only this one of the flow's topics.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would move, and move nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Process records again: rows are written again, jobs are not counted again. Stop the workers first.

    A table says from where to where each partition goes; the last line is a JSON object.
    """
    from lovelace_streams.admin.rewind import RewindTarget, commit, plan

    it = topology(flow)
    source, group = it.source, str(it.source.pipeline)
    try:
        target = RewindTarget.of(to)
    except ValueError as error:
        raise DeploymentFault(f"--to {error}; or an offset, or earliest") from None
    moves = plan(source.settings, group, _topics(it, topic), target, partition)
    names = ("topic", "partition", "from", "to", "records", "note")
    show(
        names,
        ([m.topic, m.partition, m.committed, m.to if m.moves else m.committed, m.records, m.why] for m in moves),
    )
    records = sum(move.records for move in moves)
    told = {"group": group, "partitions": sum(move.moves for move in moves), "records": records, "rewound": False}
    if told["partitions"]:
        _warn(it, records)
    if told["partitions"] and not dry_run and _sure(yes=yes):
        commit(source.settings, group, moves)
        told["rewound"] = True
    print(json.dumps(told))


def _topics(it: Topology, only: str | None) -> list[str]:
    topics = list(dict.fromkeys(topic for route in it.routes for topic in route.source.topics))
    if only is None:
        return topics
    if only not in topics:
        raise DeploymentFault(f"the flow does not read {only!r}: it reads {', '.join(topics)}")
    return [only]


def _warn(it: Topology, records: int) -> None:
    counted = ", and no job counts them again: the progress service has these offsets" if it.progress else ""
    told = [f"{records} records are processed again when the workers start: rows are written again{counted}."]
    told += [
        f"{name} has no version: older values are written over newer ones until the end is reached again."
        for name in dict.fromkeys(row.__table__.name for row in it.rows if row.__table__.version is None)
    ]
    for line in told:
        err.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _sure(*, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise DeploymentFault("nothing was moved: say --yes, or --dry-run to look")
    return typer.confirm("Move them?", err=True)
