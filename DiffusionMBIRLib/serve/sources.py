"""The files that the server's owner named, by names that a browser may choose from.  Nothing else can be asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from ..errors import InputError
from ..formats import format_of, may_hold
from ..names import require_unicode

MOST = 500  # names that are offered of a folder
_GLANCES = 3  # files that tell whether a folder holds a series


class Sources:
    """Scans and volumes: files, DICOM folders, and what lies in other folders, not below them.

    A name is no path: what a browser sends is looked up among the names that there are.  A link in a folder counts
    where it leads to something in that folder.
    """

    def __init__(self, named: Sequence[Path]) -> None:
        """Raises InputError for what is missing or no scan or volume, and where there is nothing at all."""
        self._named = [path.expanduser().absolute() for path in named]
        for path in self._named:
            require_unicode(path)
            if not path.exists():
                raise InputError(f"{path}: no such file or folder")
            if path.is_file() and not may_hold(path, ""):
                raise InputError(f"{path}: is no scan or volume that we read; `diffusionmbir info` lists the formats")
        if not self.names():
            raise InputError(f"{self._named[0]}: holds no scan or volume that we read; name files or another folder")

    def names(self) -> list[str]:
        """What can be chosen at present, in the order of the command line; of folders by name."""
        return list(self._found())

    def path(self, name: object) -> Path:
        """The file of a name; raises InputError for everything that is not one of :meth:`names`."""
        found = self._found()
        if not isinstance(name, str) or name not in found:
            raise InputError("this file is not among those that the server was started with")
        return found[name]

    def _found(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in self._paths():
            name = path.name if path.name not in found else f"{path.parent.name}/{path.name}"
            while name in found:
                name += "'"
            found[name] = path
        return found

    def _paths(self) -> Iterator[Path]:
        from ..io.header_folder import described

        for path in self._named:
            if not path.is_dir() or (_is_source(path) and not described(path)):  # whose scans are files in it
                yield path
            else:
                yield from _within(path)


def _within(folder: Path) -> Iterable[Path]:
    try:
        inside = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError:
        return []  # gone since, or closed to us
    here = folder.resolve()
    return [p for p in inside if p.resolve().is_relative_to(here) and _is_source(p)][:MOST]


def _is_source(path: Path) -> bool:
    """By a glance at what it holds; formats that are asked last take anything, to tell what is wrong with it."""
    known = format_of(path) if path.exists() else None
    return known is not None and (not known.last or (path.is_dir() and _holds_dicom(path)))


def _holds_dicom(folder: Path) -> bool:
    """Whether one of the first files is of DICOM, by its suffix or its mark."""
    for path in islice(sorted(p for p in folder.iterdir() if p.is_file()), _GLANCES):
        with suppress(OSError), path.open("rb") as stream:
            if path.suffix.lower() in (".dcm", ".ima") or stream.read(132)[128:] == b"DICM":
                return True
    return False
