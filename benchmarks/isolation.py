"""How fast it stays when records are bad: throughput by the share and the kind of badness, and Bento beside it.

    python -m benchmarks.isolation --rows 80000 --shares 0,0.001,0.01,0.1,0.5

A message counts when it is through, either way: its row is in the table, or it is a dead letter; the measurement ends
when all are. Bad ones are spread by chance, the same for everybody. Kinds: *undecodable* (cut off), *does not fit* (a
day that does not exist), *check* (a constraint refuses the row), *trigger* (a trigger does, which no catalogue tells).
Bento is given fewer rows, at the setting that was its best without bad rows, and a limited time: where it needs more,
its speed until then counts and `complete` is false.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.common import HOME, Servers, arguments, rounds, say, servers
from benchmarks.common import summary as summarized
from benchmarks.peers.contenders import Contender, contenders
from benchmarks.peers.contest import Contest, describe
from benchmarks.peers.records import BADNESS, Load

KINDS = {"lovelace_streams": tuple(BADNESS), "bento": ("undecodable", "check")}
WARM = 0.25
"""Of the rows: what is let pass before it counts."""
PEERS_SHARE = 0.25
"""Of the rows: what a peer is given."""
LIMIT = 60.0
"""Seconds for a measurement."""


def main() -> int:
    """Run it; 1 if ours did not finish."""
    parser = arguments("isolation", __doc__, rows=80_000, runs=1)
    parser.add_argument("--shares", default="0,0.001,0.01,0.1,0.5", help="shares of bad ones (0,0.001,0.01,0.1,0.5)")
    parser.add_argument("--kinds", default=",".join(BADNESS), help=f"kinds of badness ({','.join(BADNESS)})")
    parser.add_argument("--only", help="contenders whose name contains this")
    options = parser.parse_args()
    shares = [float(share) for share in options.shares.split(",")]
    chosen = [each for each in contenders(HOME, bad=True, only=options.only) if each.who in KINDS]
    plan = [
        (contender, kind, share)
        for kind in options.kinds.split(",")
        for contender in chosen
        if kind in KINDS[contender.who] and (contender.who == "lovelace_streams" or contender.setting == "best")
        for share in shares
    ]
    results = []
    with servers() as up:
        for result in measurements(up, plan, options.rows, options.runs, options.minutes):
            print(json.dumps(result), flush=True)
            results.append(result)
    print(json.dumps(summary(results, rows=options.rows)), flush=True)
    return 0 if all(result["complete"] for result in results if result["what"].startswith("lovelace")) else 1


def measurements(
    up: Servers, plan: Sequence[tuple[Contender, str, float]], rows: int, runs: int, minutes: float | None = None
) -> Iterator[dict[str, Any]]:
    """All of the plan, once a run."""
    for run in rounds(runs, minutes):
        for contender, kind, share in plan:
            count = rows if contender.who == "lovelace_streams" else int(rows * PEERS_SHARE)
            contest = Contest(up, Load(count - int(count * WARM), int(count * WARM), share, kind), LIMIT)
            contest.make_table(contender.setup)
            what = f"{contender.name}, {kind}, {share * 100:g} %"
            result = {
                "benchmark": "isolation",
                "what": what,
                "run": run,
                "badness": kind,
                "share": share,
                **contest.measure(contender),
            }
            say(f"run {run} of {runs}: {what}: {describe(result)}")
            yield result


def summary(results: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Medians, and each against the same without bad ones."""
    some = [result for result in results if result["rows"]]
    names = list(dict.fromkeys(result["what"] for result in some))
    pairs = [(name, f"{name.rpartition(', ')[0]}, 0 %") for name in names if not name.endswith(", 0 %")]
    gave_up = sorted({result["what"] for result in results if not result["complete"]})
    return summarized("isolation", some, pairs, **more, gave_up=gave_up)


if __name__ == "__main__":
    sys.exit(main())
