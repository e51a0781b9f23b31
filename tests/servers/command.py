"""The `lovelace` command as its own process."""

import os
import subprocess
import sys
from pathlib import Path

from tests.faults.harness import DEADLINE, ROOT


def lovelace(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    """Run it in a folder, with nothing on a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "lovelace_streams", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
