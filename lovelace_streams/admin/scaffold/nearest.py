"""Guess which name was meant by one that does not exist."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, names: Iterable[str]) -> str:
    """Name the most similar name, for the end of a clause; "" if none is similar.

    >>> nearest("order.raw", ["orders.raw", "members.raw"])
    " (there is 'orders.raw')"
    >>> nearest("order.raw", ["metrics"])
    ''
    """
    found = get_close_matches(name, sorted(names), n=1, cutoff=0.7)
    return f" (there is {found[0]!r})" if found else ""
