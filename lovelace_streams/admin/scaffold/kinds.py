"""Several kinds of messages in one topic: by which field they are told apart, and where the items of each are.

The names of kinds are shown: they are names of a protocol, such as `order_paid`. So a field counts only if it is named
as such fields are, and if its texts are few and look like names.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

FIELDS = re.compile(
    r"@?\$?(t|type|kind|event|action|op|(event|message|record|payload)_?(type|name|kind))", re.IGNORECASE
)
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}")
KINDS_MAX = 50


class Kinds(msgspec.Struct, frozen=True):
    """The kinds of a topic's messages."""

    field: str
    counts: dict[str, int]
    """Kind → its messages in the sample, the most frequent first."""
    always: dict[str, frozenset[str]]
    """Kind → the paths, of one or two names, that all of its messages have."""
    container: str
    """The field that holds an object in each message, with what tells the kinds apart in it; "" if the top does."""

    def paths(self, key: Sequence[str]) -> dict[str, str]:
        """Kind → the path of its items, for the kinds that have the fields of a row's key."""
        found = {kind: self._path(kind, key) for kind in self.counts}
        return {kind: path for kind, path in found.items() if path}

    def _path(self, kind: str, key: Sequence[str]) -> str:
        always = self.always[kind]
        if self.container and always.issuperset(f"{self.container}.{name}" for name in key):
            return self.container
        return "$" if always.issuperset(key) else ""

    def __str__(self) -> str:
        return ", ".join(f"{kind} ({count})" for kind, count in self.counts.items())


def kinds_of(objects: Sequence[Mapping[str, Any]]) -> Kinds | None:
    """Find the kinds of messages; None where all have one shape, or where no field tells them apart."""
    for field in objects[0] if objects else ():
        if not FIELDS.fullmatch(field):
            continue
        by_kind: dict[str, list[Mapping[str, Any]]] = {}
        for each in objects:
            name = each.get(field)
            if not isinstance(name, str) or not NAME.fullmatch(name):
                break
            by_kind.setdefault(name, []).append(each)
        else:
            if 1 < len(by_kind) <= min(KINDS_MAX, len(objects) / 2) and (kinds := _kinds(field, by_kind)):
                return kinds
    return None


def _kinds(field: str, by_kind: Mapping[str, list[Mapping[str, Any]]]) -> Kinds | None:
    paths = {kind: [_paths(each) for each in found] for kind, found in by_kind.items()}
    always = {kind: frozenset.intersection(*found) for kind, found in paths.items()}
    ever = {kind: frozenset.union(*found) for kind, found in paths.items()}
    telling = {path for one in paths for other in paths for path in always[one] - ever[other]}
    if not telling:
        return None
    counts = dict(sorted(((kind, len(found)) for kind, found in by_kind.items()), key=lambda pair: -pair[1]))
    return Kinds(field, counts, always, _container(telling, [each for found in by_kind.values() for each in found]))


def _container(telling: Iterable[str], objects: Sequence[Mapping[str, Any]]) -> str:
    names = {path.partition(".")[0] for path in telling if "." in path}
    return next((name for name in sorted(names) if all(isinstance(each.get(name), dict) for each in objects)), "")


def _paths(message: Mapping[str, Any]) -> frozenset[str]:
    inner = (f"{name}.{below}" for name, value in message.items() if isinstance(value, dict) for below in value)
    return frozenset([*message, *inner])
