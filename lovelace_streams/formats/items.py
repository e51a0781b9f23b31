"""What a decoder does with a message's items: find them, compare their number, and append them; or fail the message."""

from typing import Any

from msgspec import UNSET

from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.decoder import Skipped
from lovelace_streams.records import ITEMS_MAX, DeadLetter, Envelope, Reason, Record, SkipReason
from lovelace_streams.rows.normalizer import Message, RawItem
from lovelace_streams.rows.paths import find
from lovelace_streams.rows.targets import Target
from lovelace_streams.rows.values import json_type_name

Found = RawItem | list[RawItem] | str
"""What a message holds: one item, a list of items, or none for a reason (`SkipReason`, or one of the flow's own)."""


def items_at(target: Target, root: Any, value: bytes) -> RawItem | list[RawItem]:
    """Find the items of a message with plain values: an object is one item, a list holds many.

    `value` are the bytes of the message. Raises `RecordFault` if something else is there, or nothing.
    """
    found = find(root, target.path)
    if found is UNSET:
        raise RecordFault(Reason.MISSING, f"expected items, got nothing at {target.base}")
    if isinstance(found, dict):
        return RawItem(target, None, None, plain_item=found, plain_root=root)
    if isinstance(found, list):
        message = Message(value, root)
        return [RawItem(target, None, None, None, message, item, root) for item in found]
    raise RecordFault(Reason.WRONG_TYPE, f"expected object or list, got {json_type_name(found)} at {target.base}")


def emit_items(
    record: Record,
    found: Found,
    oks: list[Envelope[RawItem]],
    errs: list[DeadLetter],
    skipped: list[Skipped],
    step: str,
) -> None:
    """Append what a message holds to one of the lists, and set `record.items`.

    A message with more than `ITEMS_MAX` items, or with another number than its header says (law 6), fails as a whole.
    Of a replayed message only the items that it names are appended.
    """
    items = [found] if isinstance(found, RawItem) else found
    if isinstance(items, str):
        _skip_message(record, items, skipped)
    elif len(items) > ITEMS_MAX:
        fail_message(record, errs, step, RecordFault(Reason.TOO_LARGE, f"expected at most {ITEMS_MAX} items"))
    elif record.declared is not None and record.declared != len(items):
        detail = f"expected {record.declared} items by the header, got {len(items)}"
        fail_message(record, errs, step, RecordFault(Reason.ITEMS_MISMATCH, detail))
    elif not items:
        _skip_message(record, SkipReason.EMPTY, skipped)
    else:
        replayed = _replayed_items(record)
        numbers = range(len(items)) if replayed is None else replayed
        record.items = len(numbers)
        for number in numbers:
            if number < len(items):
                oks.append(Envelope(record, number, items[number]))
            else:
                detail = f"expected the items that the replay names, got {len(items)}"
                errs.append(DeadLetter(record, number, 1, step, Reason.ITEMS_MISMATCH, detail))


def fail_message(record: Record, errs: list[DeadLetter], step: str, fault: RecordFault) -> None:
    """Fail a message as a whole: as many items as its header says, 1 without one; of a replay those that it names."""
    spans = _item_spans(record)
    record.items = sum(count for _, count in spans)
    errs.extend(
        DeadLetter(record, first, count, step, fault.reason, fault.detail, fault.code) for first, count in spans
    )


def _skip_message(record: Record, reason: str, skipped: list[Skipped]) -> None:
    """Skip a message as a whole, with as many items as `fail_message` counts."""
    spans = _item_spans(record)
    record.items = sum(count for _, count in spans)
    skipped.extend((reason, Envelope(record, first, None, count)) for first, count in spans)


def _item_spans(record: Record) -> list[tuple[int, int]]:
    """Return the items of a message that can't be decoded: first number, and how many from there on."""
    replayed = _replayed_items(record)
    return [(0, record.declared or 1)] if replayed is None else [(number, 1) for number in replayed]


def _replayed_items(record: Record) -> list[int] | None:
    """Return the numbers of the items that a replayed message names; None: all of them."""
    return sorted(set(record.origin.items)) if record.origin is not None and record.origin.items else None
