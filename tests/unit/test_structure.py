"""What holds the package together and no type checker sees: who imports whom (law 9), what is exported and named."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import lovelace_streams
from lovelace_streams.admin.schemas import History, histories, problems
from lovelace_streams.admin.submit import options_of
from lovelace_streams.flows.discovery import find_flow
from tests import imports
from tests.imports import MODULES, PACKAGE, ROOT, tree_of

TEXT = {".py", ".md", ".toml", ".sql", ".yml", ".yaml", ".json", ".avsc", ".html", ".css", ".js", ".lock", ".sh", ""}
RESULTS = ROOT / "benchmarks" / "results"
OURS = ("lovelace_streams", "dataflows", "tests", "benchmarks", "deploy", "docs", "schemas", ".ci")

EXPORTED = """
    UNSET Batch BatchPolicy Before DeadLetter DeploymentFault DestinationFault Envelope Epoch Events From FromKafka
    Items JobProgress JobState JsonDecoder KafkaSettings KafkaSource Lenient LovelaceError Name Outcome Outgoing Pii
    PostgresSettings ProgressSettings Reason Record RecordContext RecordFault Row Scale Settings Settled Skip SkipReason
    Source WorkerSource aggregate_progress batch commit dead_letter decode kafka_source normalize progress rule
    upsert worker_source
"""

PUBLIC = {
    "lovelace_streams.records": "Batch DeadLetter Envelope JobState Origin Outcome Reason Record Settled SkipReason",
    "lovelace_streams.errors": "DeploymentFault DestinationFault LovelaceError RecordFault",
    "lovelace_streams.settings":
        "BatchPolicy ClickHouseSettings KafkaSettings PostgresSettings ProgressSettings Settings",
    "lovelace_streams.rows": "UNSET Before Column Epoch From FromKafka Lenient Pii RecordContext Row Skip Table rule",
    "lovelace_streams.testing": "Mapped MemoryWriter Message Result avro mapped run",
    "lovelace_streams.api": "ApiSettings create_app",
    "lovelace_streams.local": "LocalStack PartStatus down status up",
    "lovelace_streams.cli": "app main",
    "lovelace_streams.writers":
        "Capabilities Entry Evolution Refusal RowOutcome RowResult SupportsEncode SupportsEvolution Writer"
        " check_capabilities items_of sequence_of",
    "lovelace_streams.writers.postgres": "PostgresWriter",
    "lovelace_streams.writers.clickhouse": "ClickHouseWriter",
    "lovelace_streams.writers.memory": "MemoryWriter",
    "lovelace_streams.avro":
        "AvroDecoder Bare Confluent Framing JsonOrAvro NoSchema Registry Schema SingleObject load parse",
    "lovelace_streams.submit": "Outgoing Source keyed_by open_job",
}  # fmt: skip
"""What users' code imports, beside the exported names: these paths go on working, every other path is internal."""


def operators_in(module: str) -> list[str]:
    return [
        node.name
        for node in tree_of(module).body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(mark, ast.Name) and mark.id == "operator" for mark in node.decorator_list)
    ]


def texts() -> Iterator[tuple[Path, str]]:
    """All text files of the repository that somebody wrote."""
    for top in sorted(ROOT.iterdir()):
        if top.is_file() and (top.suffix in TEXT) and not top.name.startswith("."):
            yield top, top.read_text(encoding="utf-8")
        if top.is_dir() and top.name in OURS:
            for path in sorted(top.rglob("*")):
                if path.is_file() and path.suffix in TEXT and "__pycache__" not in path.parts:
                    yield path, path.read_text(encoding="utf-8")


OPERATOR_MODULES = [module for module in MODULES if operators_in(module)]


@pytest.mark.parametrize("module", [m for m in MODULES if imports.is_in_one(m, imports.ENGINE_FREE)])
def test_what_operators_do_knows_no_engine(module: str) -> None:
    way = imports.way_to(module, frozenset({imports.ENGINE}))

    assert way is None, f"law 9: {' → '.join(way or ())}"


@pytest.mark.parametrize("module", OPERATOR_MODULES)
def test_operators_know_no_database_driver(module: str) -> None:
    way = imports.way_to(module, imports.DRIVERS)

    assert way is None, f"law 9: {' → '.join(way or ())}"


def test_packages_import_what_the_table_allows() -> None:
    assert imports.against_the_rule() == []
    assert imports.across_a_border() == []
    assert imports.circles() == []


def test_the_table_allows_what_is_needed_and_no_more() -> None:
    assert imports.needless_entries() == []
    assert imports.needless_borders() == []
    assert imports.rooms().keys() == imports.MAY_IMPORT.keys()


def test_every_operator_is_exported() -> None:
    assert {name for module in OPERATOR_MODULES for name in operators_in(module)} <= set(lovelace_streams.__all__)


PRODUCT_WORDS_ALLOWED = {
    ("cli/jobs.py", "guild"): "an option of `lovelace submit` that goes on working for one release, and says so",
    ("api/config.py", "onboarding"): "the defaults of two settings, which deployments rely on",
}


