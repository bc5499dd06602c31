"""Packages whose files register what they hold, so that a new one is a new file and no list has to name it."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules


def import_all(package: str, path: Iterable[str]) -> None:
    """Import every module of a package of ours.

    path: the package's own ``__path__``, so that nothing from elsewhere is ever imported.
    """
    for found in iter_modules(path):
        import_module(f"{package}.{found.name}")
