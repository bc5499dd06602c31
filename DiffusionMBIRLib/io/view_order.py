"""The order of views by the numbers in their files' names: counters, angles, decimals, signs, constant parts."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

_WHOLE = re.compile(r"\d{1,18}")
_DECIMAL = re.compile(r"\d{1,18}(?:[.,]\d{1,18})?(?:[eE][-+]\d{1,3})?|(?<=[^.\d])[.,]\d{1,18}")
_SIGN = re.compile(r"(?:^|(?<=[\s_=(\[.,@]))[-+]$")  # a mark that follows a separator; else it may be one itself
_SIGN_WORDS = {"m": -1, "n": -1, "minus": -1, "neg": -1, "p": 1, "plus": 1, "pos": 1}


@dataclass(frozen=True)
class _Names:
    """The numbers (names, columns) of names that have equally many, and the texts before them and at the end."""

    numbers: np.ndarray
    digits: list[list[str]]
    texts: list[list[str]]


@dataclass(frozen=True)
class Order:
    """index: the names in their order.  how: what it goes by."""

    index: tuple[int, ...]
    how: str


def orders_by_name(stems: list[str]) -> list[Order]:
    """The order of the names by all their numbers, then others that the names allow as well."""
    decimal, whole = _parsed(stems, _DECIMAL), _parsed(stems, _WHOLE)
    points_separate = whole is not None and (decimal is None or _counts_behind_a_point(whole, decimal))
    both = (whole, decimal) if points_separate else (decimal, whole)
    readings = [names for names in both if names is not None]
    found = [Order(_by_all(names, stems), "all numbers of their names") for names in readings]
    found = found or [Order(_natural(stems), "the numbers of their names")]
    found.append(Order(tuple(sorted(range(len(stems)), key=stems.__getitem__)), "their names as text"))
    for names in readings:
        for column in reversed(range(names.numbers.shape[1])):
            values = names.numbers[:, column]
            if len(np.unique(values)) == len(values):
                index = tuple(int(k) for k in np.argsort(values, kind="stable"))
                found.append(Order(index, f"number {column + 1} of their names"))
    return [order for k, order in enumerate(found) if order.index not in [o.index for o in found[:k]]]


def angles_in_names(stems: list[str], angles_deg: np.ndarray) -> np.ndarray | None:
    """The listed angle of each name, where a number of the names is the angle itself; None where none is.

    A counter that happens to have the values of the list is not taken for it.
    """
    names = _parsed(stems, _DECIMAL)
    if names is None or len(stems) != len(angles_deg):
        return None
    wanted = np.sort(angles_deg)
    for column in range(names.numbers.shape[1]):
        values = names.numbers[:, column]
        shown = max(len(re.split(r"[.,]", d[column])[1]) if re.search(r"[.,]", d[column]) else 0 for d in names.digits)
        if not np.allclose(np.sort(values), wanted, atol=0.51 * 10.0**-shown, rtol=0) or _is_counter(values):
            continue
        ordered = np.empty(len(values))
        ordered[np.argsort(values, kind="stable")] = wanted
        return ordered
    return None


def _is_counter(values: np.ndarray) -> bool:
    """0, 1, 2, ... or 1, 2, 3, ..."""
    ordered = np.sort(values)
    return ordered[0] in (0, 1) and bool((np.diff(ordered) == 1).all())


def _parsed(stems: list[str], number: re.Pattern[str]) -> _Names | None:
    digits = [number.findall(stem) for stem in stems]
    texts = [number.split(stem) for stem in stems]
    if not digits[0] or len({len(d) for d in digits}) > 1:
        return None
    values = np.array([[float(d.replace(",", ".")) for d in line] for line in digits])
    plain = [list(t) for t in texts]
    for column in range(values.shape[1]):
        # Between two numbers a mark alone separates them, as in dates.
        signs, bare = _signs([t[column] if not column or len(t[column]) != 1 else "_" for t in texts])
        values[:, column] *= signs
        for line, text in zip(plain, bare, strict=True):
            line[column] = text
    return _Names(values, digits, plain)


def _signs(before: list[str]) -> tuple[np.ndarray, list[str]]:
    """1 or -1 by the text before each number, and these texts without the sign.

    A mark between letters or digits and a number is a sign only if other names lack it (view-2 is the second view,
    tilt-2 beside tilt2 is below zero).  So are words: m02 and p02.
    """
    marked = [t[-1:] in ("-", "+") for t in before]
    if any(marked) and (not all(marked) or len({t[-1] for t in before}) > 1 or all(_SIGN.search(t) for t in before)):
        signs = [-1 if t.endswith("-") else 1 for t in before]
        return np.array(signs), [t[:-1] if m else t for t, m in zip(before, marked, strict=True)]
    words = [re.search(r"[A-Za-z]*$", t).group().lower() for t in before]  # type: ignore[union-attr]
    if len(set(words)) == 2 and set(words) <= {*_SIGN_WORDS, ""} and any(_SIGN_WORDS.get(w) == -1 for w in words):
        return np.array([_SIGN_WORDS.get(w, 1) for w in words]), [
            t[: len(t) - len(w)] for t, w in zip(before, words, strict=True)
        ]
    return np.ones(len(before)), before


def _counts_behind_a_point(whole: _Names, decimal: _Names) -> bool:
    """True for names like scan.1.9, scan.1.10: a point that separates, with a counter behind it."""
    if whole.numbers.shape[1] <= decimal.numbers.shape[1]:
        return False
    if len(np.unique(decimal.numbers, axis=0)) < len(decimal.numbers):  # 1.1 and 1.10 are one decimal
        return True
    varying = [c for c in range(whole.numbers.shape[1]) if np.ptp(whole.numbers[:, c]) > 0]
    return len(varying) == 1 and _is_counter(whole.numbers[:, varying[0]])


def _by_all(names: _Names, stems: list[str]) -> tuple[int, ...]:
    keys = [
        (*(pair for column in range(len(line)) for pair in (text[column], line[column])), stem)
        for line, text, stem in zip(names.numbers.tolist(), names.texts, stems, strict=True)
    ]
    return tuple(sorted(range(len(stems)), key=keys.__getitem__))


def _natural(stems: list[str]) -> tuple[int, ...]:
    """Names of unlike build: numbers before text, each compared with its like."""

    def key(stem: str) -> list[tuple[int, float, str]]:
        parts = re.split(rf"({_DECIMAL.pattern})", stem)
        return [
            (0, float(part.replace(",", ".")), "") if k % 2 else (1, 0.0, part)
            for k, part in enumerate(parts)
            if part or k % 2
        ]

    return tuple(sorted(range(len(stems)), key=lambda k: (key(stems[k]), stems[k])))
