"""Who reads and writes which files.  A format is one file of the package ``io`` that registers itself here.

Needs the standard library; the files of ``io`` are imported when the first file is read or written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from .discovery import import_all
from .errors import InputError

CT, MR, SCAN, VOLUME = "ct", "mr", "scan", "volume"  # what a file holds; a scan is of CT or of MR
_FITTING = {CT: (CT, SCAN), MR: (MR, SCAN), SCAN: (CT, MR, SCAN), VOLUME: (VOLUME,), "": (CT, MR, SCAN, VOLUME)}
_FORMATS: list[Format] = []
_WRITERS: dict[type, Callable[[Any, Path], None]] = {}


@dataclass(frozen=True)
class Format:
    """A kind of file.

    name: for people.  holds: ``CT``, ``MR``, ``SCAN`` (either) or ``VOLUME``.  suffixes: how its files end, in lower
    case; empty for folders.  read: makes a scan or a volume of a path.  recognises: whether the content is of this
    kind, by a glance that raises nothing; by default the name tells.  last: asked after all others of the same suffix.
    asks: keywords of ``read`` for what such files do not tell and a user may.
    """

    name: str
    holds: str
    suffixes: tuple[str, ...]
    read: Callable[..., Any]
    recognises: Callable[[Path], bool] = lambda path: True
    last: bool = False
    asks: tuple[str, ...] = ()

    def takes(self, path: Path) -> bool:
        """Whether the path's name, or that it is a folder, fits."""
        return path.name.lower().endswith(self.suffixes) if self.suffixes else path.is_dir()


def register(entry: Format) -> None:
    """Add a format; one of the same name is replaced."""
    _FORMATS[:] = [known for known in _FORMATS if known.name != entry.name]
    _FORMATS.append(entry)
    _FORMATS.sort(key=lambda known: known.last)


def forget_format(name: str) -> None:
    """Take a format out of the registry."""
    _FORMATS[:] = [known for known in _FORMATS if known.name != name]


def writes(kind: type, writer: Callable[[Any, Path], None]) -> None:
    """Have ``writer`` save instances of a class and of those derived from it."""
    _WRITERS[kind] = writer


def formats(holds: str = "") -> list[Format]:
    """All formats, or those that may hold such a thing."""
    _load()
    return [known for known in _FORMATS if known.holds in _FITTING[holds]]


def suffixes(holds: str) -> tuple[str, ...]:
    """How the names of files end that may hold such a thing, those that would only be told what is wrong left out."""
    return tuple(dict.fromkeys(s for known in formats(holds) if not known.last for s in known.suffixes))


def format_of(path: str | os.PathLike[str], holds: str = "") -> Format | None:
    """The format of a file or folder: the first whose suffix fits and that recognises the content."""
    path = Path(path)
    return next((known for known in formats(holds) if known.takes(path) and known.recognises(path)), None)


def may_hold(path: str | os.PathLike[str], holds: str) -> bool:
    """Whether a file's name, or a folder's content, is that of such a thing."""
    path = Path(path)
    return any(known.takes(path) and (known.suffixes or known.recognises(path)) for known in formats(holds))


def write(thing: Any, path: str | os.PathLike[str]) -> None:
    """Write a scan or a volume, whole or not at all.  Raises InputError for a name that does not fit."""
    _load()
    for kind in type(thing).__mro__:
        if kind in _WRITERS:
            return _WRITERS[kind](thing, Path(path))
    raise InputError(f"{path}: a {type(thing).__name__} cannot be written to a file")


@cache
def _load() -> None:
    package = f"{__package__}.io"
    import_all(package, import_module(package).__path__)
