"""Write a first flow for a topic and a table, as a file to read, run and change (`lovelace init`).

The row comes from the real table if there is one, by the same reading of the catalogue that the writer checks by. Else
it comes from the types of values in the topic's newest messages. Else it is left to fill in. No value is written down.
"""

import re
from keyword import iskeyword
from pathlib import Path

from lovelace_streams.admin.scaffold.from_messages import shape_of_messages
from lovelace_streams.admin.scaffold.from_table import shape_of_table
from lovelace_streams.admin.scaffold.module import render
from lovelace_streams.admin.scaffold.shape import SKELETON
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.settings import Settings

TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
TABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?")


def write_flow(settings: Settings, name: str, topic: str, table: str, folder: Path) -> Path:
    """Write `<folder>/<name>.py`; answers its path.

    Raises `DeploymentFault` for invalid names, a file that exists, and a table without a key; `DestinationFault` if
    the database (or, without a table, the broker) does not answer.
    """
    _check_names(name, topic, table)
    path = folder / f"{name}.py"
    if path.exists():
        raise _exists(path)
    shape = shape_of_table(settings.postgres, table) or shape_of_messages(settings.kafka, topic) or SKELETON
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "__init__.py").exists():  # without it, Python would find an installed `dataflows` instead
        (folder / "__init__.py").write_text("")
    try:
        with path.open("x") as file:
            file.write(render(name, topic, table, shape))
    except FileExistsError:
        raise _exists(path) from None
    return path


def _exists(path: Path) -> DeploymentFault:
    return DeploymentFault(f"{path} is there already: choose another name, or remove it first")


def _check_names(name: str, topic: str, table: str) -> None:
    if not name.isidentifier() or not name.isascii() or iskeyword(name) or name.startswith("__"):
        raise DeploymentFault(
            f"the flow's name {name!r} is invalid: it becomes a Python module, so use letters, digits and _"
        )
    if not TOPIC.fullmatch(topic) or topic in {".", ".."}:
        raise DeploymentFault(
            f"--topic {topic!r} is invalid: use letters, digits, '.', '_' and '-', at most 249 of them"
        )
    if not TABLE.fullmatch(table):
        raise DeploymentFault(f"--table {table!r} is invalid: use [schema.]table in letters, digits and _")
