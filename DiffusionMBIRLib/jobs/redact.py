"""Takes out of a text what might name a patient or a person: the job's name, its paths, the user and the machine."""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

from .request import PATHS, Request

_SHORTEST = 3
_PLAIN = re.compile(r"^(scan|volume|input|output|data|home|root|tmp|users|the|and|for|from)$", re.IGNORECASE)
# A path in quotes goes to the closing one; elsewhere folders may hold blanks, the last part does not.  Separators may
# be doubled, as JSON writes those of Windows.
_PART = r"""[^\\/\s"'<>|:*?,;()]+"""
_BELOW = rf"(?:[\\/]+{_PART}(?:\ {_PART})*(?=[\\/])|[\\/]+{_PART})"
_PATH = re.compile(
    rf"""(?P<quote>["'])(?:[A-Za-z]:|~|file:)?[\\/](?:(?!(?P=quote)).)+(?P=quote)"""
    rf"""|(?:[A-Za-z]:|~|file:)?{_BELOW}{{2,}}[\\/]*"""
)
_CODE = re.compile(r"[\w.-]+\.pyx?$")


def redactor(request: Request | None) -> Callable[[str], str]:
    """A function that cleans texts of one job: whole paths first, of which a name in them would leave parts."""
    secrets = _secrets(request)
    known = _any_of({s for s in secrets if any(mark in s for mark in "/\\")})
    whole = re.compile(rf"(?P<quote>)(?<!\w)(?:{known}){_BELOW}*", re.IGNORECASE)
    words = re.compile(_any_of(secrets), re.IGNORECASE)

    def clean(text: str) -> str:
        text = _PATH.sub(_shortened, whole.sub(_shortened, text))
        return words.sub("<redacted>", text)

    return clean


def _shortened(match: re.Match[str]) -> str:
    """A path as the name of its file, and that only where it is program code."""
    quote = match["quote"] or ""
    name = PureWindowsPath(match[0].strip(quote)).name
    return f"{quote}<path>/{name}{quote}" if _CODE.fullmatch(name) else f"{quote}<path>{quote}"


def _any_of(secrets: set[str]) -> str:
    """The pattern of any of the texts, as it is and as JSON writes it; longer ones first."""
    told = secrets | {json.dumps(s)[1:-1] for s in secrets}
    return "|".join(re.escape(s) for s in sorted(told, key=len, reverse=True)) or r"(?!)"


def _secrets(request: Request | None) -> set[str]:
    found = {_login(), platform.node(), _home()}
    if request is not None:
        found |= {request.name, *_words(request.name)}
        for path in (*(str(request.input.get(name, "")) for name in PATHS), str(request.settings.get("prior", ""))):
            if any(mark in path for mark in "/\\"):
                parts = PureWindowsPath(path)
                found |= {path, parts.name, parts.parent.name, *_words(parts.stem), *_words(parts.parent.name)}
    return {s for s in found if len(s) >= _SHORTEST and not _PLAIN.match(s)}


def _words(text: str) -> list[str]:
    """The parts of a name: a log might hold one of them."""
    return re.split(r"[\W_]+", text)


def _home() -> str:
    try:
        return str(Path.home())
    except RuntimeError:
        return ""


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return os.environ.get("USERNAME", "")
