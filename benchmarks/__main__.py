"""Run benchmarks one after the other: `make bench`, or `python -m benchmarks [what …]`.

    make bench                                            # the members job and its stages, minutes
    make bench ARGS="scale --quick"                       # another one, with small sizes
    make bench ARGS="all --save benchmarks/results"       # all of them, with the sizes that docs/performance.md shows
    make bench ARGS="members --rows 300000 --runs 5"

Prints what they print, one JSON object a measurement, and a summary last. With `--save FOLDER` the lines of each go to
`FOLDER/<benchmark>.jsonl` as well, in place of what was there: figures are ratios within one run, runs do not mix.
`python -m benchmarks.page` makes the documentation's pages from them.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import machine, say

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Sizes:
    """What a benchmark is told: as `make bench` runs it, where time does not matter, and to see that it works."""

    usual: str
    full: str
    quick: str


SUITE = {
    "members": Sizes("--rows 100000 --runs 3", "--rows 300000 --runs 5", "--rows 20000 --runs 1"),
    "stages": Sizes("--rows 100000 --runs 3", "--rows 300000 --runs 5", "--rows 20000 --runs 1"),
    "reading": Sizes("--rows 300000 --runs 3", "--rows 1000000 --runs 5", "--rows 50000 --runs 1"),
    "ledger": Sizes("--rows 100000 --runs 3", "--rows 200000 --runs 3", "--rows 20000 --runs 1 --jobs 1000"),
    "avro": Sizes("", "", "--rows 2000 --runs 2"),
    "clickhouse": Sizes("--rows 100000 --runs 3", "--rows 300000 --runs 5", "--rows 20000 --runs 1"),
    "scale": Sizes(
        "--rows 500000 --runs 3",
        "--rows 1000000 --runs 3 --tables 0,1000000,10000000 --job-items 10000000",
        "--rows 100000 --runs 1 --table-rows 20000 --tables 0,100000 --job-items 100000",
    ),
    "peers": Sizes("", "--rows 300000 --runs 3", "--rows 20000 --warm 10000 --runs 1"),
    "isolation": Sizes("", "--rows 80000 --runs 2", "--rows 8000 --runs 1 --shares 0,0.01"),
    "latency": Sizes("", "--seconds 15 --runs 3", "--seconds 4 --runs 1 --rates 1000"),
}
"""In the order in which `all` runs them; a benchmark that is not here is called without sizes."""
USUAL = ["members", "stages"]


def main() -> int:
    """Run what was asked for; 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=USUAL, help=f"{', '.join(SUITE)}, or all ({' '.join(USUAL)})")
    parser.add_argument("--save", type=Path, help="a folder for the results, a file a benchmark")
    parser.add_argument("--quick", action="store_true", help="small sizes, one run: to see that it works")
    parser.add_argument("--rows", type=int, help="rows of each measurement")
    parser.add_argument("--runs", type=int, help="how often each is measured")
    options, more = parser.parse_known_args()
    for name in ("rows", "runs"):
        if (number := getattr(options, name)) is not None:
            more += [f"--{name}", str(number)]
    what = list(SUITE) if options.what == ["all"] else options.what
    if unknown := [name for name in what if not _exists(name)]:
        parser.error(f"there is no benchmark {', '.join(unknown)}")
    full = options.what == ["all"] or options.save
    failed, summaries = [], []
    for name in what:
        given = SUITE.get(name, Sizes("", "", ""))
        chosen = given.quick if options.quick else given.full if full else given.usual
        lines = run(name, [*chosen.split(), *more])
        if not lines or not lines[-1].get("summary"):
            failed.append(name)
            continue
        lines[-1] |= machine()
        summaries.append(lines[-1])
        if options.save:
            save(options.save / f"{name}.jsonl", lines)
    if len(what) > 1:
        found = {each["benchmark"]: each.get("ratios", {}) for each in summaries}
        print(json.dumps({"benchmark": "all", "summary": True, "failed": failed, "ratios": found}), flush=True)
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def run(name: str, arguments: list[str]) -> list[dict[str, object]]:
    """Its lines, passed on as they come; none where it failed."""
    say(f"-- {name} {' '.join(arguments)}")
    lines = []
    with subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith("{"):
                lines.append(json.loads(line))
    return lines if process.returncode == 0 else []


def save(path: Path, lines: list[dict[str, object]]) -> None:
    """Write them, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    part.rename(path)


def _exists(name: str) -> bool:
    return (HERE / f"{name}.py").exists() or (HERE / name / "__main__.py").exists()


if __name__ == "__main__":
    sys.exit(main())
