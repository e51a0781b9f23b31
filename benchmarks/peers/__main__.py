"""The members job by this project and by its peers, beside each other in one run: same topic, same table, same rows.

    make bench-peers ARGS="--rows 300000 --runs 3"
    make bench-peers ARGS="--bad 0.01 --only bento"
    make bench-peers ARGS="--avro only"

Everybody writes into an empty table (*new*), then everything again into the full one (*existing*), at batch 100 and at
its best; at their best this project and Bento do it with Avro too (without bad rows). In the end the tables are
compared. Ours runs with dead letters, the ledger and commits on; where peers have something like it, it is turned on
only where it is asked for (`--bad`). How each is configured, and what it does less of: README.md beside this file.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.common import HOME, arguments, servers
from benchmarks.common import summary as summarized
from benchmarks.peers.contenders import contenders, on_avro
from benchmarks.peers.contest import Contest
from benchmarks.peers.records import Load

OURS = "lovelace_streams"


def main() -> int:
    """Run it; 1 if somebody's rows are not those of the others."""
    parser = arguments("peers", __doc__, rows=300_000, runs=3)
    parser.add_argument("--warm", type=int, default=100_000, help="rows before them that warm up (100000)")
    parser.add_argument("--bad", type=float, default=0.0, help="which share of rows a CHECK refuses (0)")
    parser.add_argument("--only", help="contenders whose name contains this (or this,or that)")
    parser.add_argument("--avro", choices=("no", "too", "only"), default="too", help="Avro beside JSON (too)")
    options = parser.parse_args()
    chosen = contenders(HOME, bad=bool(options.bad), only=options.only)
    avro = options.avro if not options.bad else "no"
    if avro != "no":
        best = [on_avro(each) for each in chosen if each.setting == "best"]
        chosen = [*(chosen if avro == "too" else []), *filter(None, best)]
    load = Load(options.rows, options.warm, options.bad, "check" if options.bad else "")
    results = []
    parts = ("kafka", "registry", "postgres") if avro != "no" else ("kafka", "postgres")
    with servers(parts) as up:
        for result in Contest(up, load).run(chosen, options.runs, options.minutes):
            print(json.dumps(result), flush=True)
            results.append(result)
    said = summary(results, rows=options.rows, warm=options.warm, bad=options.bad)
    print(json.dumps(said), flush=True)
    return 0 if said["same_rows"] else 1


def summary(results: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Medians of what was completed, ours against each peer's, and what was not completed.

    Who wrote all of it in one piece, as may be with few rows, has no speed.
    """
    complete = [result for result in results if result["complete"] and result["rows"]]
    names = list(dict.fromkeys(result["what"] for result in complete))
    missing = {
        result["what"]: {name: result[name] for name in ("written", "good", "dead_letters", "bad")}
        for result in results
        if not result["complete"]
    }
    same = len({result["rows_digest"] for result in complete}) <= 1
    pairs = [(a, b) for a in names for b in names if compared(a, b)]
    return summarized("peers", complete, pairs, **more, incomplete=missing, same_rows=same)


def compared(a: str, b: str) -> bool:
    """Whether a is ours and b a peer's, with the same kind of setting and the same rows."""
    return a.startswith(OURS) and not b.startswith(OURS) and a.split(", ")[1:] == b.split(", ")[1:]


if __name__ == "__main__":
    sys.exit(main())
