"""Names that come from outside - of files, of persons, from headers - and what they may do to a terminal or a library.

Needs the standard library only.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from .errors import InputError

_LONGEST = 100
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # by Windows, whatever follows


def as_file_name(text: str, usual: str = "result") -> str:
    """A name for people as a file's, without its ending, on every system; ``usual`` where nothing of it can be kept."""
    kept = "".join(c if c.isprintable() else "-" for c in re.sub(r'[<>:"/\\|?*\x00-\x1f]+', "-", text))
    kept = kept.strip(" .")[:_LONGEST].strip(" .") or usual
    return f"_{kept}" if _RESERVED.fullmatch(kept) else kept


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
