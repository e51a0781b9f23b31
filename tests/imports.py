"""Who may import whom: the table, how it is read, and `python -m tests.imports`, which prints the figures.

A package may import itself and what its row names. `records` and `errors` may be imported by all; `settings` and
`observability` by all but `rows` and `formats`. An entry that ends in `!` means that module alone, not what lies below
it: `writers!` is the contract of writers, without any writer.
"""

import ast
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAME = "lovelace_streams"
PACKAGE = ROOT / NAME

FREE = frozenset({"records", "errors", "columns"})
"""May be imported by all. `columns` knows no more than `records`."""
NEARLY_FREE = frozenset({"settings", "observability"})
"""May be imported by all but the plain logic of rows and formats."""
PURE = frozenset({"records", "errors", "columns", "rows", "formats"})

ALL = (
    "settings http_client rows formats writers observability runtime kafka delivery reporting dead_letters sources"
    " operators flows admin api local testing cli submit avro __init__"
)
MAY_IMPORT: Mapping[str, str] = {
    "records": "",
    "errors": "",
    "columns": "",
    "settings": "",
    "http_client": "",
    "rows": "",
    "formats": "rows runtime.backoff http_client",
    "avro": "formats",
    "writers": "rows http_client",
    "observability": "",
    "runtime": "",
    "kafka": "runtime",
    "delivery": "writers! writers.column_block runtime",
    "reporting": "kafka runtime http_client",
    "dead_letters": "kafka runtime reporting",
    "sources": "kafka runtime formats.decoder formats.made_again rows.normalizer writers! writers.column_block",
    "operators": "formats rows writers! delivery dead_letters reporting runtime",
    "flows": "sources formats writers! rows",
    "submit": "flows.spec reporting.client",
    "__init__": "operators sources flows.spec formats rows reporting runtime.process runtime.start",
    "admin": "flows operators sources dead_letters delivery formats kafka reporting rows runtime writers",
    "api": "flows dead_letters reporting.rates formats rows kafka runtime writers.postgres.connect_faults"
    " writers.postgres.session",
    "local": "",
    "testing": "flows sources operators dead_letters delivery formats kafka reporting rows runtime writers api",
    "cli": "admin api dead_letters flows kafka local reporting sources writers",
    "__main__": "cli",
}
"""Package → what it may import. A test reads it in both directions: nothing else is imported, each entry is needed."""

MAY_USE: Mapping[str, str] = {
    "bytewax": "operators sources flows testing",
    "pydantic_settings": "settings",
    "pydantic": "settings api",
    "fastavro": "formats.avro testing.schemas",
    "pyarrow": "formats.avro",
    "psycopg": "writers.postgres admin.scaffold api local",
    "psycopg_pool": "api",
    "clickhouse_connect": "writers.clickhouse cli.demo",
    "prometheus_client": "observability runtime.gauges api",
    "structlog": ALL,
    "opentelemetry": "observability",
    "confluent_kafka": "kafka dead_letters reporting.publisher admin testing local cli",
    "httpx": "http_client reporting.client testing.flows cli.demo local",
    "fastapi": "api",
    "uvicorn": "api",
    "temporalio": "api cli.demo",
    "psutil": "local",
    "jgo": "local",
    "typer": "cli",
    "rich": "cli local",
}
"""Package that is not ours → where it may be used: its border."""
ENGINE = "bytewax"
ENGINE_FREE = (
    "records errors columns settings http_client rows formats avro writers observability runtime kafka delivery"
    " reporting dead_letters local api.ledger api.models"
)  # fmt: skip
"""Could move to another engine (law 9): none of their modules, nor anything they import, imports Bytewax."""
DRIVERS = frozenset({"psycopg", "psycopg_pool", "clickhouse_connect", "chdb"})


