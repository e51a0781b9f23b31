"""Test a mapping by itself: payloads in, rows out, by the decoder and the normalizer that a flow runs."""

from collections.abc import Collection, Sequence
from typing import Any, cast

import msgspec

from lovelace_streams.formats.decoder import Decoder, Skipped, SupportsPathCheck
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.operators.normalize import sort
from lovelace_streams.records import DeadLetter, Envelope, Record
from lovelace_streams.rows.normalizer import normalizer
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.targets import MapFunction
from lovelace_streams.testing.messages import Message

What = type[Row] | MapFunction | Items | Events


class Mapped(msgspec.Struct, frozen=True):
    """The result of `mapped`: the rows in their order, the failed items, and the reasons of skipped ones.

    >>> Mapped(rows=[], letters=[], skipped=["tombstone"]).row
    Traceback (most recent call last):
    AssertionError: expected one row, got 0 rows; skipped: tombstone
    """

    rows: list[Row]
    letters: list[DeadLetter]
    """Failed items, each with `reason`, `detail`, `step` and `item` (its index in its message)."""
    skipped: list[str]

    @property
    def row(self) -> Any:
        """The only row. Raises `AssertionError`, with the whole result, if there is another number of rows."""
        if len(self.rows) == 1 and not self.letters:
            return self.rows[0]
        raise AssertionError(f"expected one row, got {self}")

    @property
    def letter(self) -> DeadLetter:
        """The only failed item. Raises `AssertionError`, with the whole result, if there is another number of them."""
        if len(self.letters) == 1:
            return self.letters[0]
        raise AssertionError(f"expected one dead letter, got {self}")

    def __str__(self) -> str:
        parts = [f"{len(self.rows)} row{'s' * (len(self.rows) != 1)}"]
        parts += [f"dead letter in {d.step}: {d.reason}{f': {d.detail}' if d.detail else ''}" for d in self.letters]
        parts += [f"skipped: {reason}" for reason in self.skipped]
        return "; ".join(parts)


def mapped(
    what: What | Decoder, *payloads: Any, to: type[Row] | Sequence[type[Row]] = (), skips: Collection[str] = ()
) -> Mapped:
    """Decode and normalize payloads, as a flow with `JsonDecoder(what)` and `normalize` does.

    `what` is a row class, a function, `Items` or `Events`; or a decoder, which needs `to`: the row classes that
    `normalize` is given. A payload is a value for `Message`, or a `Message` if key, headers or time matter. `skips` are
    the flow's own reasons, as for `normalize`. Raises `TypeError` for a decoder without `to`; items that fail do not
    raise, they are in `letters`.

    >>> from typing import Annotated
    >>> from lovelace_streams import From, Row
    >>> class Order(Row, table="orders", primary_key="id"):
    ...     id: int
    ...     country: Annotated[str, From("shipping.country"), str.upper]
    >>> mapped(Order, {"id": "7", "shipping": {"country": "de"}}).row
    Order(id=7, country='DE')
    >>> print(mapped(Order, {"id": 7}))
    0 rows; dead letter in normalize: missing: expected str, got nothing at $.shipping.country
    """
    decoder, targets = _decoder(what), _targets(what, to)
    if isinstance(decoder, SupportsPathCheck):
        decoder.check_paths()
    items: list[Envelope[Any]] = []
    letters: list[DeadLetter] = []
    skipped: list[Skipped] = []
    for number, message in enumerate(map(Message.of, payloads)):
        decoder.decode(_record(message, number), items, letters, skipped)
    ports = sort(normalizer(*targets, skips=skips), items)
    rows = [row for ok in ports.oks for row in (ok.payload if isinstance(ok.payload, tuple) else [ok.payload])]
    ended = [*skipped, *ports.skipped]
    return Mapped(rows, letters + ports.errs, [str(reason) for reason, item in ended for _ in range(item.count)])


def _decoder(what: What | Decoder) -> Decoder:
    return cast("Decoder", what) if hasattr(what, "decode") and not isinstance(what, type) else JsonDecoder(what)


def _targets(what: What | Decoder, to: type[Row] | Sequence[type[Row]]) -> list[Any]:
    if to:
        return [to] if isinstance(to, type) else list(to)
    if isinstance(what, Events):
        rows = [items.row for items in what.events.values()]
        return [row for row in rows if isinstance(row, type)] or rows[:1]
    if hasattr(what, "decode") and not isinstance(what, type):
        raise TypeError("a decoder does not say which rows its items become: mapped(decoder, payload, to=Member)")
    return [what.row if isinstance(what, Items) else what]


def _record(message: Message, number: int) -> Record:
    return Record(
        message.topic or "",
        message.partition,
        number,
        number,
        1,
        message.key_sent,
        message.value_sent,
        message.headers_sent,
        message.ms(number),
        declared=message.items,
    )
