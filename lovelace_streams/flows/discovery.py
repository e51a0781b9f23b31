"""Find dataflows by name: `dataflows.<name>` in the current folder. This module names none."""

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
    """Import a dataflow's module: `dataflows.<name>`, or a dotted path. Raises `DeploymentFault` if there is none."""
    path = name if "." in name else f"dataflows.{name}"
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name not in {path, path.partition(".")[0]}:
            raise
        raise DeploymentFault(_not_found(name)) from None


def _not_found(name: str) -> str:
    if names := flow_names():
        return f"no dataflow {name!r} here: choose one of {', '.join(names)}, or write it with `lovelace init`"
    return f"no dataflow {name!r} here: go to the folder that holds dataflows/, or write it with `lovelace init`"


def flow_names() -> list[str]:
    """List the modules of dataflows/, without their samples."""
    return [name for name in _modules() if not name.endswith(SAMPLE)]


def sampled_flows() -> list[str]:
    """List the dataflows with a module `<name>_sample` beside them, which generates records for a demonstration."""
    modules = _modules()
    return [name for name in modules if name + SAMPLE in modules]


def _modules() -> list[str]:
    try:
        package = importlib.import_module("dataflows")
    except ModuleNotFoundError:
        return []
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def dataflow(name: str) -> Dataflow:
    """Build a dataflow; nothing of it runs. Raises `DeploymentFault` for a module without a flow."""
    flow = getattr(find_flow(name), "flow", None)
    if callable(flow) and not isinstance(flow, Dataflow):
        flow = flow()
    if not isinstance(flow, Dataflow):
        raise DeploymentFault(f"the module {name!r} has no flow: add a function `flow` that returns a Dataflow")
    return flow


def topology(name: str) -> Topology:
    """Build a dataflow and read its parts. Raises `DeploymentFault` as `dataflow` and `topology_of`."""
    return topology_of(dataflow(name))
