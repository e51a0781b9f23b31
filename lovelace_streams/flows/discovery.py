"""Dataflows are found by name, `dataflows.<name>`, where the process was started: nothing here names one."""

import importlib
import pkgutil
import sys
from pathlib import Path
from typing import Any

from bytewax.dataflow import Dataflow

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.flows.topology import Topology, topology_of

SAMPLE = "_sample"


def find_flow(name: str) -> Any:
    """The module of a dataflow: `dataflows.<name>`, or a dotted path."""
    path = name if "." in name else f"dataflows.{name}"
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name not in {path, path.partition(".")[0]}:
            raise
        raise DeploymentFault(f"no dataflow {name!r}: there are {', '.join(flow_names()) or 'none here'}") from None


def flow_names() -> list[str]:
    """The dataflows that are there."""
    return [name for name in _modules() if not name.endswith(SAMPLE)]


def sampled_flows() -> list[str]:
    """Those of them that have a `<name>_sample` beside them: what to show them with."""
    there = _modules()
    return [name for name in there if name + SAMPLE in there]


def _modules() -> list[str]:
    try:
        package = importlib.import_module("dataflows")
    except ModuleNotFoundError:
        return []
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def topology(name: str) -> Topology:
    """What a dataflow is made of: it is built, nothing of it runs."""
    made = getattr(find_flow(name), "flow", None)
    flow = made() if callable(made) and not isinstance(made, Dataflow) else made
    if not isinstance(flow, Dataflow):
        raise DeploymentFault(f"the dataflow {name!r} has no flow: a function `flow` that gives a Dataflow")
    return topology_of(flow)
