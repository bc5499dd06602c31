"""What every back end of the X-ray transform shares: one 2D geometry for all slices of a stack."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch

from ..errors import InputError
from ..geometry import Grid, ParallelBeam
from .base import LinearOperator

if TYPE_CHECKING:
    from typing_extensions import Self


class SliceProjector(LinearOperator):
    """Line integrals of each slice: (slices, rows, columns) in 1/mm -> (slices, views, columns), without unit.

    Slices do not mix, so that one slice stands for a stack of any height.
    """

    def __init__(self, geometry: ParallelBeam, grid: Grid, *, device: torch.device | str, dtype: torch.dtype) -> None:
        super().__init__(grid.shape, geometry.data_shape(grid.shape[0]), device=torch.device(device), dtype=dtype)
        self.geometry, self.grid = geometry, grid

    def with_slices(self, slices: int) -> Self:
        """The same transform for a stack of another height; nothing large is copied."""
        twin = copy.copy(self)
        twin.domain, twin.range = (slices, *self.domain[1:]), (slices, *self.range[1:])
        return twin

    def norm(self, *, tolerance: float = 1e-5, most: int = 300) -> float:
        """Largest singular value; one slice tells."""
        if self.domain[0] > 1:
            return self.with_slices(1).norm(tolerance=tolerance, most=most)
        return super().norm(tolerance=tolerance, most=most)


def require_float32(backend: str, dtype: torch.dtype) -> None:
    """Raise InputError for a type that an optional back end does not compute in."""
    if dtype != torch.float32:
        raise InputError(f"back end {backend!r} computes in float32 only, not {dtype}; use backend='matrix'")


def require_square_pixels(backend: str, grid: Grid) -> float:
    """The side of a pixel in mm; raises InputError where columns and rows differ in spacing."""
    dx, dy = grid.spacing_mm[:2]
    if not math.isclose(dx, dy, rel_tol=1e-6):
        raise InputError(f"back end {backend!r} needs square pixels, not {dx:g} x {dy:g} mm; use backend='matrix'")
    return dx
