"""Packages whose files register what they hold, so that a new one is a new file and no list has to name it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import overload


def import_all(package: str, path: Iterable[str]) -> None:
    """Import every module of a package of ours.

    path: the package's own ``__path__``, so that nothing from elsewhere is ever imported.
    """
    for found in iter_modules(path):
        import_module(f"{package}.{found.name}")


class Names(Sequence[str]):
    """The names that a registry holds at the moment of asking, as a sequence of choices."""

    def __init__(self, now: Callable[[], list[str]]) -> None:
        self._now = now

    def __len__(self) -> int:
        return len(self._now())

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._now()[index]

    def __contains__(self, name: object) -> bool:
        return name in self._now()
