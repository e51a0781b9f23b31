"""A flow and what it stands on: its table, a check of everything it needs, a new one of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from lovelace_streams.cli.shared import Flow, faults, source_of
from lovelace_streams.settings import Settings

app = typer.Typer()


@app.command()
@faults
def ddl(flow: Flow) -> None:
    """Print the CREATE TABLE of a flow's rows."""
    from lovelace_streams.ddl import create_table

    print(create_table(*source_of(flow).rows))


@app.command()
@faults
def check(flow: Flow) -> None:
    """Connect to what a flow needs, compare its rows with the real table; writes nothing."""
    from lovelace_streams.submit import check_topic
    from lovelace_streams.writers.postgres import PostgresWriter

    source, settings = source_of(flow), Settings()
    writer = PostgresWriter(settings.postgres, *source.rows)
    try:
        writer.open()
    finally:
        writer.close()
    print(f"{writer.name}: the table is as {', '.join(row.__name__ for row in source.rows)} say")
    partitions = check_topic(settings.kafka, source.topic)
    print(f"{settings.kafka_brokers}: topic {source.topic} with {partitions} partitions")


@app.command()
@faults
def init(
    name: Annotated[str, typer.Argument(help="The new flow's name; dataflows/<name>.py is written.")],
    topic: Annotated[str, typer.Option(help="The topic it reads.")],
    table: Annotated[str, typer.Option(help="The table it writes; the row is taken from it where it exists.")],
) -> None:
    """Write a flow of your own for your own topic and table, without jobs: read it, run it, change it."""
    from lovelace_streams.init import write_flow

    path = write_flow(Settings(), name, topic, table, Path("dataflows"))
    print(f"wrote {path}; run it:  python -m bytewax.run dataflows.{name}")
