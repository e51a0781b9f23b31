"""One form for all that a process logs."""

import json
import subprocess
import sys

SPEAKS = """
import logging, structlog
from lovelace_streams.observability.logs import configure
configure("INFO", "json")
structlog.get_logger().info("ours", topic="orders")
logging.getLogger("librdkafka").warning("%s theirs", "GETPID")
logging.getLogger("librdkafka").info("chatter")
try:
    raise OSError("gone")
except OSError:
    logging.getLogger("uvicorn.error").exception("a bug")
"""


def test_what_libraries_log_has_the_form_of_ours() -> None:
    ended = subprocess.run([sys.executable, "-c", SPEAKS], capture_output=True, text=True, check=True)

    ours, theirs, bug = map(json.loads, ended.stderr.splitlines())
    assert (ours["event"], ours["topic"], ours["level"]) == ("ours", "orders", "info")
    assert (theirs["event"], theirs["logger"], theirs["level"]) == ("GETPID theirs", "librdkafka", "warning")
    assert "OSError: gone" in bug["exception"]
    assert ours.keys() - {"topic"} == theirs.keys() - {"logger"}


REPLACED = """
import io, sys, structlog
from lovelace_streams.observability.logs import configure
real, sys.stderr = sys.stderr, io.StringIO()
configure("INFO", "json")
log = structlog.get_logger()
log.info("elsewhere")
sys.stderr.close()
sys.stderr = real
log.info("here")
"""


def test_standard_error_is_what_it_is_at_the_time() -> None:
    ended = subprocess.run([sys.executable, "-c", REPLACED], capture_output=True, text=True, check=True)

    assert [json.loads(line)["event"] for line in ended.stderr.splitlines()] == ["here"]
