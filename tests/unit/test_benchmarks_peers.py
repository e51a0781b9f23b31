"""What the contest rests on and no run shows: everybody gets the same rows, and what the summaries say of them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from benchmarks.common import payload
from benchmarks.isolation import summary as isolated
from benchmarks.latency import percentiles
from benchmarks.peers.__main__ import summary
from benchmarks.peers.contenders import contenders
from benchmarks.peers.records import Load, flat, nested, user, values
from dataflows.discord import Member
from lovelace_streams import RecordContext

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"


def result(what: str, speed: int, *, complete: bool = True, digest: str = "same") -> dict[str, Any]:
    counts = {"written": 10, "good": 10, "dead_letters": 0, "bad": 0}
    figures = {"rows": 10, "rows_per_second": speed, "cpu_us_per_row": 4.0, "peak_mb": 100.0}
    return {"what": what, "run": 1, "complete": complete, "rows_digest": digest, **counts, **figures}


def test_a_flat_record_is_the_row_of_the_nested_one() -> None:
    raw, ready = (msgspec.json.decode(form(payload(4))) for form in (nested, flat))
    row = Member.from_raw(raw["d"], root=raw, of=RecordContext(timestamp=datetime.now(UTC)))

    read = ready["payload"]
    assert {name: read[name] for name in ("guild_id", "user_id", "username", "display_name", "avatar")} == {
        name: getattr(row, name) for name in ("guild_id", "user_id", "username", "display_name", "avatar")
    }
    assert read["roles"] == "{" + ",".join(map(str, row.roles)) + "}"
    assert [field["field"] for field in ready["schema"]["fields"]] == list(read)


def test_the_rows_that_are_looked_for_are_good_and_hold_the_last_of_each_partition() -> None:
    load = Load(rows=900, warm=100, bad=0.5, badness="check")
    bad = {number for number in range(1, load.total + 1) if load.is_bad(number)}

    assert not bad & load.marks
    assert set(load.last) == {998, 999, 1000} <= load.marks
    assert load.bad_ones() == len(bad) == sum(b"xxxx" in value for value in values(load, nested))
    assert 300 < len(bad) < 500
    assert user(1) > 10**17


def test_ours_is_compared_with_each_peer_of_the_same_setting() -> None:
    said = summary(
        [
            result("lovelace_streams, best, new rows", 100),
            result("lovelace_streams, batch 100, new rows", 80),
            result("bento, best, new rows", 25),
            result("kafka connect, best, new rows", 0, complete=False, digest="none"),
        ]
    )

    assert said["ratios"] == {"lovelace_streams, best, new rows / bento, best, new rows": 4.0}
    assert list(said["incomplete"]) == ["kafka connect, best, new rows"]
    assert said["same_rows"]


def test_who_wrote_all_in_one_piece_has_no_speed() -> None:
    at_once = result("quix streams, best, new rows", 0) | {"rows": 0, "cpu_us_per_row": None}
    said = summary([result("lovelace_streams, best, new rows", 100), at_once])

    assert said["ratios"] == {}
    assert list(said["rows_per_second"]) == ["lovelace_streams, best, new rows"]


def test_other_rows_are_seen() -> None:
    assert not summary([result("a, best, new rows", 1), result("b, best, new rows", 1, digest="another")])["same_rows"]


@pytest.mark.parametrize("name", ["members", "dead_letters"])
def test_both_of_bentos_configurations_map_alike(name: str) -> None:
    [mapping] = yaml.safe_load((PEERS / "bento" / f"{name}.yaml").read_text())["pipeline"]["processors"]
    [plain] = yaml.safe_load((PEERS / "bento" / "members.yaml").read_text())["pipeline"]["processors"]

    assert mapping["mapping"].partition("[")[2] == plain["mapping"].partition("[")[2]


def test_who_cant_be_built_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SystemExit, match="nobody is left"):
        contenders(tmp_path, only="bento")
    assert capsys.readouterr().err == "bento is left out: building it takes Go 1.23 or newer on the PATH\n"


def test_latencies_are_told_by_what_few_exceed() -> None:
    assert percentiles([float(n) for n in range(1000)]) == {"p50_ms": 500.0, "p99_ms": 990.0, "p999_ms": 999.0}


def test_each_share_of_bad_ones_is_compared_with_none() -> None:
    found = [result(f"ours, best, check, {share} %", speed) for share, speed in (("0", 100), ("1", 95), ("10", 80))]

    assert isolated(found)["ratios"] == {
        "ours, best, check, 1 % / ours, best, check, 0 %": 0.95,
        "ours, best, check, 10 % / ours, best, check, 0 %": 0.8,
    }
