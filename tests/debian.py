"""Programs that come from Debian: those on PATH, or installed where we may, which is what continuous integration is."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

APT = ("apt-get", "--yes", "--quiet", "-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=3")
CI = os.environ.get("CI") == "true"


def debian_program(package: str, program: str) -> Path:
    """Where `program` is, of Debian's `package`; skips the test where it is not there and we may not install it.

    Under CI=true that is a failure, and so is an installation that fails. Two processes take turns.
    """
    if (found := shutil.which(program)) is None and _may_install():
        with (Path(tempfile.gettempdir()) / "lovelace-debian.lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            if (found := shutil.which(program)) is None:
                _install(package)
                found = shutil.which(program)
    if found is None:
        (pytest.fail if CI else pytest.skip)(
            f"no `{program}`: as root, apt-get install --no-install-recommends {package}"
        )
    return Path(found)


def unpacked_program(package: str, program: str, place: str = "usr/bin") -> Path:
    """Where `program` is, of Debian's `package`: one on PATH, or one unpacked beside the system.

    For programs that need nothing of their own but their binary: no root is needed, no service is set up or started.
    """
    return Path(found) if (found := shutil.which(program)) else unpacked_file(package, f"{place}/{program}")


def unpacked_file(package: str, name: str) -> Path:
    """Where a file of Debian's `package` is, unpacked beside the system."""
    folder = Path(tempfile.gettempdir()) / f"lovelace-debian-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / package / name
    with (folder / "lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not path.exists():
            _unpack(package, folder)
    return path


def _unpack(package: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        done = _run(*APT, "download", package, folder=scratch)
        if done.returncode != 0 and _may_install():
            _run(*APT, "update")
            done = _run(*APT, "download", package, folder=scratch)
        packed = next(Path(scratch).glob("*.deb"), None)
        if packed is None:
            (pytest.fail if CI else pytest.skip)(f"apt-get could not download {package}: {done.stderr.strip()[-2000:]}")
        assert _run("dpkg", "-x", str(packed), f"{scratch}/unpacked").returncode == 0
        Path(scratch, "unpacked").rename(folder / package)


def _may_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def _install(package: str) -> None:
    """With the lists of packages that are there, else with new ones."""
    install = (*APT, "install", "--no-install-recommends", package)
    done = _run(*install)
    if done.returncode != 0:
        _run(*APT, "update")
        done = _run(*install)
    if done.returncode != 0:
        (pytest.fail if CI else pytest.skip)(f"apt-get could not install {package}: {done.stderr.strip()[-2000:]}")


def _run(*command: str, folder: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=900, check=False
    )
