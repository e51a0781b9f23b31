"""The folder in which Prometheus' client keeps metrics if `PROMETHEUS_MULTIPROC_DIR` names one."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lovelace_streams.errors import DeploymentFault

VARIABLES = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


def make_metrics_folder(environment: Mapping[str, str] = os.environ) -> None:
    """Make the folder, unless it exists: the client opens files there at the first metric, and makes no folder.

    Raises `DeploymentFault` if nothing can be written there.
    """
    for name in VARIABLES:
        if (folder := environment.get(name)) is None:
            continue
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise DeploymentFault(
                f"no metrics can be kept in {name}={folder} ({error.strerror}): name a folder that this process may "
                "write, or leave it out"
            ) from None
