"""Keep one server: start it, record it, and end it when its owner ends, whatever ended the owner.

    owner ── spec on stdin ──▶ supervisor ──▶ server
      ▲────── getppid() ───────────┘

A process of its own, run by path and importing only psutil, because no other way holds in every case: `atexit` does not
run on SIGKILL, PR_SET_PDEATHSIG is tied to the thread that forked, and a pipe to the owner leaks into every other child
of the owner. The parent's id changes when the owner ends, whatever killed it, so the supervisor watches that id. In
turn the server dies with its supervisor (PR_SET_PDEATHSIG is safe here: one thread).
"""

import contextlib
import ctypes
import json
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

POLL_SECONDS = 0.1
"""Between two looks at owner and server."""

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_SECUREBITS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 28, 47, 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522


def main() -> int:
    """Run the program that stdin describes until it ends, is told to end, or loses its owner; give its exit code."""
    record = Path(sys.argv[1])
    spec = json.load(sys.stdin)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner answers Ctrl-C
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # `lovelace up` outlives its terminal
    if not _wanted(spec):
        return 0
    _write(record, spec | {"supervisor": os.getpid()})
    server = subprocess.Popen(
        spec["argv"],
        stdin=subprocess.DEVNULL,
        stdout=sys.stdout,
        stderr=sys.stderr,
        cwd=spec["cwd"],
        preexec_fn=lambda: _prepare(ordinary_user=spec["ordinary_user"]),  # noqa: PLW1509 - one thread
    )
    _write(record, spec | {"supervisor": os.getpid(), "server": server.pid})
    while server.poll() is None and not asked and _wanted(spec):
        time.sleep(POLL_SECONDS)
    if server.poll() is None:
        end(psutil.Process(server.pid), signal.Signals(spec["stop"]), spec["grace"])
    record.unlink(missing_ok=True)
    return server.wait()


def end(server: psutil.Process, first: signal.Signals, grace: float) -> None:
    """Ask a server to end; after `grace` seconds kill it and its children. Frozen processes are thawed first."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [server, *server.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        server.send_signal(first)
        psutil.wait_procs([server], timeout=grace)
        _, alive = psutil.wait_procs(family, timeout=0.5)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _wanted(spec: dict[str, Any]) -> bool:
    return os.getppid() == spec["owner"] or Path(spec["keep"]).exists()


def _write(record: Path, content: dict[str, Any]) -> None:
    part = record.with_suffix(".part")
    part.write_text(json.dumps(content))
    part.rename(record)


def _prepare(*, ordinary_user: bool) -> None:
    """Between fork and exec: stop being root if asked, then arrange to die with the supervisor (the order matters)."""
    if sys.platform != "linux":
        if ordinary_user and os.geteuid() == 0:
            _become_nobody()
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if ordinary_user and os.geteuid() == 0:
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        # Without this bit access(2), which initdb calls, ignores the capability.
        libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
        _become_nobody()
        _keep_one_capability(libc)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of user clears it


def _become_nobody() -> None:
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)


def _keep_one_capability(libc: ctypes.CDLL) -> None:
    """Keep access to files below folders that only root may enter (/root, a temporary folder of mode 0700).

    The alternative, to open those folders to every user, would outlast this process. If this process lacks the
    capability (in a restricted container), the server keeps none and works in reachable folders only. A server with
    the capability must ask its clients for a password.
    """
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    bit = 1 << CAP_DAC_OVERRIDE
    for kept in (bit, 0):
        sets = (ctypes.c_uint32 * 6)(kept, kept, kept, 0, 0, 0)  # effective, permitted, inheritable; their upper halves
        if libc.capset(header, sets) == 0:
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)
            return
    raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    sys.exit(main())
