"""Figures and tables as pages show them."""

from collections.abc import Sequence


def number(value: float) -> str:
    """Three digits that mean something.

    >>> number(123456), number(0.6543), number(17.26), number(0)
    ('123,000', '0.654', '17.3', '0')
    """
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def picture(name: str, says: str) -> str:
    """One of the pictures that the results are drawn as."""
    return f"![{says}](images/performance-{name}.svg)\n"