def name_of(path: Path) -> str:
    """`lovelace_streams/writers/__init__.py` → `lovelace_streams.writers`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports_of(module: str) -> frozenset[str]:
    """All modules that a module imports, also within functions: `from package import module` as the module."""
    found: set[str] = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in inner if name in MODULES} or {str(node.module)}
    return frozenset(found)


def inside(module: str) -> str:
    """`lovelace_streams.rows.row` → `rows.row`; the package itself is `__init__`."""
    return "__init__" if module == NAME else module.removeprefix(f"{NAME}.")


def room_of(module: str) -> str:
    """The package or root module that a module belongs to: `rows.row` → `rows`."""
    return inside(module).partition(".")[0]


def is_in(module: str, place: str) -> bool:
    """Whether a module (`rows.row`) lies at a place (`rows`, `rows.row`, `writers!`)."""
    if place.endswith("!"):
        return module == place.removesuffix("!")
    return module == place or module.startswith(f"{place}.")


def is_in_one(module: str, places: str) -> bool:
    """Whether a module of ours lies at one of these places."""
    return any(is_in(inside(module), place) for place in places.split())


def inner_imports() -> Iterator[tuple[str, str]]:
    """(Module, what it imports) of all imports between our packages."""
    for module in MODULES:
        for imported in imports_of(module):
            if imported in MODULES and room_of(imported) != room_of(module):
                yield inside(module), inside(imported)


def is_free(room: str, imported: str) -> bool:
    """Whether everybody may import it."""
    return room_of(f"{NAME}.{imported}") in (FREE if room in PURE else FREE | NEARLY_FREE)


def against_the_rule() -> list[str]:
    """Imports that the table does not allow."""
    return sorted(
        f"{module} imports {imported}"
        for module, imported in inner_imports()
        if not is_free(room := module.partition(".")[0], imported)
        and not any(is_in(imported, place) for place in MAY_IMPORT.get(room, "").split())
    )


def needless_entries() -> list[str]:
    """Entries of the table that no import needs."""
    used = list(inner_imports())
    return [
        f"{room} may import {place}"
        for room, places in MAY_IMPORT.items()
        for place in places.split()
        if not any(module.partition(".")[0] == room and is_in(imported, place) for module, imported in used)
    ]


def across_a_border() -> list[str]:
    """Uses of a package that is not ours where it may not be used."""
    return sorted(
        f"{inside(module)} imports {imported}"
        for module in MODULES
        for imported in imports_of(module)
        if (top := imported.partition(".")[0]) in MAY_USE
        and not any(is_in(inside(module), place) for place in MAY_USE[top].split())
    )


def needless_borders() -> list[str]:
    """Entries of the borders that no import needs."""
    used = [(inside(module), imported.partition(".")[0]) for module in MODULES for imported in imports_of(module)]
    return [
        f"{place} may use {package}"
        for package, places in MAY_USE.items()
        if places != ALL
        for place in places.split()
        if not any(is_in(module, place) and top == package for module, top in used)
    ]


def way_to(module: str, packages: frozenset[str]) -> list[str] | None:
    """The shortest chain of imports from a module to one of these packages."""
    ways, seen = [[module]], {module}
    for way in ways:
        for name in sorted(imports_of(way[-1])):
            if name.partition(".")[0] in packages:
                return [*way, name]
            if name in MODULES and name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return None


def rooms() -> dict[str, set[str]]:
    """Package → the packages that it imports."""
    found: dict[str, set[str]] = {room_of(module): set() for module in MODULES}
    for module, imported in inner_imports():
        found[module.partition(".")[0]].add(imported.partition(".")[0])
    return found


def circles() -> list[list[str]]:
    """Circles of modules, within packages too: each as the modules that import each other."""
    graph = {module: {name for name in imports_of(module) if name in MODULES} for module in MODULES}
    return [sorted(map(inside, part)) for part in _components(graph) if len(part) > 1]


def _components(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Strongly connected components, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> Iterator[list[str]]:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                yield from visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            yield part

    for node in sorted(graph):
        if node not in index:
            yield from visit(node)


def longest_chain() -> list[str]:
    """The longest chain of packages that import one another."""
    graph = rooms()

    @cache
    def below(room: str, seen: frozenset[str] = frozenset()) -> tuple[str, ...]:
        others = [below(other, seen | {room}) for other in sorted(graph[room]) if other not in seen | {room}]
        return (room, *max(others, key=len, default=()))

    return list(max((below(room) for room in sorted(graph)), key=len))


def main() -> None:
    """Print the figures, one JSON object."""
    chain = longest_chain()
    print(
        json.dumps(
            {
                "packages": len(rooms()),
                "modules": len(MODULES),
                "longest_chain": len(chain),
                "chain": chain,
                "imports_between_packages": len(
                    {(m.partition(".")[0], i.partition(".")[0]) for m, i in inner_imports()}
                ),
                "against_the_rule": against_the_rule(),
                "needless_entries": needless_entries(),
                "across_a_border": across_a_border(),
                "needless_borders": needless_borders(),
                "circles": circles(),
            }
        )
    )


if __name__ == "__main__":
    main()
