"""Run what several connections do at the same time in one thread: it waits for whichever server answers first.

A thread a connection would have to wait for the interpreter each time that its server answers, up to 5 ms while another
one computes.
"""

from collections.abc import Sequence
from selectors import DefaultSelector
from typing import TypeVar

from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn
from psycopg.waiting import Ready

T = TypeVar("T")


def together(steps: Sequence[tuple[PGconn, PQGen[T]]]) -> list[T]:
    """Run the steps of each connection to their end; return the result of each. Raises the first error, after that.

    Nothing is left running when it raises: rows that are tried again are in no other transaction.
    """
    results: dict[int, T] = {}
    errors: list[Exception] = []
    with DefaultSelector() as waiting:

        def go_on(number: int, ready: Ready | None) -> None:
            pgconn, generator = steps[number]
            try:
                wait = next(generator) if ready is None else generator.send(ready)
                waiting.register(pgconn.socket, wait, number)
            except StopIteration as end:
                results[number] = end.value
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)

        for number in range(len(steps)):
            go_on(number, None)
        while waiting.get_map():
            for key, events in waiting.select():
                waiting.unregister(key.fd)
                go_on(key.data, Ready(events))
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(steps))]
