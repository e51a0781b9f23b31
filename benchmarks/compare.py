"""Another commit's package beside this one: the same jobs alternately on the same servers, by CPU a row.

    make bench ARGS="compare COMMIT"
    make bench ARGS="compare HEAD~20 --kind members 'chunks of 10' --runs 5 --rows 200000"
    make bench ARGS="compare HEAD~20 --after HEAD~10 --kind existing"

The other commit's files are unpacked into a temporary folder. Its `lovelace_streams` and `dataflows` run in the worker
processes; servers, messages, flows and checks are this folder's, for both. What is here counts as it is, also if it is
not committed. Each run measures each kind of job (`kinds`) by both, in turns who is first; a kind whose flow can't be
built with the other package is left out, with a line. With `--after` a second commit takes the place of what is here.

Ends with 1 if a job takes more than a tenth (`--more`) more CPU a row here, by the median of the runs' ratios; CPU,
because it is the steadier figure where others use the machine.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import Servers, add_minutes, rounds, say, servers, summary
from benchmarks.kinds import KINDS, PARTS, PLAIN, Jobs, Kind, add_kind, chosen, collector

ROOT = Path(__file__).parents[1]
HERE, OTHER = "here", "before"
"""Which package it was, as the results call it; the summary says which commit was before."""
MORE = 0.1
WHICH = "benchmarks.which_flow"
BUILD = """
import importlib, sys
module, _, name = sys.argv[1].partition(":")
made = getattr(importlib.import_module(module), name or "flow")
made() if callable(made) else made
"""


class UnknownCommitError(Exception):
    """There is no such commit here."""


@dataclass(frozen=True)
class Build:
    """A package beside the flows of this folder, as a worker's environment leads to it."""

    name: str
    root: Path
    flows: Path
    """A folder that holds `benchmarks`, and nothing else."""

    @property
    def environment(self) -> dict[str, str]:
        """What leads a process to it, whose current folder is `flows`: its paths come before what is installed."""
        return {"PYTHONPATH": os.pathsep.join(map(str, (self.flows, self.root))), "PYTHONSAFEPATH": "1"}

    def verify(self) -> None:
        """Ends the process if a worker would import another package than its own."""
        done = self.python("-m", "bytewax.run", WHICH)
        found = [Path(line).resolve() for line in done.stdout.splitlines()]
        if done.returncode or found != [(self.root / name).resolve() for name in ("lovelace_streams", "dataflows")]:
            sys.exit(f"{self.name}: imports {', '.join(map(str, found)) or last_line(done.stderr)}, not {self.root}")
        say(f"{self.name}: {found[0]}")

    def lacks(self, flow: str) -> str:
        """Why a flow can't be built with it; empty if it can."""
        done = self.python("-c", BUILD, flow, BENCH_TOPIC="none", PROGRESS_API_URL="", LOG_FORMAT="json")
        return last_line(done.stderr) if done.returncode else ""

    def python(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run Python with it, where and how a worker runs."""
        environment = {**os.environ, **self.environment, **more}
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, cwd=self.flows, capture_output=True, text=True, check=False)


def last_line(text: str) -> str:
    """What an error's text ends with.

    >>> last_line("Traceback …\\nImportError: no name 'columns'\\n")
    "ImportError: no name 'columns'"
    """
    return (text.strip().splitlines() or ["no reason given"])[-1]


@contextmanager
def builds(commit: str, after: str | None = None) -> Iterator[dict[str, Build]]:
    """The other commit's package and this one, or a second commit's; what was unpacked is gone afterwards."""
    commits = {OTHER: place_of(commit)} | ({HERE: place_of(after)} if after else {})
    with tempfile.TemporaryDirectory(prefix="lovelace-compare-") as folder:
        flows = Path(folder) / "flows"
        flows.mkdir()
        (flows / "benchmarks").symlink_to(ROOT / "benchmarks", target_is_directory=True)
        found = {HERE: Build(HERE, ROOT, flows)}
        for which, given in commits.items():
            root = given if isinstance(given, Path) else Path(folder) / which
            if not isinstance(given, Path):
                unpack(given, root)
            found[which] = Build(f"{which} ({shown(given)})", root, flows)
        for build in found.values():
            build.verify()
        yield found


def place_of(given: str) -> str | Path:
    """A folder that holds another package, or a commit's whole name. Raises `UnknownCommitError`."""
    folder = Path(given)
    return folder.resolve() if (folder / "lovelace_streams").is_dir() else resolve(given)


def name_of(given: str) -> str:
    """What a package is called in results: seven digits of a commit, or a folder's name."""
    return shown(place_of(given))


def shown(place: str | Path) -> str:
    return place.name if isinstance(place, Path) else place[:7]


def resolve(commit: str) -> str:
    """Its whole name. Raises `UnknownCommitError`."""
    done = git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if done.returncode:
        shallow = git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
        hint = " (the clone is shallow: git fetch --unshallow)" if shallow else ""
        raise UnknownCommitError(f"there is no commit {commit} in {ROOT}{hint}")
    return done.stdout.decode().strip()


def unpack(commit: str, into: Path) -> None:
    """All files of a commit."""
    into.mkdir()
    archive = into.with_suffix(".tar")
    done = git("archive", "--format=tar", f"--output={archive}", commit)
    if done.returncode:
        sys.exit(f"git archive {commit}: {last_line(done.stderr.decode())}")
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    archive.unlink()


def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Ask git about this folder."""
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)


# -- what is measured --------------------------------------------------------------------------------------------------


def turns(run: int) -> tuple[str, str]:
    """Who is measured first in a run, and who then.

    >>> turns(1), turns(2)
    (('before', 'here'), ('here', 'before'))
    """
    return (OTHER, HERE) if run % 2 else (HERE, OTHER)


def runnable(found: Mapping[str, Build], kinds: Sequence[Kind]) -> tuple[list[Kind], dict[str, str]]:
    """The kinds that both can run, and why each of the others can't. Ends the process if this folder's can't."""
    skipped: dict[str, str] = {}
    for which in (HERE, OTHER):
        for flow in sorted({kind.flow for kind in kinds}):
            if not (reason := found[which].lacks(flow)):
                continue
            if found[which].root == ROOT:
                sys.exit(f"{flow} can't be built here: {reason}")
            skipped |= {kind.name: reason for kind in kinds if kind.flow == flow}
            say(f"left out: {flow}: {found[which].name} can't run it: {reason}")
    return [kind for kind in kinds if kind.name not in skipped], skipped


def measure(
    started: Servers,
    spans: str,
    found: Mapping[str, Build],
    kinds: Sequence[Kind],
    skipped: dict[str, str],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Each kind by both, once a run; without those that the other package begins and does not end."""
    jobs = Jobs(started, options.rows, spans)
    results: list[dict[str, Any]] = []
    say("warming up the servers")
    jobs.run(PLAIN, found[HERE].environment, found[HERE].flows)
    for run in rounds(options.runs, options.minutes):
        for kind in [kind for kind in kinds if kind.name not in skipped]:
            for which in turns(run):
                result = {"benchmark": "compare", "what": f"{kind.name}, {which}", "run": run}
                try:
                    result |= jobs.run(kind, found[which].environment, found[which].flows)
                except SystemExit as reason:
                    if found[which].root == ROOT:
                        raise
                    skipped[kind.name] = str(reason)
                    say(f"left out: {kind.name}: {found[which].name} can't run it: {reason}")
                    break
                print(json.dumps(result), flush=True)
                say(f"run {run} of {options.runs}: {result['what']}: {result['cpu_us_per_row']} µs of CPU a row")
                results.append(result)
    return [result for result in results if kind_of(result) not in skipped]


# -- what follows from it ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """A kind of job: medians of CPU µs and rows a second, and the medians of the runs' ratios, here against before."""

    name: str
    cpu: dict[str, float]
    speed: dict[str, float]
    cpu_ratio: float
    speed_ratio: float

    def slower(self, more: float) -> bool:
        """Whether it takes that much more CPU a row here."""
        return self.cpu_ratio > 1 + more


def kind_of(result: Mapping[str, Any]) -> str:
    """The kind of job that was measured.

    >>> kind_of({"what": "chunks of 10, here"})
    'chunks of 10'
    """
    return str(result["what"]).rpartition(", ")[0]


def compared(results: Sequence[Mapping[str, Any]]) -> list[Compared]:
    """All kinds of which both were measured, in the order of a run."""
    found: dict[str, dict[str, dict[int, Mapping[str, Any]]]] = {}
    for result in results:
        which = result["what"].rpartition(", ")[2]
        found.setdefault(kind_of(result), {}).setdefault(which, {})[result["run"]] = result
    return [_compared(name, sides) for name, sides in found.items() if sides.keys() == {HERE, OTHER}]


def _compared(name: str, sides: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> Compared:
    runs = sides[HERE].keys() & sides[OTHER].keys()

    def medians(figure: str) -> dict[str, float]:
        return {which: statistics.median(sides[which][run][figure] for run in runs) for which in (OTHER, HERE)}

    def ratio(figure: str) -> float:
        return float(statistics.median(sides[HERE][run][figure] / sides[OTHER][run][figure] for run in runs))

    cpu, speed = "cpu_us_per_row", "rows_per_second"
    return Compared(name, medians(cpu), medians(speed), ratio(cpu), ratio(speed))


def verdict(found: Sequence[Compared], more: float) -> list[str]:
    """The kinds that take too much more CPU a row here."""
    return [each.name for each in found if each.slower(more)]


def told(found: Sequence[Compared], more: float) -> str:
    """A table for people."""
    head = ("", "CPU µs a row", "here", "ratio", "rows/s", "here", "ratio", "")
    rows = [
        (
            each.name,
            *(f"{each.cpu[which]:.2f}" for which in (OTHER, HERE)),
            f"{each.cpu_ratio:.2f}",
            *(f"{each.speed[which]:,.0f}" for which in (OTHER, HERE)),
            f"{each.speed_ratio:.2f}",
            "SLOWER" if each.slower(more) else "",
        )
        for each in found
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if at else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    )


def main() -> int:
    """Run it; prints its JSON lines. 1 if a job takes too much more CPU."""
    parser = argparse.ArgumentParser(prog="benchmarks compare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commit", help="the other commit, by what git knows it, or a folder with its package")
    parser.add_argument("--after", metavar="COMMIT", help="another one in the place of what is here")
    add_kind(parser)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of each measurement (100000)")
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--more", type=float, default=MORE, help=f"how much more CPU a row is too much ({MORE})")
    parser.epilog = (
        "As `python -m benchmarks compare` it takes --save FOLDER, too: the results go to FOLDER/compare.jsonl."
    )
    add_minutes(parser)
    options = parser.parse_args()
    kinds = chosen(options.kind, KINDS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that what was begun is undone
    if not options.after and (changed := git("status", "--porcelain", "--untracked-files=no").stdout):
        say(f"here: {len(changed.splitlines())} files are changed since the last commit; they count as they are")
    try:
        with builds(options.commit, options.after) as found, servers(PARTS) as started, collector() as spans:
            can, skipped = runnable(found, kinds)
            results = measure(started, spans, found, can, skipped, options)
    except UnknownCommitError as error:
        parser.error(str(error))
    both = compared(results)
    slower = verdict(both, options.more)
    say(told(both, options.more))
    said: dict[str, Any] = {
        "cpu_ratios": {each.name: round(each.cpu_ratio, 3) for each in both},
        "slower": slower,
        "skipped": skipped,
    }
    pairs = [(f"{each.name}, {HERE}", f"{each.name}, {OTHER}") for each in both]
    said |= {"before": name_of(options.commit), "after": name_of(options.after) if options.after else HERE}
    print(json.dumps(summary("compare", results, pairs, rows=options.rows, **said)), flush=True)
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
