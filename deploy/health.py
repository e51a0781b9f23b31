"""Check the health of a process: `python -I health.py worker|reads|api [SECONDS]`, exit code 0 or 1.

A worker is healthy if it made a round of its loop lately. It makes rounds also while it waits for a broker or a
database, because a restart would mend neither. `reads` is for readiness: whether nothing keeps the worker from reading
its topics. The progress service is healthy if it answers.
"""

import os
import re
import sys
import time
import urllib.request

STUCK_SECONDS = 60.0


def worker(within: float) -> str | None:
    """Say what is wrong with it; None if nothing is."""
    text = read(int(os.environ.get("METRICS_PORT", "9108")), "/metrics")
    rounds = re.findall(r"^lovelace_last_round_timestamp_seconds\{[^}]*\} (\S+)$", text, re.MULTILINE)
    if not rounds:
        return "it has made no round yet"
    age = time.time() - max(map(float, rounds))
    return f"no round for {age:.0f} s" if age > within else None


def reads(within: float) -> str | None:
    """Say what is wrong with it; None if nothing is."""
    text = read(int(os.environ.get("METRICS_PORT", "9108")), "/metrics")
    if re.findall(r"^lovelace_can_read\{[^}]*\} (\S+)$", text, re.MULTILINE) != ["1.0"]:
        return "it can't read: its log says why"
    return worker(within)


def api(_within: float) -> str | None:
    """Say what is wrong with it; None if nothing is."""
    read(int(os.environ.get("API_PORT", "8000")), "/healthz")
    return None


def read(port: int, path: str) -> str:
    """Ask this process. Raises `OSError` if it does not answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=4) as answer:
        return answer.read().decode()


def main(what: str, within: str = str(STUCK_SECONDS)) -> int:
    """Give the exit code, 0 or 1; print what is wrong."""
    try:
        wrong = {"worker": worker, "reads": reads, "api": api}[what](float(within))
    except OSError as error:
        wrong = f"no answer: {type(error).__name__}"
    if wrong:
        sys.stderr.write(f"{wrong}\n")
    return int(wrong is not None)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
