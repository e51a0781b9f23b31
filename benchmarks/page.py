"""The figures of docs/performance.md and other pages, made of the results: `python -m benchmarks.page`.

The pages' words are written by hand and hold no figure that was measured; those stand between marks, each part made by
the function of that name in `tables` or `plan`. Pictures go to docs/images. A test holds the pages to the results.
"""

import re
from collections.abc import Callable
from pathlib import Path

from benchmarks import pictures, plan, tables
from benchmarks.goals import Measured
from benchmarks.measured import load

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("performance.md", "scaling.md", "fast-flows.md")
PARTS: dict[str, Callable[[Measured], str]] = {**tables.PARTS, **plan.PARTS}
MADE = re.compile(r"(<!-- ([\w-]+): made by benchmarks/page.py -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(page: str, measured: Measured) -> str:
    """The page with its parts made anew."""
    return MADE.sub(lambda match: f"{match[1]}\n{PARTS[match[2]](measured)}\n{match[3]}", page)


def main() -> None:
    """Write pages and pictures."""
    measured = load()
    for name in PAGES:
        path = DOCS / name
        path.write_text(rendered(path.read_text(encoding="utf-8"), measured), encoding="utf-8")
    images = DOCS / "images"
    for old in images.glob("performance-*.svg"):
        old.unlink()
    for name, draw in pictures.made(measured).items():
        draw(images / name)


if __name__ == "__main__":
    main()
