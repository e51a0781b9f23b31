"""The documentation says what is there: settings, metrics, endpoints, reasons; its links lead on, its code runs."""

import doctest
import importlib
import inspect
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

import lovelace_streams as ls
from lovelace_streams import Reason, Settings, SkipReason
from lovelace_streams.api import ApiSettings, create_app
from lovelace_streams.api.gauges import GAUGES
from tests.pages import FENCE, names_of

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
ELSEWHERE = {"README.md", "docs/quickstart.md"}
"""Their code is part of a file: compared with it below, and run by tests/servers/test_quickstart.py."""
RUN = [
    pytest.param(match[2], id=f"{page}:{text.count(chr(10), 0, match.start()) + 2}")
    for page, text in TEXTS.items()
    for match in FENCE.finditer(text)
    if match[1] == "python" and ">>> " not in match[2] and page not in ELSEWHERE
]
SHOWN = re.compile(r"^```python\n>>> ", re.MULTILINE)
EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "lovelace_streams").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
ROW = re.compile(r"^\| `([^`]+)`", re.MULTILINE)
HEADINGS = re.compile(r"^#+ (.*)$", re.MULTILINE)
PARTS = ("Takes, gives", "Failures", "What a restart repeats", "Example")


def operators() -> list[str]:
    """The public names that make a step."""
    functions = {name: getattr(ls, name) for name in ls.__all__}
    return [name for name, it in functions.items() if callable(it) and "step_id" in _parameters(it)]


def _parameters(it: object) -> list[str]:
    return list(inspect.signature(it).parameters) if inspect.isroutine(it) else []


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings."""
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADINGS.findall(text))
    return {heading.strip().replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("name", operators())
def test_every_operator_has_a_page_with_the_same_parts(name: str) -> None:
    page = TEXTS[f"docs/operators/{name}.md"]

    assert [part for part in PARTS if f"\n## {part}" not in page] == []
    assert f"docs/operators/{name}.md" in TEXTS["README.md"]


def test_every_setting_is_documented_and_nothing_else() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", TEXTS["docs/settings.md"], re.MULTILINE)
    fields = Settings.model_fields

    assert sorted(name for name, _ in rows) == sorted(name.upper() for name in fields)
    for name, shown in rows:
        default = fields[name.lower()].default
        default = default.get_secret_value() if hasattr(default, "get_secret_value") else default
        wanted = "none" if default in (None, "") else f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
        wanted = wanted.lower() if isinstance(default, bool) else wanted
        assert shown == wanted, name


@pytest.mark.parametrize("page", ["docs/metrics.md", "docs/fast-flows.md"])
def test_what_pages_show_of_the_code_is_made_of_it(page: str) -> None:
    reference = runpy.run_path(str(ROOT / "docs" / "reference.py"))

    assert reference["rendered"](TEXTS[page]) == TEXTS[page], "make it anew: .venv/bin/python docs/reference.py"


def test_the_reference_of_metrics_and_the_plans_are_there() -> None:
    assert TEXTS["docs/metrics.md"].count("| `lovelace_") >= len(GAUGES) + 15
    assert TEXTS["docs/fast-flows.md"].count("| step | kafka | kafka_source |") >= 2


def test_every_endpoint_is_documented() -> None:
    app = create_app(ApiSettings(dsn="postgresql://127.0.0.1/none", token="x", temporal_address=None))
    described = {
        f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods
    } | {"GET /openapi.json"}

    assert set(re.findall(r"`((?:GET|POST) /[^`]*)`", TEXTS["docs/api.md"])) == described


def test_the_closed_sets_are_documented() -> None:
    page = TEXTS["docs/delivery-guarantees.md"]
    reasons, skips = (
        set(ROW.findall(page.split(f"\n### {heading}")[1].split("\n#")[0])) for heading in ("Reasons", "Skips")
    )

    assert reasons == set(Reason)
    assert skips == set(SkipReason)


def test_what_a_worker_is_said_to_say_it_says() -> None:
    page = TEXTS["docs/troubleshooting.md"]
    shown = {line for part in ("Log lines", "A worker stops with 78") for line in ROW.findall(_section(page, part))}
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "lovelace_streams").rglob("*.py"))

    assert sorted(line for line in shown if f"{line}" not in code) == []
    assert len(shown) >= 15


def _section(page: str, heading: str) -> str:
    return page.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    text = FENCE.sub("", TEXTS[page])
    broken = []
    for target in LINK.findall(text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
        if not found.exists() or (anchor and anchor not in anchors(found.read_text(encoding="utf-8"))):
            broken.append(target)

    assert broken == []


def test_pages_that_the_code_names_are_there() -> None:
    named = re.compile(r"\bdocs/[\w/-]+\.md\b")
    code = [*ROOT.glob("lovelace_streams/**/*.py"), *ROOT.glob("dataflows/*.py"), ROOT / "pyproject.toml"]
    found = {name for path in code for name in named.findall(path.read_text(encoding="utf-8"))}

    assert sorted(name for name in found if name not in TEXTS) == []


@pytest.mark.parametrize("block", RUN)
def test_code_runs_and_flows_are_built(block: str) -> None:
    """They open no connection; what they name exists."""
    names: dict[str, object] = {"__name__": "docs"}
    exec(compile(block, "a page's block", "exec"), names)
    if callable(flow := names.get("flow")):
        flow()


@pytest.fixture
def log_on_stderr() -> Iterator[None]:
    """A worker's log is no part of what an example gives."""
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(sys.stderr))
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("log_on_stderr")
@pytest.mark.parametrize("page", [page for page, text in TEXTS.items() if SHOWN.search(text)])
def test_examples_give_what_they_show(page: str) -> None:
    """They may use what the page's other blocks define."""
    examples = "\n".join(
        block for language, block in FENCE.findall(TEXTS[page]) if language == "python" and ">>>" in block
    )
    names = {"__name__": "docs"} if page in ELSEWHERE else names_of(page)
    test = doctest.DocTestParser().get_doctest(examples, names, page, page, 0)
    result = doctest.DocTestRunner().run(test)

    assert (result.failed, result.attempted > 0) == (0, True)


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_of_the_code_give_what_they_show(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))

    assert (result.failed, result.attempted > 0) == (0, True)


def test_the_flow_in_the_readme_is_the_real_one() -> None:
    real = (ROOT / "dataflows" / "discord.py").read_text(encoding="utf-8")
    shown = next(m[2] for m in FENCE.finditer(TEXTS["README.md"]) if m[2].startswith("def flow(settings"))

    assert shown in real
