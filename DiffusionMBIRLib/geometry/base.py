"""What every geometry is: a frozen record of plain numbers with a name, known by it when a file is read.

A geometry is one file of this package: its class is registered where it is defined, and found by its ``KIND``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..discovery import Names
from ..errors import InputError

Same = TypeVar("Same", bound="Geometry")
_KINDS: dict[str, type[Geometry]] = {}


@dataclass(frozen=True, eq=False)
class Geometry(ABC):
    """How data were taken; the base of those of rays (:class:`.rays.RayGeometry`) and of k-space.

    KIND: the name in files.  LABEL: what a user reads.
    """

    KIND: ClassVar[str] = ""
    LABEL: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "KIND" in vars(cls):
            _KINDS[cls.KIND] = cls

    @abstractmethod
    def data_shape(self, slices: int) -> tuple[int, ...]:
        """Shape of the data of a grid with so many slices."""

    @property
    @abstractmethod
    def data_axes(self) -> tuple[str, ...]:
        """What each axis of the data counts, in the plural."""

    def to_dict(self) -> dict[str, Any]:
        """Its kind and fields: plain values, lists and numpy arrays."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return {"kind": self.KIND, **{k: list(v) if isinstance(v, tuple) else v for k, v in own.items()}}

    @classmethod
    def of_dict(cls: type[Same], entries: Mapping[str, Any]) -> Same:
        """The inverse of :meth:`to_dict`; raises InputError that names a missing or damaged field."""
        known = [f for f in fields(cls) if f.init]
        for f in known:
            if f.name not in entries and f.default is MISSING and f.default_factory is MISSING:
                raise InputError(f"geometry lacks the field {f.name!r}")
        given = {f.name: entries[f.name] for f in known if f.name in entries}
        try:
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
        except InputError:
            raise
        except (TypeError, ValueError, AttributeError):
            raise InputError(f"geometry must map fields to numbers and lists, not {given!r}") from None

    def summary(self) -> dict[str, Any]:
        """What ``info`` and the panel tell of it: plain numbers, text and short lists."""
        return {"geometry": self.KIND}


def geometry_from_dict(entries: Any) -> Geometry:
    """The geometry that :meth:`Geometry.to_dict` told, of whatever kind is registered.

    Raises InputError that names an unknown kind and a missing or damaged field.
    """
    if not isinstance(entries, Mapping):
        raise InputError(f"geometry must map fields to numbers and lists, not {entries!r}")
    if "kind" not in entries:
        raise InputError("geometry lacks the field 'kind'")
    return geometry_kind(str(entries["kind"])).of_dict(entries)


def geometry_kind(name: str) -> type[Geometry]:
    """The class of a kind; raises InputError, listing them, for one that this version does not know."""
    if name not in _KINDS:
        known = ", ".join(map(repr, sorted(_KINDS)))
        raise InputError(f"geometry.kind {name!r} is not known to this version; {known} are")
    return _KINDS[name]


def kinds_of(base: Any) -> Names:
    """The kinds that derive from a class of geometries, in the order of their registration."""
    return Names(lambda: [kind for kind, cls in _KINDS.items() if issubclass(cls, base)])


def forget_geometry(kind: str) -> None:
    """Take a kind out of the registry."""
    _KINDS.pop(kind, None)


def same_fields(a: Any, b: Any) -> bool:
    """Whether two geometries of one class hold equal fields, arrays included."""
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.init)
