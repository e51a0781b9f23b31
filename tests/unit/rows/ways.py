"""A value through both ways of mapping, which have to agree: the generated one and the interpreter."""

from typing import Any

from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import Envelope, Record
from lovelace_streams.rows import Row
from lovelace_streams.rows.interpreter import interpret
from lovelace_streams.rows.normalizer import normalizer

NOW = 1_700_000_000_000


def record(value: bytes | None = None, **fields: Any) -> Record:
    return Record("topic", 3, 7, 0, 0, fields.pop("key", None), value, [], fields.pop("timestamp", NOW), **fields)


def row_class(hint: Any, **options: Any) -> type[Row]:
    body = {"__annotations__": {"id": int, "x": hint}, "__module__": __name__}
    if "default" in options:
        body["x"] = options.pop("default")
    return type(Row)("Made", (Row,), body, table="made", **{"primary_key": "id", **options})


def outcome(row: type[Row], text: str, **fields: Any) -> Any:
    """The value of column x, or the reason and detail; both ways of mapping agree on it."""
    oks: list[Envelope[Any]] = []
    errs: list[Any] = []
    JsonDecoder(row).decode(record(text.encode(), **fields), oks, errs, [])
    (envelope,) = oks
    item, root = envelope.payload.plain()

    def ended(make: Any) -> Any:
        try:
            return make().x
        except RecordFault as fault:
            return str(fault.reason), fault.detail

    generated = ended(lambda: normalizer(row).normalize(envelope, NOW))
    assert repr(generated) == repr(ended(lambda: interpret(row, item, envelope.record, root, NOW)))
    return generated


def mapped(hint: Any, text: str, **options: Any) -> Any:
    return outcome(row_class(hint, **options), f'{{"id": 1, "x": {text}}}')


def check_refused(hint: Any, text: str, reason: str, detail: str | None) -> None:
    """A value is refused with this reason, and with this detail unless that is None; neither tells the value."""
    refused = mapped(hint, text)

    assert refused[0] == reason, refused
    assert detail is None or refused[1] == detail
    assert "secret" not in refused[1]
