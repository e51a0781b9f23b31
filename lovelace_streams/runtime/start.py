"""What a process does on SIGTERM and SIGINT before it has begun: workers and the progress service end with exit code 0.

Until a worker has its own handler (`runtime.process`) it has read nothing, so there is nothing to finish. Without a
handler the signal's default action would end it with another code; as process 1 of a container it has no default action
at all, and the signal would be lost. The package imports this module before all else: most of a start is imports.
"""

import os
import signal
import sys
import threading
from types import FrameType

ENGINE = "bytewax.run"
OURS = "lovelace_streams"
TERMINATED = 128 + signal.SIGTERM


def is_worker() -> bool:
    """Whether this process is `python -m bytewax.run`."""
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    return main is not None and main.name == ENGINE


def is_command() -> bool:
    """Whether this process is `lovelace …`, also as a module (which has no name yet while its package is imported)."""
    return OURS in sys.orig_argv[1:4] or os.path.basename(sys.argv[0]) == "lovelace"  # noqa: PTH119 - it imports nothing


def is_service() -> bool:
    """Whether this process is the progress service."""
    return f"{OURS}.api" in sys.orig_argv[1:4] or (is_command() and sys.argv[1:2] == ["api"])


def end(_number: int, _frame: FrameType | None) -> None:
    """End with exit code 0, whatever is being imported: an exception could be caught on its way."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


def terminate(_number: int, _frame: FrameType | None) -> None:
    """End as SIGTERM ends a process that is not process 1, with what its `finally` clauses do."""
    sys.exit(TERMINATED)


def answer_signals() -> None:
    """Answer SIGTERM and SIGINT from now on, if this process is a program of ours."""
    if threading.current_thread() is not threading.main_thread():
        return
    if is_worker() or is_service():
        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
    elif is_command() and os.getpid() == 1:
        signal.signal(signal.SIGTERM, terminate)


answer_signals()
