"""The same job written in three ways, and once more with columns forbidden, in one run.

    make bench ARGS="ways --rows 300000"

*row class*: the members flow as it is; its messages go as columns. *function*: a function in Python makes the same
rows. *own step*: the row class makes them, and a step of the flow's own looks at each before they are batched. *row
class, COLUMNAR=off*: the first one again, item by item.

Each is a worker as in production, with dead letters, the ledger and commits on; new rows into an empty table.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.common import (
    Servers,
    alternate,
    arguments,
    count_rows,
    fresh_topic,
    make_table,
    messages,
    say,
    servers,
    submit,
    summary,
    work,
)
from lovelace_streams.submit import Outgoing

FLOW = "benchmarks.ways_flow"
FIRST = "row class"
WHAT: dict[str, dict[str, str]] = {
    FIRST: {"BENCH_WAY": "row class"},
    "function": {"BENCH_WAY": "function"},
    "own step": {"BENCH_WAY": "own step"},
    f"{FIRST}, COLUMNAR=off": {"BENCH_WAY": "row class", "COLUMNAR": "off"},
}
"""What is measured, and what its worker is told."""


def job(servers: Servers, outgoing: list[Outgoing], settings: dict[str, str]) -> dict[str, Any]:
    """Submit all of it, then start a worker and wait until the service says that the job is complete."""
    make_table(servers)
    with fresh_topic(servers.settings) as topic:
        submitted = submit(servers, topic, outgoing, len(outgoing))
        result = work(servers, topic, submitted, len(outgoing), settings, flow=FLOW)
    if (count := count_rows(servers)) != len(outgoing):
        sys.exit(f"{count} of {len(outgoing)} rows are in the table")
    return result


def main() -> int:
    """Run it; prints its JSON lines."""
    options = arguments("ways", __doc__, rows=100_000, runs=3).parse_args()
    with servers() as started:
        say(f"preparing {options.rows} rows")
        outgoing = list(messages(options.rows))
        measurements: dict[str, Callable[[], dict[str, Any]]] = {
            what: partial(job, started, outgoing, settings) for what, settings in WHAT.items()
        }
        results = alternate("ways", measurements, options.runs, options.minutes)
    pairs = [(FIRST, what) for what in WHAT if what != FIRST]
    print(json.dumps(summary("ways", results, pairs, rows=options.rows)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
