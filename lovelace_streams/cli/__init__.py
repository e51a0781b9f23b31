"""The `lovelace` command: it checks and prepares flows, submits jobs, and handles dead letters.

One module holds one group of commands; `shared` holds what several groups need.
"""

import typer

from lovelace_streams.cli import dlq, flows, jobs, rewind, schemas, stack

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Check and prepare flows, submit jobs, handle dead letters. `lovelace COMMAND --help` explains a command.",
    pretty_exceptions_enable=False,
)
for group in (stack, flows, jobs, rewind):
    app.add_typer(group.app)
app.add_typer(dlq.app, name="dlq")
app.add_typer(schemas.app, name="schemas")


def main() -> None:
    """Run the command line."""
    app()
