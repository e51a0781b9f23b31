"""The code of a page, for tests that go on from where the page ends."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(text: str) -> list[str]:
    """The page's ```python blocks, without those that show what they give (`>>>`)."""
    return [code for language, code in FENCE.findall(text) if language == "python" and ">>> " not in code]


def names_of(page: str) -> dict[str, Any]:
    """All names that a page's blocks define, run in their order."""
    names: dict[str, Any] = {"__name__": "docs"}
    for block in blocks_of((ROOT / page).read_text(encoding="utf-8")):
        exec(compile(block, page, "exec"), names)
    return names
