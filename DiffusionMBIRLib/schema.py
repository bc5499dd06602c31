"""What entries of JSON and TOML may be: types, ranges, lengths and names, checked before anything is made of them.

A schema maps the name of an entry to its rule.  Needs the standard library only.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from .errors import InputError

MOST_COUNT = 1 << 16  # no size of a network, and no length of a list, is larger
_DEEPEST = 8
_MOST_ENTRIES = 1 << 14


class Rule(Protocol):
    """What one entry must be; ``complaint`` is empty for a fit value, else what is wanted."""

    def complaint(self, value: Any) -> str: ...


@dataclass(frozen=True)
class Number:
    """A finite number from ``low`` to ``high``; ``whole``: without a fraction."""

    low: float = -1e12
    high: float = 1e12
    whole: bool = False

    def complaint(self, value: Any) -> str:
        fits = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        if fits and self.low <= value <= self.high:
            return ""
        return f"a {'whole ' if self.whole else ''}number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Text:
    """A string of at most so many characters, of a pattern where there is one."""

    longest: int = 4096
    pattern: str = ""

    def complaint(self, value: Any) -> str:
        if not isinstance(value, str) or len(value) > self.longest:
            return f"a text of at most {self.longest} characters"
        fits = not self.pattern or re.fullmatch(self.pattern, value)
        return "" if fits else "letters, digits, '.', '_' and '-' only, beginning with a letter or digit"


@dataclass(frozen=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    def complaint(self, value: Any) -> str:
        return "" if isinstance(value, str) and value in self.words else f"one of {', '.join(self.words)}"


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def complaint(self, value: Any) -> str:
        return "" if isinstance(value, bool) else "true or false"


@dataclass(frozen=True)
class Listed:
    """A list of entries of one rule."""

    of: Rule
    longest: int = 64

    def complaint(self, value: Any) -> str:
        if not isinstance(value, list | tuple) or len(value) > self.longest:
            return f"a list of at most {self.longest} entries"
        wrong = next(filter(None, map(self.of.complaint, value)), "")
        return f"a list, each entry {wrong}" if wrong else ""


@dataclass(frozen=True)
class Mapped:
    """An object whose values all follow one rule."""

    of: Rule
    longest: int = 256

    def complaint(self, value: Any) -> str:
        if not isinstance(value, dict) or len(value) > self.longest:
            return f"an object of at most {self.longest} entries"
        names = (k for k in value if not isinstance(k, str) or len(k) > 256)
        wrong = next(filter(None, map(self.of.complaint, value.values())), "")
        return f"an object, each entry {wrong}" if wrong else "an object with short names" if any(names) else ""


@dataclass(frozen=True)
class Object:
    """An object with entries of these rules, and perhaps others; all but the ``optional`` ones must be there."""

    schema: Mapping[str, Rule]
    optional: tuple[str, ...] = ()

    def complaint(self, value: Any) -> str:
        wanted = f"an object of {', '.join(self.schema)}"
        if not isinstance(value, dict) or any(key not in value for key in self.schema if key not in self.optional):
            return wanted
        wrong = ((key, self.schema[key].complaint(value[key])) for key in self.schema if key in value)
        return next((f"{wanted}, {key} {text}" for key, text in wrong if text), "")


@dataclass(frozen=True)
class Maybe:
    """What a rule says, or null."""

    of: Rule

    def complaint(self, value: Any) -> str:
        wanted = "" if value is None else self.of.complaint(value)
        return f"{wanted}, or null" if wanted else ""


@dataclass(frozen=True)
class Plain:
    """Anything of JSON that is neither deep nor long, its numbers finite."""

    def complaint(self, value: Any) -> str:
        left, level = _MOST_ENTRIES, [value]
        for _ in range(_DEEPEST):
            inner: list[Any] = []
            for one in level:
                if isinstance(one, dict):
                    inner += [*one, *one.values()]
                elif isinstance(one, list | tuple):
                    inner += one
                elif not (one is None or isinstance(one, str) or _is_finite(one)):
                    return "made of finite numbers and texts"
            left -= len(inner)
            if left < 0 or not inner:
                break
            level = inner
        return "" if left >= 0 and not inner else "less deep or shorter"


def _is_finite(value: Any) -> bool:
    """Whether it is a number that a float can hold."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


Schema = Mapping[str, Rule]


def checked(
    entries: Any, schema: Schema, name: str, *, needed: tuple[str, ...] = (), others: bool = False
) -> dict[str, Any]:
    """The entries that the schema knows, each found fit.

    needed: those that must be there.  others: whether entries of other names are passed over, as those of a later
    version, instead of refused.  Raises InputError, in one line that names ``name`` and the entry.
    """
    if not isinstance(entries, Mapping):
        raise InputError(f"{name}: must be an object of {', '.join(schema)}")
    unknown = [] if others else sorted(str(key)[:60] for key in entries if key not in schema)
    if unknown:
        raise InputError(f"{name}: {unknown[0]!r} is not known; known are {', '.join(schema)}")
    for key in needed:
        if key not in entries:
            raise InputError(f"{name}: the field {key} is missing")
    known = {key: entries[key] for key in schema if key in entries}
    for key, value in known.items():
        if wanted := schema[key].complaint(value):
            raise InputError(f"{name}: {key} must be {wanted}, not {_shown(value)}")
    return known


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        text = "such a value"
    return text if len(text) <= 60 else f"{text[:57]}..."


_RULES: Mapping[str, Rule] = {
    "int": Number(0, MOST_COUNT, whole=True),
    "float": Number(),
    "bool": Flag(),
    "str": Text(256),
    "tuple[int, ...]": Listed(Number(0, MOST_COUNT, whole=True)),
    "tuple[float, ...]": Listed(Number()),
}


def schema_of(cls: Any) -> dict[str, Rule]:
    """The schema of a dataclass of plain fields, by their annotations: counts, numbers, flags, texts and lists."""
    return {f.name: _RULES[str(f.type)] for f in fields(cls)}


def json_object(text: str | bytes, name: str) -> dict[str, Any]:
    """The JSON object in a text; raises InputError that names ``name`` for anything else."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, json.JSONDecodeError) else "damaged"
        raise InputError(f"{name}: is no JSON ({reason}); repair or copy it again") from None
    if not isinstance(entries, dict):
        raise InputError(f"{name}: must be a JSON object")
    return entries
