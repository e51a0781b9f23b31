"""The local stack, the demo on it, and the progress service."""

import socket
from typing import Annotated

import typer

from lovelace_streams.cli.shared import err, print_table, report_faults
from lovelace_streams.settings import Settings

app = typer.Typer()


@app.command()
@report_faults
def up(
    api: Annotated[
        bool,
        typer.Option("--api", help="Start the progress service too, which flows that end in `progress` report to."),
    ] = False,
) -> None:
    """Start the local servers, write their addresses to .lovelace/env, and leave them running.

    The servers are Kafka, a schema registry, Postgres and Temporal's test server.
    """
    from lovelace_streams import local

    env = local.up(api=api)
    lines = ["the servers are up (addresses: .lovelace/env); `lovelace status` shows them, `lovelace down` stops them"]
    if api:
        lines.append(
            f"the progress service: {env['PROGRESS_API_URL']} (log in with PROGRESS_API_TOKEN of .lovelace/env)"
        )
    for line in lines:
        err.print(line, style="green", highlight=False, soft_wrap=True)


@app.command()
@report_faults
def down() -> None:
    """Stop the local servers; their data and logs stay."""
    from lovelace_streams import local

    local.down()


@app.command()
@report_faults
def status() -> None:
    """Show which local servers run, with their addresses and logs."""
    from lovelace_streams import local

    rows = ((row.part, row.state, row.address, row.pid, row.log) for row in local.status())
    print_table(("part", "state", "address", "pid", "log"), rows)


@app.command()
@report_faults
def demo(
    members: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many items to submit; some of them are bad.")
    ] = 6000,
    keep_logs: Annotated[bool, typer.Option(help="Print the folder of the logs even after a success.")] = False,
) -> None:
    """Run the example flows on local servers, and check that every item is accounted for.

    A workflow submits a job and sleeps, a worker does the job, and the service signals the workflow. The last line is a
    JSON object.
    """
    from lovelace_streams.cli.demo import run

    raise typer.Exit(run(members, keep_logs=keep_logs))


@app.command()
@report_faults
def api() -> None:
    """Serve the progress service on API_HOST:API_PORT."""
    from lovelace_streams.api.__main__ import main as serve

    try:
        raise typer.Exit(serve())
    except SystemExit:  # uvicorn has logged why it can't start; a taken port is the usual reason
        settings = Settings()
        if _is_taken(settings.api_host, settings.api_port):
            err.print(
                f"another program listens on {settings.api_host}:{settings.api_port}: stop it, or set API_PORT",
                style="red",
                highlight=False,
                soft_wrap=True,
            )
        raise


def _is_taken(host: str, port: int) -> bool:
    """Whether a program accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
