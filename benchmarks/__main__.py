"""Run benchmarks one after the other: `make bench`, or `python -m benchmarks [what …]`.

    make bench                                            # the members job and its stages, minutes
    make bench ARGS="scale --quick"                       # another one, with small sizes
    make bench ARGS="all --save benchmarks/results"       # all of them, with the sizes that docs/performance.md shows
    make bench ARGS="all --save benchmarks/results --minutes 30"    # all of them, as often as that allows
    make bench ARGS="members --rows 300000 --runs 5"
    make bench ARGS="compare COMMIT"                      # another commit beside this one: compare --help

Prints what they print, one JSON object a measurement, and a summary last. With `--save FOLDER` the lines of each go to
`FOLDER/<benchmark>.jsonl` as well, in place of what was there: figures are ratios within one run, runs do not mix.
`python -m benchmarks.page` makes the documentation's pages from them.

With `--minutes` each gets its share of the time, with fewer rows and at least one run; what a benchmark leaves over,
those after it have as well. One whose turn comes when the time is over is left out, and named.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import machine, say

HERE = Path(__file__).parent


ITEM_BY_ITEM = "75153d9"
"""The last commit whose messages passed all steps item by item: what `compare` shows on the page is against it."""


@dataclass(frozen=True)
class Sizes:
    """What a benchmark is told: as `make bench` runs it, where time does not matter, and to see that it works."""

    usual: str
    full: str
    quick: str
    minutes: float
    """What three runs with the usual sizes take, about: its share of a time that is given."""
    short: str | None = None
    """Instead of the usual sizes, where a time is given."""


CHUNKS = f"{ITEM_BY_ITEM} --kind chunks members"
SUITE = {
    "members": Sizes("--rows 100000 --runs 3", "--rows 300000 --runs 5", "--rows 20000 --runs 1", 3),
    "stages": Sizes("--rows 100000 --runs 3", "--rows 300000 --runs 5", "--rows 20000 --runs 1", 1.2),
    "reading": Sizes("--rows 300000 --runs 3", "--rows 1000000 --runs 5", "--rows 50000 --runs 1", 1.5),
    "compare": Sizes(
        f"{CHUNKS} --rows 100000 --runs 3",
        f"{ITEM_BY_ITEM} --rows 200000 --runs 3",
        f"{CHUNKS} --rows 10000 --runs 1",
        5,
    ),
    "peers": Sizes(
        "--rows 100000 --warm 30000 --runs 3",
        "--rows 300000 --runs 3",
        "--rows 20000 --warm 10000 --runs 1",
        8,
        "--rows 100000 --warm 30000 --runs 3 --only lovelace,bento,kafka",
    ),
    "isolation": Sizes(
        "--rows 80000 --runs 2",
        "--rows 80000 --runs 2",
        "--rows 8000 --runs 1 --shares 0,0.01",
        3,
        "--rows 60000 --runs 2 --shares 0,0.01,0.1",
    ),
    "latency": Sizes(
        "--seconds 10 --runs 3",
        "--seconds 15 --runs 3",
        "--seconds 4 --runs 1 --rates 1000",
        2,
        "--seconds 8 --runs 3 --rates 1000",
    ),
    "clickhouse": Sizes("--rows 100000 --runs 3", "--rows 300000 --runs 5", "--rows 20000 --runs 1", 1.5),
    "ways": Sizes("--rows 100000 --runs 3", "--rows 300000 --runs 5", "--rows 20000 --runs 1", 2.5),
    "kinds": Sizes("--rows 100000 --runs 3", "--rows 300000 --runs 3", "--rows 20000 --runs 1", 3),
    "ledger": Sizes(
        "--rows 100000 --runs 3", "--rows 200000 --runs 3", "--rows 20000 --runs 1 --jobs 1000", 1, "--rows 50000"
    ),
    "avro": Sizes("", "", "--rows 2000 --runs 2", 0.3),
    "scale": Sizes(
        "--rows 500000 --runs 3",
        "--rows 1000000 --runs 3 --tables 0,1000000,10000000 --job-items 10000000",
        "--rows 100000 --runs 1 --table-rows 20000 --tables 0,100000 --job-items 100000",
        4,
        "--rows 300000 --runs 2 --job-items 2000000",
    ),
}
"""In the order in which `all` runs them; a benchmark that is not here is called without sizes."""
USUAL = ["members", "stages"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 1 if one of them failed, or if the time was over before all had their turn."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["compare"]:  # its own arguments, of which one is no benchmark's name
        return compare(given[1:])
    options, more = asked(given)
    full = options.what == ["all"] or bool(options.save)
    what = list(SUITE) if options.what == ["all"] else options.what
    clock = Clock(what, options.minutes) if options.minutes else None
    failed, left_out, summaries = [], [], []
    for name in what:
        chosen = sizes(name, quick=options.quick, full=full, short=bool(clock))
        if clock is not None:
            if not (minutes := clock.share()):
                left_out.append(name)
                continue
            chosen += ["--minutes", f"{minutes:.2f}"]
        lines, code = run(name, [*chosen, *more])
        if code or not lines:
            failed.append(name)
        if was_measured(lines, code):
            lines[-1] |= machine()
            summaries.append(lines[-1])
            if options.save:
                save(options.save / f"{name}.jsonl", lines)
    if len(what) > 1:
        found = {each["benchmark"]: each.get("ratios", {}) for each in summaries}
        told = {"failed": failed, "left_out": left_out, "ratios": found}
        print(json.dumps({"benchmark": "all", "summary": True, **told}), flush=True)
    say_of("failed", failed)
    say_of("left out, the time is over", left_out)
    return 1 if failed or left_out else 0


def say_of(text: str, names: Sequence[str]) -> None:
    """Name benchmarks, if there are any."""
    if names:
        say(f"{text}: {', '.join(names)}")


def asked(given: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What to run, and what each benchmark is told beside its sizes. Ends the process for one that is not there."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="*", default=USUAL, help=f"{', '.join(SUITE)}, or all ({' '.join(USUAL)})")
    parser.add_argument("--save", type=Path, help="a folder for the results, a file a benchmark")
    parser.add_argument("--quick", action="store_true", help="small sizes, one run: to see that it works")
    parser.add_argument("--minutes", type=float, help="for all of it: fewer rows, and as many runs as that allows")
    parser.add_argument("--rows", type=int, help="rows of each measurement")
    parser.add_argument("--runs", type=int, help="how often each is measured")
    options, more = parser.parse_known_args(given)
    for name in ("rows", "runs"):
        if (number := getattr(options, name)) is not None:
            more += [f"--{name}", str(number)]
    what = SUITE if options.what == ["all"] else options.what
    if unknown := [name for name in what if not _exists(name)]:
        parser.error(f"there is no benchmark {', '.join(unknown)}")
    return options, more


def compare(arguments: Sequence[str]) -> int:
    """Another commit beside this one; what it ends with."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--save", type=Path)
    options, more = parser.parse_known_args(arguments)
    lines, code = run("compare", more)
    if options.save and was_measured(lines, code):
        save(options.save / "compare.jsonl", lines)
    return code


