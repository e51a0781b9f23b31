"""All logs of a process have one form."""

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


def test_logs_of_libraries_have_the_form_of_ours() -> None:
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


def test_logs_go_to_the_current_standard_error() -> None:
    ended = subprocess.run([sys.executable, "-c", REPLACED], capture_output=True, text=True, check=True)

    assert [json.loads(line)["event"] for line in ended.stderr.splitlines()] == ["here"]