def dataflows() -> list[str]:
    """Modules and packages under dataflows/ that belong to the repository: not those that `lovelace init` wrote."""
    files = {path.stem: path for path in (ROOT / "dataflows").glob("[!_]*.py")}
    files |= {path.parent.name: path for path in (ROOT / "dataflows").glob("*/__init__.py")}
    return sorted(name for name, path in files.items() if "`lovelace init`" not in path.read_text(encoding="utf-8"))


def product_words() -> list[str]:
    """The names of dataflows, and the options that their `messages` take."""
    sources = [getattr(find_flow(name), "SOURCE", None) for name in dataflows()]
    options = {option for source in sources if source is not None for option in options_of(source)}
    return [*dataflows(), *sorted(options)]


def test_the_library_names_no_dataflow() -> None:
    """Neither as a word nor within a name: `guild_id` names `guild`."""
    named = re.compile(rf"(?<![a-z])({'|'.join(product_words())})(?![a-z])", re.IGNORECASE)
    found = {
        (path.relative_to(PACKAGE).as_posix(), hit[0].lower())
        for path, text in texts()
        if PACKAGE in path.parents
        for hit in named.finditer(text)
    }

    assert {"discord", "onboarding", "guild"} <= set(product_words())
    assert found - PRODUCT_WORDS_ALLOWED.keys() == set(), "law 9: the command line finds dataflows by name"
    assert PRODUCT_WORDS_ALLOWED.keys() - found == set(), "these exceptions are needed no more"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(tree_of(module))


@pytest.mark.parametrize("module", OPERATOR_MODULES)
def test_every_operator_has_a_page_or_shares_one(module: str) -> None:
    pages = ROOT / "docs" / "operators"
    for name in operators_in(module):
        page = pages / f"{name}.md"
        assert page.is_file(), f"docs/operators/{name}.md is missing"
        assert page.read_text(encoding="utf-8").startswith(f"# `{name}`")


def test_the_exported_names_are_an_interface() -> None:
    assert set(lovelace_streams.__all__) == set(EXPORTED.split())
    assert [name for name in EXPORTED.split() if not hasattr(lovelace_streams, name)] == []


@pytest.mark.parametrize("module", PUBLIC)
def test_public_paths_are_an_interface(module: str) -> None:
    found = importlib.import_module(module)

    assert [name for name in PUBLIC[module].split() if not hasattr(found, name)] == []


def test_no_path_of_a_machine_is_written_down() -> None:
    machine = re.compile(r"(?<![\w.}])/(home|Users|root|work|workspace|mnt)/\w")
    found = [f"{path.relative_to(ROOT)}: {hit[0]}" for path, text in texts() for hit in machine.finditer(text)]

    assert found == []


def test_what_comments_refer_to_is_in_the_repository() -> None:
    coded = re.compile(r"\b[HST]\d{1,2}\b|\bDESIGN\b")
    paged = re.compile(r"\bdocs/[\w/-]+\.md\b|\bdocs/decisions/\d{4}\b(?!-)")
    decided = re.compile(r"\bdecisions?\s+(\d{4})\b")
    decisions = {path.name[:4] for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md")}
    terms = set(re.findall(r"\*(\w+)\*", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")))
    found = []
    for path, text in texts():
        if RESULTS in path.parents:
            continue
        known = terms | set(re.findall(r"^([A-Z]\d{1,2}) = ", text, re.MULTILINE))  # a constant of the file
        wrong = [hit[0] for hit in coded.finditer(text) if hit[0] not in known]
        wrong += [hit[0] for hit in paged.finditer(text) if path.suffix == ".py" and not (ROOT / hit[0]).is_file()]
        wrong += [hit[0] for hit in decided.finditer(text) if hit[1] not in decisions]
        found += [f"{path.relative_to(ROOT)}: {hit}" for hit in wrong]

    assert found == [], "say the reason, or name a page that does"


def test_laws_are_cited_by_the_numbers_that_they_have() -> None:
    """They are stated in docs/delivery-guarantees.md, and nowhere else; ARCHITECTURE.md says where each is kept."""
    page = (ROOT / "docs" / "delivery-guarantees.md").read_text(encoding="utf-8")
    laws = re.findall(r"^(\d+)\. \*\*", page.partition("\n## The laws\n")[2].partition("\n## ")[0], re.MULTILINE)
    kept = re.findall(r"^\| (\d+) ", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.MULTILINE)
    cited = re.compile(r"\b(?:law[\s#]+\d+|laws[\s#]+\d+(?:(?:,|,? and|,? or|–| to)[\s#]*\d+)*)", re.IGNORECASE)
    found = [
        (number, str(path.relative_to(ROOT)))
        for path, text in texts()
        for hit in cited.finditer(text)
        for number in re.findall(r"\d+", hit[0])
    ]

    assert laws == kept == [str(number) for number in range(1, 11)]
    assert [f"{path}: law {number}" for number, path in found if number not in laws] == []
    assert ("3", "lovelace_streams/runtime/in_flight.py") in found, "a list of laws is read to its end"


@pytest.mark.parametrize("history", histories(ROOT / "schemas" / "avro"), ids=lambda history: history.name)
def test_every_version_of_a_schema_reads_the_older_ones(history: History) -> None:
    assert list(problems(history)) == []
