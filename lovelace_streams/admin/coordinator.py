"""Questions about a consumer group, asked again while its coordinator moves."""

import time
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

COORDINATOR_MOVES = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
"""What a broker answers while it does not know yet which broker coordinates a group."""
REQUEST_SECONDS = 15.0
RETRY_SECONDS = 0.1

T = TypeVar("T")
"""The broker's answer."""


def retry_while_coordinator_moves(ask: Callable[[], T], seconds: float = REQUEST_SECONDS) -> T:
    """Ask again while the broker says that a repeated question may help: a coordinator moves, and loads."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except KafkaException as error:
            code = error.args[0]
            may_help = code.retriable() or code.code() in COORDINATOR_MOVES
            if not may_help or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)
