"""Small texts that describe a scan, and the files that they name: only ones in their own folder or below it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from ..errors import InputError, one_line
from .files import require_file

_LARGEST_TEXT = 4 << 20
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_COUNTER = re.compile(r"%(?:0?\d{1,2})?d")
Sections = dict[str, dict[str, str]]


def text_of_file(path: Path) -> str:
    """A text of bounded length.  Raises InputError for one that is missing, too long or no text."""
    require_file(path)
    if path.stat().st_size > _LARGEST_TEXT:
        raise InputError(f"{path}: is larger than any description of a scan")
    content = path.read_bytes()
    if b"\0" in content[:4096] and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: is no text")
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    return content.decode(encoding, "replace")


def glance(path: Path, length: int = 4096) -> str:
    """The beginning of a text, '' for what cannot be read: for telling files apart."""
    try:
        require_file(path)
        with path.open("rb") as stream:
            return stream.read(length).decode("latin-1")
    except (InputError, OSError):
        return ""


def sections(path: Path) -> Sections:
    """The entries of a file of [sections] and key = value lines, keys and section names in lower case.

    What stands before the first section is in the section ''.
    """
    found: Sections = {"": {}}
    here = found[""]
    for line in text_of_file(path).splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            here = found.setdefault(line[1:-1].strip().lower(), {})
        elif "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            here[key.strip().lower()] = value.strip()
    return found


class Entries:
    """Numbers and words among entries of a file; each complaint names the file and the entry."""

    def __init__(self, path: Path, entries: Mapping[str, str], where: str = "") -> None:
        self.path, self._entries, self._where = path, entries, where

    def has(self, key: str) -> bool:
        return key.lower() in self._entries

    def word(self, key: str, default: str | None = None) -> str:
        value = self._entries.get(key.lower(), default)
        if value is None:
            raise InputError(f"{self.path}: lacks the entry {key}{self._where}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """The number that an entry begins with; what follows, such as a unit, is left out."""
        if not self.has(key) and default is not None:
            return default
        match = _NUMBER.match(self.word(key).strip().replace(",", "."))
        value = float(match.group()) if match else np.nan
        if not np.isfinite(value):
            raise InputError(f"{self.path}: {key} must be a number, not {one_line(self.word(key), 60)!r}")
        return value

    def positive(self, key: str) -> float:
        value = self.number(key)
        if value <= 0:
            raise InputError(f"{self.path}: {key} must be positive, not {value:g}")
        return value

    def whole(self, key: str, most: int = 1 << 24, default: int | None = None) -> int:
        value = self.number(key, default)
        if value != int(value) or not 1 <= value <= most:
            raise InputError(f"{self.path}: {key} must be a positive whole number up to {most}, not {value:g}")
        return int(value)


def companion(header: Path, name: str, what: str) -> Path:
    """The file or folder of a name in the header's folder or below.

    Raises InputError for a name that leads elsewhere or is not there.
    """
    told = name.strip().strip('"').replace("\\", "/")
    absolute = PurePosixPath(told).is_absolute() or PureWindowsPath(told).is_absolute()
    if absolute or ".." in PurePosixPath(told).parts or not told or "\0" in told:
        raise InputError(
            f"{header}: {what} {one_line(name, 80)!r} must be a name in the same folder or below; no other is read"
        )
    path = header.parent / told
    try:
        inside, there = path.resolve().is_relative_to(header.parent.resolve()), path.exists()
    except (OSError, RuntimeError):  # a name that no file can have, or links in a circle
        inside, there = True, False
    if not inside:
        raise InputError(f"{header}: {what} {one_line(name, 80)!r} leads to another folder; copy it beside")
    if not there:
        raise InputError(f"{header}: {what} {one_line(name, 80)} is not in its folder; copy it there")
    return path


def counted_names(header: Path, pattern: str, counters: range, what: str) -> list[str]:
    """The names of a pattern with one counter, such as p_%04d.tif; the pattern itself where it has none."""
    if "%" not in pattern:
        return [pattern]
    if pattern.count("%") != 1 or not _COUNTER.search(pattern):
        raise InputError(f"{header}: {what} {one_line(pattern, 80)!r} is no pattern with one counter like %04d")
    return [pattern % k for k in counters]


def numbers_in(path: Path, text: str | None = None) -> np.ndarray:
    """All numbers of a text file, line by line; raises InputError for anything else in it."""
    text = text_of_file(path) if text is None else text
    try:
        return np.array([float(word) for word in text.replace(",", " ").replace(";", " ").split()])
    except ValueError:
        raise InputError(f"{path}: must hold numbers, nothing else") from None
