"""The names of the writer contract: old names work for one more release, and warn with the new one."""

from collections.abc import Sequence
from typing import Any

import pytest

from lovelace_streams import writers
from lovelace_streams.rows import Row
from lovelace_streams.writers import Capabilities, Entry, RowOutcome, dry_run

OLD = {
    "End": "RowOutcome",
    "Result": "RowResult",
    "Encodes": "SupportsEncode",
    "Evolves": "SupportsEvolution",
    "order_of": "sequence_of",
}


@pytest.mark.parametrize("old", OLD)
def test_an_old_name_works_and_warns(old: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} is called {OLD[old]} now"):
        found = getattr(writers, old)

    assert found is getattr(writers, OLD[old])


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Ending'"):
        _ = writers.Ending


def test_capabilities_take_their_old_names() -> None:
    with pytest.warns(DeprecationWarning, match="keeps_absent=…. is called partial_updates now"):
        found = Capabilities(keeps_absent=False)

    assert found == Capabilities(partial_updates=False)


def test_an_entry_has_its_old_attributes() -> None:
    entry = Entry(Row(), sequence=7, same_item=True)

    with pytest.warns(DeprecationWarning, match="Entry.sequence now"):
        assert entry.order == 7
    with pytest.warns(DeprecationWarning, match="Entry.same_item now"):
        assert entry.joined is True


def test_a_writer_with_the_old_name_rehearse_is_called() -> None:
    class Rehearsing:
        def rehearse(self, block: Sequence[Entry]) -> list[Any]:
            return [RowOutcome.WRITTEN] * len(block)

    with pytest.warns(DeprecationWarning, match="Rehearsing.rehearse is called dry_run now"):
        assert dry_run(Rehearsing(), [Entry(Row())]) == [RowOutcome.WRITTEN]
