"""Folders and files that settings name: made, or one line and exit code 78; no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.harness import ROOT, Fleet, eventually
from tests.faults.test_exit_codes import ended

ENVIRONMENT = {"KAFKA_BROKERS": "127.0.0.1:1", "TOPIC": "t", "PROGRESS_API_URL": "", "PROGRESS_API_TOKEN": "t"}
TLS = {"KAFKA_SECURITY_PROTOCOL": "SSL"}
FILES = ["KAFKA_SSL_CA_LOCATION", "KAFKA_SSL_CERTIFICATE_LOCATION", "KAFKA_SSL_KEY_LOCATION"]


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `lovelace` without a server."""
    return subprocess.run(
        [sys.executable, "-m", "lovelace_streams", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_folder_of_metrics_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with Fleet("tests.faults.keyvalue", ENVIRONMENT | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}, tmp_path) as fleet:
        worker = fleet.start()

        eventually(lambda: folder.is_dir() and any(folder.glob("gauge_*.db")))
        assert worker.process.poll() is None


def test_a_folder_of_metrics_that_can_not_be_written_stops_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = str(tmp_path / "file" / "metrics")
    with Fleet("tests.faults.keyvalue", ENVIRONMENT | {"PROMETHEUS_MULTIPROC_DIR": folder}, tmp_path) as fleet:
        assert f"PROMETHEUS_MULTIPROC_DIR={folder}" in ended(fleet.start())

    told = command("api", PROMETHEUS_MULTIPROC_DIR=folder)
    assert (told.returncode, len(told.stderr.strip().splitlines())) == (78, 1)


@pytest.mark.parametrize("setting", FILES)
def test_a_missing_file_is_named(setting: str, tmp_path: Path) -> None:
    with Fleet("tests.faults.keyvalue", ENVIRONMENT | TLS | {setting: "/nowhere.pem"}, tmp_path) as fleet:
        assert f"{setting}=/nowhere.pem can't be read (No such file or directory)" in ended(fleet.start())

    told = command("dlq", "list", "discord", **TLS, **{setting: "/nowhere.pem"})
    assert (told.returncode, "Traceback" in told.stderr) == (78, False)
    assert f"{setting}=/nowhere.pem" in told.stderr


def test_settings_that_librdkafka_rejects_end_a_command_with_one_line() -> None:
    told = command("dlq", "list", "discord", KAFKA_SECURITY_PROTOCOL="none")

    assert (told.returncode, "Traceback" in told.stderr) == (78, False)
    assert "librdkafka rejects the KAFKA_… settings" in told.stderr


def test_a_file_of_settings_that_is_not_text_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"POLL_SIZE=1\xff\xfe")
    told = subprocess.run(
        [sys.executable, "-m", "lovelace_streams", "jobs"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (told.returncode, "Traceback" in told.stderr) == (78, False)
    assert ".env" in told.stderr
