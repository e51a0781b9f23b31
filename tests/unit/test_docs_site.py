"""The documentation builds as a site, strictly; every page is in it, and reading it loads nothing from elsewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

pytestmark = [pytest.mark.site, pytest.mark.xdist_group("site")]  # built once for all of the file

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "form": "action"}
"""What a browser fetches or sends to by itself, or at a key; a link that somebody has to follow may lead elsewhere."""


class Page(HTMLParser):
    """The addresses of a page: what it loads, and where its links lead."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(str(given["id"]))
        if (address := given.get(LOADS.get(tag, ""))) and given.get("rel") not in {"canonical", "prev", "next"}:
            self.loads.append(address)
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, f"`make docs` fails:\n{built.stdout}{built.stderr}"
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {p.relative_to(site).as_posix(): Page(p.read_text(encoding="utf-8")) for p in site.rglob("*.html")}


def entries(nav: object) -> list[str]:
    if isinstance(nav, list):
        return [entry for item in nav for entry in entries(item)]
    if isinstance(nav, dict):
        return [entry for item in nav.values() for entry in entries(item)]
    return [str(nav)]


def test_every_page_is_in_the_nav() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = set(entries(yaml.safe_load(text)["nav"]))
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    missing = {page for page in written - nav if not page.startswith("decisions/")}

    assert sorted(missing) == [], "add these pages to `nav` in mkdocs.yml, where their reader would look for them"


def test_every_page_is_built(pages: dict[str, Page]) -> None:
    written = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")}

    assert sorted(written - pages.keys()) == []
    assert {"index.html", "cli.html", "project/architecture.html", "decisions/index.html"} <= pages.keys()


def test_reading_loads_nothing_from_elsewhere(site: Path, pages: dict[str, Page]) -> None:
    loaded = {address for page in pages.values() for address in page.loads if urlsplit(address).netloc}
    imported = {
        hit
        for path in site.rglob("*.css")
        for hit in re.findall(r"(?:@import\s+|url\()[\"']?((?:https?:)?//[^\"')]+)", path.read_text(encoding="utf-8"))
    }

    assert (loaded, imported) == (set(), set())


def test_every_link_within_the_site_leads_somewhere(site: Path, pages: dict[str, Page]) -> None:
    broken = []
    for name, page in pages.items():
        for link in page.links if name != "404.html" else ():
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            to = (site / name).parent.joinpath(unquote(address.path)).resolve() if address.path else site / name
            found = pages.get(to.relative_to(site.resolve()).as_posix()) if to.is_file() else None
            if not to.is_file() or (address.fragment and found and unquote(address.fragment) not in found.ids):
                broken.append(f"{name}: {link}")

    assert broken == []


def test_links_to_code_lead_to_the_code(pages: dict[str, Page]) -> None:
    upsert = pages["operators/upsert.html"]

    assert "../source/lovelace_streams/operators/upsert.py.html" in upsert.links
    assert "../decisions/0004-writers.html" in upsert.links
    assert "source/dataflows/discord.py.html" in pages["index.html"].links


def test_the_command_line_is_on_one_page(site: Path) -> None:
    page = (site / "cli.html").read_text(encoding="utf-8")

    assert [
        name for name in ("up", "check", "init", "submit", "dlq list") if f"<code>lovelace {name}</code>" not in page
    ] == []
