"""Names that come from outside - of files, of persons, from headers - and what they may do to a terminal or a library.

Needs the standard library only.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from .errors import InputError


def printable(text: object, *, keep: str = "") -> str:
    """The text with characters that a terminal obeys or cannot show as escapes, but for those of ``keep``.

    These are controls such as the start of a colour or a cleared screen, marks that turn the direction of writing
    round, ends of lines, and bytes that are not UTF-8.
    """
    return "".join(
        c if c.isprintable() or c in keep or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode()
        for c in str(text)
    )


def require_unicode(path: str | os.PathLike[str]) -> None:
    """Raise InputError for a name that is not text: libraries in C++ end the whole process over it."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"{printable(os.fspath(path))}: the name is not UTF-8 (or the terminal's language is set to another "
            "encoding); rename it"
        ) from None


def beside(path: Path, mark: str) -> Path:
    """The file's name with a mark before its suffixes."""
    stem = path.name.split(".")[0]
    return path.with_name(stem + mark + path.name[len(stem) :])
