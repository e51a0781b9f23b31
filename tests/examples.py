"""How many examples a property tries, where the number of the profile is not the right one."""

from hypothesis import settings

CI = 100
"""`max_examples` of the profile `ci`, by which the numbers in tests are meant."""


def examples(under_ci: int) -> int:
    """Give `max_examples`: `under_ci` with the profile `ci`, fewer or more with another one, in proportion."""
    return max(1, round(under_ci * settings.default.max_examples / CI))
