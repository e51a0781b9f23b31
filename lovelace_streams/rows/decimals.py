"""Questions about a `Decimal` that are answered exactly, however many digits it has.

Python's arithmetic with Decimals (`+`, `%`, `normalize`, `quantize`, `scaleb`) rounds to the digits of the current
context, 28 by default, or raises `InvalidOperation`; columns hold 38, 76 or 131,072. Only comparisons, conversions and
what reads digits (`as_tuple`, `adjusted`) are exact without it.
"""

from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from fractions import Fraction

EXACT = Context(prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX)
"""The context in which arithmetic rounds nothing."""


def fits_scale(value: Decimal, digits: int) -> bool:
    """Whether rounding a finite number to so many digits after the point would leave it as it is.

    >>> fits_scale(Decimal("1.50"), 1), fits_scale(Decimal("1.55"), 1), fits_scale(Decimal(150), -2)
    (True, False, False)
    """
    _, places, exponent = value.as_tuple()
    too_many = -digits - int(exponent)
    return too_many <= 0 or not any(places[-too_many:])


def is_multiple(value: Decimal, of: Decimal) -> bool:
    """Whether a finite number is a multiple of another one, which is not zero.

    >>> is_multiple(Decimal("123456789012345678901234567890.25"), Decimal("0.01"))
    True
    """
    return (Fraction(value) / Fraction(of)).denominator == 1
