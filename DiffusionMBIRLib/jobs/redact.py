"""Takes out of a text what might name a patient or a person: the job's name, its paths, the user and the machine."""

from __future__ import annotations

import getpass
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

from .request import Request

_SHORTEST = 3
_PLAIN = re.compile(r"^(scan|volume|input|output|data|home|root|tmp|users|the|and|for|from)$", re.IGNORECASE)
_PATH = re.compile(r"""(?:[A-Za-z]:)?(?:[\\/][^\\/\s"'<>|:*?,;()]+){2,}[\\/]?""")
_CODE = re.compile(r"[\w.-]+\.pyx?$")


def redactor(request: Request | None) -> Callable[[str], str]:
    """A function that cleans texts of one job."""
    secrets = sorted(_secrets(request), key=len, reverse=True)
    pattern = re.compile("|".join(re.escape(s) for s in secrets), re.IGNORECASE) if secrets else None

    def clean(text: str) -> str:
        if pattern is not None:
            text = pattern.sub("<redacted>", text)
        return _PATH.sub(_shortened, text)

    return clean


def _shortened(match: re.Match[str]) -> str:
    """A path as the name of its file, and that only where it is program code."""
    name = PureWindowsPath(match[0]).name
    return f"<path>/{name}" if _CODE.fullmatch(name) else "<path>"


def _secrets(request: Request | None) -> set[str]:
    found = {_login(), platform.node(), _home()}
    if request is not None:
        found |= {request.name, *_words(request.name)}
        for path in (str(request.input.get("path", "")), str(request.settings.get("prior", ""))):
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
