"""How these pages become a site (mkdocs.yml): one set of files, read on a forge and on the site alike.

A page links to what lies beside it in the repository, by relative paths. On the site those links have to lead
somewhere too, wherever it is served and whether or not the repository is public. So the top's own pages (README,
ARCHITECTURE and others) become pages of the site, and each file of code that a page links to becomes one under
`source/`.
"""

import posixpath
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PROJECT = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
}
"""Pages of the repository's top, and where they are on the site."""
DECISIONS = "decisions"
FENCE = re.compile(r"^(```|~~~).*?^\1[`~]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
LANGUAGES = {
    ".py": "python",
    ".sql": "sql",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".avsc": "json",
    ".toml": "toml",
}


def on_config(config: Any) -> Any:
    """Let the nav's entry `decisions/` stand for all of them, so that a new one needs no other place."""
    records = sorted(path for path in (ROOT / "docs" / DECISIONS).glob("[0-9]*.md"))
    for section in config.nav:
        for entries in section.values():
            if isinstance(entries, list) and f"{DECISIONS}/" in entries:
                at = entries.index(f"{DECISIONS}/")
                entries[at : at + 1] = [
                    {"Decisions": [f"{DECISIONS}/index.md", *(f"{DECISIONS}/{p.name}" for p in records)]}
                ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the project's own pages, what is made of the code, and the code that pages link to."""
    for origin, uri in PROJECT.items():
        files.append(File.generated(config, uri, content=(ROOT / origin).read_text(encoding="utf-8")))
    files.append(File.generated(config, f"{DECISIONS}/index.md", content=_decisions()))
    reference = runpy.run_path(str(ROOT / "docs" / "reference.py"))
    files.append(File.generated(config, "cli.md", content=reference["commands"]()))
    wanted = {
        path
        for file in list(files.documentation_pages())
        for path in _linked(file.content_string, _origin(file.src_uri))
        if _is_code(path)
    }
    wanted |= {inner for path in wanted for inner in _inside(path)}
    for path in sorted(wanted):
        files.append(File.generated(config, _uri(path), content=_source(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links of the repository into links of the site."""
    uri = page.file.src_uri
    if uri.startswith("source/"):
        return markdown
    origin = _origin(uri)

    def moved(match: re.Match[str]) -> str:
        path, _, anchor = match[2].partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match[0]
        to = posixpath.relpath(_uri(_resolve(path, origin)), posixpath.dirname(uri) or ".")
        return f"{match[1]}{to}{'#' * bool(anchor)}{anchor}{match[3]}"

    return _outside_fences(markdown, lambda text: LINK.sub(moved, text))


def _origin(uri: str) -> str:
    """Where a page lies in the repository."""
    return next((origin for origin, page in PROJECT.items() if page == uri), f"docs/{uri}")


def _uri(path: str) -> str:
    """Where a file of the repository is on the site."""
    if path in PROJECT:
        return PROJECT[path]
    if path == f"docs/{DECISIONS}":
        return f"{DECISIONS}/index.md"
    if not _is_code(path):
        return path.removeprefix("docs/")
    return f"source/{path}.md"


def _is_code(path: str) -> bool:
    """Whether it is a file or a folder that is no page by itself."""
    page = path in PROJECT or (path.startswith("docs/") and not path.endswith(".py"))
    return not page and (ROOT / path).exists()


def _resolve(link: str, origin: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))


def _linked(markdown: str, origin: str) -> Iterator[str]:
    for match in LINK.finditer(FENCE.sub("", markdown)):
        path = match[2].partition("#")[0]
        if path and "://" not in path:
            yield _resolve(path, origin)


def _outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


def _inside(path: str) -> list[str]:
    """The text files of a folder that is linked to."""
    folder = ROOT / path
    if not folder.is_dir():
        return []
    return [f"{path}/{p.name}" for p in sorted(folder.iterdir()) if p.is_file() and p.suffix in LANGUAGES]


def _source(path: str) -> str:
    """A page of a file of code, or of a folder's files; the search does not look here."""
    head = f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n"
    if (ROOT / path).is_dir():
        return head + "".join(
            f"- [{posixpath.basename(p)}]({posixpath.basename(path)}/{posixpath.basename(p)}.md)\n"
            for p in _inside(path)
        )
    text = (ROOT / path).read_text(encoding="utf-8")
    return f"{head}~~~~~~~~~~{LANGUAGES.get(Path(path).suffix, 'text')}\n{text.rstrip()}\n~~~~~~~~~~\n"


def _decisions() -> str:
    lines = []
    for path in sorted((ROOT / "docs" / DECISIONS).glob("[0-9]*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"- [{title}]({path.name})")
    return (
        "# Decisions\n\nA choice that somebody will ask about, with its options and what it costs.\n\n"
        + "\n".join(lines)
        + "\n"
    )
