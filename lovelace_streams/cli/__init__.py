"""The `lovelace` command: the local stack, jobs, dead letters, tables. `lovelace COMMAND --help` says more.

A module a group of commands; `shared` holds what several of them need.
"""

import typer

from lovelace_streams.cli import dlq, flows, jobs, rewind, schemas, stack

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="The local stack, jobs, dead letters, tables. `lovelace COMMAND --help` says more.",
    pretty_exceptions_enable=False,
)
for group in (stack, flows, jobs, rewind):
    app.add_typer(group.app)
app.add_typer(dlq.app, name="dlq")
app.add_typer(schemas.app, name="schemas")


def main() -> None:
    """Run the command line."""
    app()
