"""The local stack, the demo on it, and the progress service."""

from typing import Annotated

import typer

from lovelace_streams.cli.shared import err, faults, show

app = typer.Typer()


@app.command()
@faults
def up() -> None:
    """Start the local stack and leave it running; writes .lovelace/env.

    Kafka, a schema registry, Postgres and Temporal's test server.
    """
    from lovelace_streams import local

    local.up()
    err.print(
        "servers are up (.lovelace/env says where); `lovelace status` shows them, `lovelace down` stops them",
        style="green",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
@faults
def down() -> None:
    """Stop the local stack; data and logs stay."""
    from lovelace_streams import local

    local.down()


@app.command()
@faults
def status() -> None:
    """What of the local stack runs, where, and where its log is."""
    from lovelace_streams import local

    rows = ((row.part, row.state, row.address, row.pid, row.log) for row in local.status())
    show(("part", "state", "address", "pid", "log"), rows)


@app.command()
@faults
def demo(
    members: Annotated[int, typer.Option(min=1, max=1_000_000, help="Items to submit, some of them bad.")] = 6000,
    keep_logs: Annotated[bool, typer.Option(help="Say where the logs are also when all went well.")] = False,
) -> None:
    """The main job on the embedded stack: submit, work, count, signal; the last line is a JSON object."""
    from lovelace_streams.cli.demo import run

    raise typer.Exit(run(members, keep_logs=keep_logs))


@app.command()
@faults
def api() -> None:
    """Serve the progress API on API_HOST:API_PORT."""
    from lovelace_streams.api.__main__ import main as serve

    raise typer.Exit(serve())
