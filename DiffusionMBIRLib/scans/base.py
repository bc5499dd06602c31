"""What every scan is: data with the geometry that they were taken in, and the grid to reconstruct on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..errors import InputError
from ..formats import write
from ..geometry import Geometry, Grid
from ..tasks import task_info
from ..volume import Volume

_KINDS: dict[str, type[Scan]] = {}


@dataclass(frozen=True)
class Scan(ABC):
    """The base of :class:`.ct.Measurement` and :class:`.mr.KSpace`; frozen dataclasses, registered by their KIND.

    KIND: the name in files.  STORED: the types that arrays have in memory and in files.
    """

    KIND: ClassVar[str] = ""
    STORED: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "KIND" in vars(cls):
            _KINDS[cls.KIND] = cls

    if TYPE_CHECKING:  # the fields of all scans, which subclasses list in an order of their own

        @property
        def data(self) -> np.ndarray: ...
        @property
        def geometry(self) -> Geometry: ...
        @property
        def grid(self) -> Grid: ...
        @property
        def unit(self) -> str: ...
        @property
        def stored_grid(self) -> Grid | None: ...
        @property
        def task(self) -> str: ...
        @property
        def provenance(self) -> dict[str, Any]: ...
        @property
        def name(self) -> str: ...

    @abstractmethod
    def volume(self, array: np.ndarray, name: str) -> Volume:
        """A reconstruction on ``grid`` (slices, rows, columns) as a volume in the user's own axis order."""

    @property
    def modality(self) -> str:
        """CT or MR."""
        return task_info(self.task).modality

    @property
    def result_grid(self) -> Grid:
        """The grid of the result: the user's own where it is known."""
        return self.grid if self.stored_grid is None else self.stored_grid

    @property
    def notes(self) -> list[str]:
        """What its reader guessed, repaired or found odd, a line each: to be told wherever a result is made of it."""
        told = {key: self.provenance.get(key) for key in ("guessed", "remarks")}
        return [f"{key}: {line}" for key, found in told.items() if isinstance(found, list) for line in found]

    def save(self, path: Any) -> None:
        """Write every field to a scan file (.h5), whole or not at all."""
        write(self, path)


def scan_kind(name: str) -> type[Scan]:
    """The class of scans of a kind; raises InputError for one that this version does not know."""
    if name not in _KINDS:
        raise InputError(f"its kind {name!r} is not known to this version; {', '.join(map(repr, _KINDS))} are")
    return _KINDS[name]


def same_scan(a: Scan, b: Scan) -> bool:
    """Whether two scans hold the same in every field, arrays bit for bit."""
    if type(a) is not type(b):
        return False
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)]
    return all(np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y for x, y in pairs)


def require_data_shape(shape: tuple[int, ...], geometry: Geometry, grid: Grid, name: str) -> None:
    """Raise InputError that names the axis where data do not have the shape that their geometry and grid ask for."""
    needs, axes = geometry.data_shape(grid.shape[0]), geometry.data_axes
    if len(shape) != len(needs):
        raise InputError(f"{name}: data must be ({', '.join(axes)}), it has {len(shape)} axes")
    for axis, (found, wanted, what) in enumerate(zip(shape, needs, axes, strict=True)):
        if found != wanted:
            raise InputError(
                f"{name}: data has {found} entries along axis {axis}, its grid and geometry list {wanted} {what}"
            )
