"""Numbers that geometries are made of, checked with the name of their field."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..errors import InputError


def finite(field: str, values: Iterable[float]) -> tuple[float, ...]:
    """The values as floats; raises InputError that names the field for what is no number or not finite."""
    try:
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        raise InputError(f"{field} must hold numbers, not {values!r}") from None
    if not np.all(np.isfinite(numbers)):
        raise InputError(f"{field} holds a value that is not finite: {numbers}")
    return numbers


def positive(field: str, value: float) -> float:
    """The value as a float above zero; raises InputError that names the field."""
    (number,) = finite(field, [value])
    if number <= 0:
        raise InputError(f"{field} must be positive, not {number}")
    return number


def count(field: str, value: float) -> int:
    """The value as a positive integer; raises InputError that names the field."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1 or number != value:
        raise InputError(f"{field} must be a positive integer, not {value!r}")
    return number
