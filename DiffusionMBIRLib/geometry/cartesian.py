"""Which positions of k-space a Cartesian MR scan sampled.  Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError
from .base import Geometry
from .checks import count


@dataclass(frozen=True, eq=False)
class CartesianMRI(Geometry):
    """A stack of 2D slices whose k-space was sampled on a grid, at the same positions in every slice and coil.

    mask: bool (rows, columns), True where sampled; the lowest frequency lies at (rows // 2, columns // 2).
    coils: receiving coils.

    Found from the mask: ``phase_axis``, along which whole lines were left out (0: rows, 1: columns, also where nothing
    was, None: single points were), and ``acs`` (rows, columns), the size of the fully sampled block in the middle.
    """

    KIND: ClassVar[str] = "cartesian-mri"
    LABEL: ClassVar[str] = "Cartesian k-space"

    mask: np.ndarray
    coils: int = 1
    phase_axis: int | None = field(init=False)
    acs: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        mask = np.asarray(self.mask)
        if mask.ndim != 2 or 0 in mask.shape:
            raise InputError(f"geometry.mask must have two axes (rows, columns), not the shape {mask.shape}")
        if mask.dtype != np.bool_:
            if not (mask.dtype.kind in "iuf" and np.isin(mask, (0, 1)).all()):
                raise InputError("geometry.mask must hold true and false, or 1 and 0, only")
            mask = mask.astype(bool)
        if not mask.any():
            raise InputError("geometry.mask samples no position of k-space; check the mask")
        mask = mask.copy()
        mask.flags.writeable = False
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "coils", count("geometry.coils", self.coils))
        object.__setattr__(self, "phase_axis", _phase_axis(mask))
        object.__setattr__(self, "acs", _fully_sampled_centre(mask))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CartesianMRI):
            return NotImplemented
        return self.coils == other.coils and np.array_equal(self.mask, other.mask)

    def __hash__(self) -> int:
        return hash((self.mask.shape, self.mask.tobytes(), self.coils))

    @property
    def acceleration(self) -> float:
        """Positions over sampled positions."""
        return self.mask.size / int(np.count_nonzero(self.mask))

    @property
    def acs_block(self) -> tuple[slice, slice]:
        """Where the fully sampled block of size ``acs`` lies in (rows, columns)."""
        rows, columns = (
            slice(n // 2 - size // 2, n // 2 - size // 2 + size)
            for n, size in zip(self.mask.shape, self.acs, strict=True)
        )
        return rows, columns

    @property
    def outermost(self) -> np.ndarray:
        """bool (rows, columns): the tenth of the sampled positions that lies farthest out."""
        mask = self.mask
        rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
        radius = np.hypot((rows - mask.shape[0] // 2) / mask.shape[0], (columns - mask.shape[1] // 2) / mask.shape[1])
        return mask & (radius >= np.quantile(radius[mask], 0.9))

    def data_shape(self, slices: int) -> tuple[int, int, int, int]:
        """Shape of the k-space of a stack: (slices, coils, rows, columns)."""
        rows, columns = self.mask.shape
        return slices, self.coils, rows, columns

    @property
    def data_axes(self) -> tuple[str, ...]:
        return "slices", "coils", "rows", "columns"

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.KIND, "mask": self.mask, "coils": self.coils}

    def summary(self) -> dict[str, Any]:
        """What is left out of k-space, in words."""
        left_out = {0: "rows", 1: "columns", None: "single positions"}[self.phase_axis]
        return {
            "geometry": self.KIND,
            "coils": self.coils,
            "matrix": list(self.mask.shape),
            "acceleration": round(self.acceleration, 3),
            "undersampled": "not" if self.mask.all() else left_out,
            "acs": list(self.acs),
        }


def _phase_axis(mask: np.ndarray) -> int | None:
    if (mask == mask[:1]).all():
        return 1
    return 0 if (mask == mask[:, :1]).all() else None


def _fully_sampled_centre(mask: np.ndarray) -> tuple[int, int]:
    """The largest block around the middle without a gap: first a square grows, then its rows, then its columns."""

    def full(rows: int, columns: int) -> bool:
        top, left = mask.shape[0] // 2 - rows // 2, mask.shape[1] // 2 - columns // 2
        return bool(mask[top : top + rows, left : left + columns].all())

    rows = columns = 0
    while max(rows, columns) < max(mask.shape):
        taller, wider = min(rows + 1, mask.shape[0]), min(columns + 1, mask.shape[1])
        if not full(taller, wider):
            break
        rows, columns = taller, wider
    while rows < mask.shape[0] and full(rows + 1, max(columns, 1)):
        rows, columns = rows + 1, max(columns, 1)
    while columns < mask.shape[1] and full(max(rows, 1), columns + 1):
        rows, columns = max(rows, 1), columns + 1
    return rows, columns
