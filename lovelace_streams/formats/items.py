"""What every decoder does with what it found: compare the number of items, hand them on, or end the message whole."""

from typing import Any

from msgspec import UNSET

from lovelace_streams.errors import RecordFault
from lovelace_streams.records import ITEMS_MAX, DeadLetter, Envelope, Reason, Record, SkipReason
from lovelace_streams.rows.normalizer import Message, RawItem
from lovelace_streams.rows.paths import find
from lovelace_streams.rows.targets import Target
from lovelace_streams.rows.values import json_type_name


def items_at(target: Target, root: Any, value: bytes) -> RawItem | list[RawItem]:
    """The items of a message that was decoded plainly: an object is one, a list holds many; raises `RecordFault`."""
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
    found: list[RawItem] | SkipReason,
    oks: list[Envelope[RawItem]],
    errs: list[DeadLetter],
    skipped: list[tuple[SkipReason, Envelope[Any]]],
    step: str,
) -> None:
    """Compare the number with the header's (law 6), take of a replay what it names, and set `record.items`."""
    if not isinstance(found, SkipReason):
        if len(found) > ITEMS_MAX:
            fail_message(record, errs, step, RecordFault(Reason.TOO_LARGE, f"expected at most {ITEMS_MAX} items"))
            return
        if record.declared is not None and record.declared != len(found):
            detail = f"expected {record.declared} items by the header, got {len(found)}"
            fail_message(record, errs, step, RecordFault(Reason.ITEMS_MISMATCH, detail))
            return
        if found:
            named = _replayed_items(record)
            numbers = range(len(found)) if named is None else named
            record.items = len(numbers)
            for number in numbers:
                if number < len(found):
                    oks.append(Envelope(record, number, found[number]))
                else:
                    detail = f"expected the items that the replay names, got {len(found)}"
                    errs.append(DeadLetter(record, number, 1, step, Reason.ITEMS_MISMATCH, detail))
            return
        found = SkipReason.EMPTY
    spans = _item_spans(record)
    record.items = sum(count for _, count in spans)
    skipped.extend((found, Envelope(record, first, None, count)) for first, count in spans)


def fail_message(record: Record, errs: list[DeadLetter], step: str, fault: RecordFault) -> None:
    """End a message whole: as many items as its header says, one without; of a replay those that it names."""
    spans = _item_spans(record)
    record.items = sum(count for _, count in spans)
    errs.extend(
        DeadLetter(record, first, count, step, fault.reason, fault.detail, fault.code) for first, count in spans
    )


def _replayed_items(record: Record) -> list[int] | None:
    return sorted(set(record.origin.items)) if record.origin is not None and record.origin.items else None


def _item_spans(record: Record) -> list[tuple[int, int]]:
    named = _replayed_items(record)
    return [(0, record.declared or 1)] if named is None else [(number, 1) for number in named]
