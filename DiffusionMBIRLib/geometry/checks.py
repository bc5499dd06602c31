"""Numbers that geometries are made of, checked with the name of their field."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..errors import InputError, one_line

MOST = 1e9  # of angles in degrees and places in mm: beyond it float32 loses whole pixels, and nobody measures there
LENGTHS_MM = (1e-8, 1e6)  # of pixels and steps: squares of what is smaller or larger leave the range of float32


def finite(field: str, values: Iterable[float]) -> tuple[float, ...]:
    """The values as floats; raises InputError that names the field for what is no number, not finite or absurd."""
    try:
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{field} must hold numbers, not {one_line(repr(values), 100)}") from None
    if not np.all(np.isfinite(numbers)):
        raise InputError(f"{field} holds a value that is not finite: {one_line(numbers, 100)}")
    if numbers and max(map(abs, numbers)) > MOST:
        raise InputError(f"{field} holds a value beyond {MOST:g}: {one_line(numbers, 100)}")
    return numbers


def positive(field: str, value: float) -> float:
    """The value as a float above zero; raises InputError that names the field."""
    (number,) = finite(field, [value])
    if number <= 0:
        raise InputError(f"{field} must be positive, not {number}")
    return number


def length(field: str, value: float) -> float:
    """The value as a length in mm that can be computed with; raises InputError that names the field."""
    return within(field, positive(field, value), *LENGTHS_MM)


def within(field: str, value: float, low: float, high: float) -> float:
    """The value, if it lies between two others; raises InputError that names the field."""
    if not low <= value <= high:
        raise InputError(f"{field} must lie between {low:g} and {high:g}, not {value}; is its unit right?")
    return value


def count(field: str, value: float) -> int:
    """The value as a positive integer; raises InputError that names the field."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1 or number != value:
        raise InputError(f"{field} must be a positive integer, not {value!r}")
    return number


def moving(field: str, angles_deg: tuple[float, ...]) -> None:
    """Raise InputError that names the field where several views are all taken at one angle."""
    if len(angles_deg) > 1 and max(angles_deg) == min(angles_deg):
        raise InputError(
            f"{field} holds {len(angles_deg)} times {angles_deg[0]:g}: the scanner does not turn; "
            "give the angle of each view"
        )
