"""What a worker does to its process."""

import subprocess
import sys

SCRIPT = """
import gc
from lovelace_streams.runtime.process import WorkerProcess
before = gc.get_freeze_count()
WorkerProcess().started()
print(gc.get_freeze_count() - before, gc.isenabled(), *gc.get_threshold())
"""


def test_what_was_made_at_start_is_not_looked_at_again_and_cycles_still_are() -> None:
    told = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    frozen, enabled, *thresholds = told.split()
    assert int(frozen) > 10_000
    assert enabled == "True"
    assert all(0 < int(each) <= 100_000 for each in thresholds)
