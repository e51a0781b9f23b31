"""Where a group may be moved: back, and never past records that nobody has settled."""

import pytest

from lovelace_streams.admin.rewind import Move, RewindTarget


def move(committed: int | None, to: int, low: int = 10, high: int = 100) -> Move:
    return Move("raw", "T", 0, low, high, committed, to)


@pytest.mark.parametrize(
    ("it", "moves", "records"),
    [
        (move(50, 20), True, 30),
        (move(50, 50), False, 0),
        (move(50, 60), False, 0),
        (move(None, 10), True, 90),
        (move(None, 20), False, 0),
        (move(5, 10), True, 0),
        (move(5, 20), False, 0),
    ],
)
def test_back_and_never_past_what_nobody_settled(it: Move, moves: bool, records: int) -> None:
    assert (it.moves, it.records) == (moves, records)
    assert bool(it.why) is not (moves and it.committed == 50), "what is not plain is explained"


def test_an_empty_partition_stays_and_says_so() -> None:
    for it in (move(None, 0, 0, 0), move(7, 10, 10, 10), move(10, 10, 10, 10)):
        assert (it.moves, it.why) == (False, "the partition is empty")


@pytest.mark.parametrize("text", ["latest", "-5", "2026-01-31", ""])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        RewindTarget.of(text)
