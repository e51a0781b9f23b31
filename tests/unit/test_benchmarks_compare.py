"""What `python -m benchmarks compare` says of figures, commits and packages; the run itself is in tests/servers."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare
from benchmarks.__main__ import was_measured
from benchmarks.compare import (
    HERE,
    OTHER,
    Build,
    UnknownCommitError,
    builds,
    compared,
    resolve,
    runnable,
    told,
    verdict,
)
from benchmarks.kinds import KINDS, Kind, chosen

ROOT = Path(__file__).parents[2]


def measured(kind: str, which: str, run: int, cpu: float, speed: float = 1000) -> dict[str, Any]:
    return {"what": f"{kind}, {which}", "run": run, "cpu_us_per_row": cpu, "rows_per_second": speed}


def pairs(kind: str, *cpu: tuple[float, float]) -> list[dict[str, Any]]:
    """CPU a row before and here, run by run."""
    return [
        measured(kind, which, run, of_run[at])
        for run, of_run in enumerate(cpu, start=1)
        for at, which in enumerate((OTHER, HERE))
    ]


def test_a_ratio_is_the_median_of_the_runs_ratios() -> None:
    [found] = compared(pairs("chunks of 10", (10, 5), (20, 12), (40, 30)))

    assert found.name == "chunks of 10"
    assert found.cpu_ratio == 0.6
    assert found.cpu == {OTHER: 20, HERE: 12}
    assert found.speed_ratio == 1


def test_more_than_a_tenth_is_too_much_and_a_tenth_is_not() -> None:
    found = compared(
        pairs("same", (10, 10)) + pairs("a tenth", (10, 11)) + pairs("more", (100, 111)) + pairs("less", (10, 5))
    )

    assert verdict(found, 0.1) == ["more"]
    assert verdict(found, 0.2) == []
    assert [line.split()[0] for line in told(found, 0.1).splitlines() if line.endswith("SLOWER")] == ["more"]


def test_a_kind_that_only_one_of_both_ran_is_no_comparison() -> None:
    alone = measured("a kind, of its own", HERE, 1, 10)

    assert compared([alone]) == []
    assert [each.name for each in compared([alone, measured("a kind, of its own", OTHER, 1, 10)])] == [
        "a kind, of its own"
    ]


def test_kinds_are_chosen_by_their_whole_name_or_a_part_of_it() -> None:
    assert [kind.name for kind in chosen(["chunks of 10"], KINDS)] == ["chunks of 10"]
    assert [kind.name for kind in chosen(["of 10,"], KINDS)] == [
        "chunks of 10, one bad in a thousand",
        "chunks of 10, one bad in a hundred",
    ]
    assert chosen([], KINDS) == KINDS
    with pytest.raises(SystemExit, match=r"there is no kind speed\. There are: members, new rows; "):
        chosen(["members", "speed"], KINDS)


def test_a_commit_that_is_not_there_is_named() -> None:
    command = [sys.executable, "-m", "benchmarks", "compare", "no-such-branch", "--kind", "members"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    assert done.returncode == 2
    assert f"there is no commit no-such-branch in {ROOT}" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_option_is_no_commit() -> None:
    with pytest.raises(UnknownCommitError):
        resolve("--git-dir")


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose last commit holds another package than the folder does, and that one flow imports from."""
    for name in ("lovelace_streams", "dataflows"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("WHICH = 'committed'\n")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").touch()
    (tmp_path / "benchmarks" / "old_flow.py").write_text("from lovelace_streams import WHICH as flow\n")
    (tmp_path / "benchmarks" / "new_flow.py").write_text("import lovelace_streams.new\nflow = 1\n")
    shutil.copy(ROOT / "benchmarks" / "which_flow.py", tmp_path / "benchmarks")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-C", str(tmp_path)]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    (tmp_path / "lovelace_streams" / "__init__.py").write_text("WHICH = 'changed'\n")
    (tmp_path / "lovelace_streams" / "new.py").touch()
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    return tmp_path


def test_each_package_is_imported_and_not_the_installed_one(older: Path) -> None:
    with builds("HEAD") as found:
        which = {
            name: build.python("-c", "import lovelace_streams as it; print(it.WHICH)").stdout.strip()
            for name, build in found.items()
        }
        unpacked = found[OTHER].root
        assert found[HERE].root == older
        assert unpacked.is_dir()

    assert which == {OTHER: "committed", HERE: "changed"}
    assert not unpacked.parent.exists()


def test_a_second_commit_takes_the_place_of_the_folder(older: Path) -> None:
    with builds("HEAD", after="HEAD") as found:
        code = "import lovelace_streams as it; print(it.WHICH)"
        which = {name: build.python("-c", code).stdout.strip() for name, build in found.items()}
        roots = {build.root for build in found.values()}

    assert which == {OTHER: "committed", HERE: "committed"}
    assert len(roots) == 2
    assert older not in roots


def test_what_was_unpacked_is_gone_after_an_error(older: Path) -> None:
    unpacked: list[Path] = []

    def interrupted() -> None:
        with builds("HEAD") as found:
            unpacked.append(found[OTHER].root)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [each.parent.exists() for each in unpacked] == [False]


def test_a_flow_that_the_other_package_cant_build_is_left_out_with_the_reason(older: Path) -> None:
    with builds("HEAD") as found:
        assert found[OTHER].lacks("benchmarks.old_flow") == ""
        assert (
            found[OTHER].lacks("benchmarks.new_flow") == "ModuleNotFoundError: No module named 'lovelace_streams.new'"
        )
        assert found[HERE].lacks("benchmarks.new_flow") == ""
        old, new = (Kind(name, flow=f"benchmarks.{name}_flow") for name in ("old", "new"))
        kinds, skipped = runnable(found, [old, new])

    assert kinds == [old]
    assert list(skipped) == ["new"]


def test_a_flow_that_cant_be_built_here_ends_it(older: Path) -> None:
    (older / "lovelace_streams" / "new.py").unlink()

    with builds("HEAD") as found, pytest.raises(SystemExit, match=r"benchmarks\.new_flow can't be built here: Module"):
        runnable(found, [Kind("new", flow="benchmarks.new_flow")])


def test_another_package_than_its_own_ends_it(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="before: imports .*/lovelace_streams, .*, not"):
        Build("before", tmp_path, flows=ROOT).verify()


def test_a_worker_that_is_started_from_this_folder_runs_the_other_package(
    older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytewax imports from the current folder first."""
    monkeypatch.chdir(older)
    with builds("HEAD") as found:
        shown = found[OTHER].python("-m", "bytewax.run", "benchmarks.which_flow").stdout.splitlines()
        root = found[OTHER].root

    assert [Path(line).parent for line in shown] == [root, root]


def test_results_are_kept_of_a_comparison_that_found_something_slower() -> None:
    slower = [{"what": "a"}, {"summary": True, "slower": ["a"]}]

    assert was_measured(slower, 1)
    assert not was_measured([{"summary": True, "slower": []}], 1)
    assert not was_measured([], 0)