def sizes(name: str, *, quick: bool = False, full: bool = False, short: bool = False) -> list[str]:
    """What a benchmark is told.

    >>> sizes("members"), sizes("members", full=True), sizes("members", full=True, short=True)
    (['--rows', '100000', '--runs', '3'], ['--rows', '300000', '--runs', '5'], ['--rows', '100000', '--runs', '3'])
    """
    given = SUITE.get(name, Sizes("", "", "", 1))
    if quick:
        return given.quick.split()
    if short:
        return (given.usual if given.short is None else given.short).split()
    return (given.full if full else given.usual).split()


class Clock:
    """Shares minutes out among benchmarks; what one leaves over, those after it have."""

    def __init__(self, what: Sequence[str], minutes: float, now: Callable[[], float] = time.monotonic) -> None:
        self.left = [SUITE[name].minutes if name in SUITE else 1.0 for name in what]
        self.now = now
        self.end = now() + minutes * 60

    def share(self) -> float:
        """Minutes for the next one, 0 if the time is over."""
        own, everybody = self.left[0], sum(self.left)
        self.left = self.left[1:]
        return max((self.end - self.now()) / 60 * own / everybody, 0.0)


def was_measured(lines: Sequence[dict[str, object]], code: int) -> bool:
    """Whether it has results: it ended well, or it ended by saying that something became slower."""
    return bool(lines) and bool(lines[-1].get("summary")) and (code == 0 or bool(lines[-1].get("slower")))


def run(name: str, arguments: Sequence[str]) -> tuple[list[dict[str, object]], int]:
    """Its lines, passed on as they come, and its exit code."""
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
    return lines, process.returncode


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
