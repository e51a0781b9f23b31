"""Whether a message of a schema can have a path at all: a path that it can't have is absent in every row."""

from collections.abc import Iterable, Iterator, Sequence

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.formats.avro.schema import Node
from lovelace_streams.rows.paths import JsonPath, spelled
from lovelace_streams.rows.targets import Target


class ImpossiblePath(DeploymentFault):
    """Rows read a path that no message of the flow's own schema can have."""


def impossible_paths(field: str | None, targets: Iterable[Target], schemas: Iterable[Node]) -> Iterator[str]:
    """Say what no message of these schemas has: the events' `field`, the items, and the paths of columns.

    An event whose items are in no schema may be one of the same topic in JSON; it is told only if no event's are. A
    column that is read by its own name may be meant for another event, and is no mistake if it may be absent.
    """
    roots = list(schemas)
    if field is not None and not any(has_path(root, (field,)) for root in roots):
        yield f"the field of the events: {spelled('$', [field])}"
    items = {
        target: [item for root in roots for node in _below(root, target.path) for item in _items(node)]
        for target in targets
    }
    if not any(items.values()):
        yield from (f"the items of {target.name}: {target.base}" for target in items)
    for target, nodes in items.items():
        for column in target.fields if nodes else ():
            own_name = (JsonPath(root=False, parts=(column.column.name,)),)
            within = [(place, roots if place.root else nodes) for place in column.places]
            if (column.required or column.places != own_name) and not _any(within):
                paths = " or ".join(place.below(target.base) for place in column.places)
                yield f"{target.name}.{column.column.name}: {paths}"


def _any(within: Sequence[tuple[JsonPath, Sequence[Node]]]) -> bool:
    """Whether one of these paths may be found, or there is none to find."""
    return not within or any(has_path(node, place.parts) for place, nodes in within for node in nodes)


def has_path(node: Node, parts: tuple[str, ...]) -> bool:
    """Whether a value of a type may have something at a path."""
    return bool(_below(node, parts))


def _below(node: Node, parts: tuple[str, ...]) -> list[Node]:
    """Return the types that may be at a path; [] if there is no such path."""
    if not parts:
        return [node]
    if node.kind == "union":
        return [found for branch in node.inner for found in _below(branch, parts)]
    if node.kind == "map":
        return _below(node.inner[0], parts[1:])
    return [found for field in node.fields if field.name == parts[0] for found in _below(field.type, parts[1:])]


def _items(node: Node) -> list[Node]:
    """Return the types of the items: a list holds many, anything else is one."""
    if node.kind == "union":
        return [item for branch in node.inner for item in _items(branch)]
    return list(node.inner) if node.kind == "array" else [node]
