"""What every back end of the X-ray transform shares: one 2D geometry for all slices of a stack."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import TypeVar

import torch

from ..errors import InputError
from ..geometry import Grid, RayGeometry
from .base import LinearOperator
from .slabs import WHOLE
from .space import Space

Same = TypeVar("Same", bound="SliceProjector")


class SliceProjector(LinearOperator):
    """Line integrals of each slice: (slices, rows, columns) in 1/mm -> (slices, views, columns), without unit.

    Slices do not mix, so that one slice stands for a stack of any height.
    """

    def __init__(self, geometry: RayGeometry, grid: Grid, *, device: torch.device | str, dtype: torch.dtype) -> None:
        on = torch.device(device)
        volumes = Space(grid.shape, dtype, on, slices_last=True)
        super().__init__(volumes, Space(geometry.data_shape(grid.shape[0]), dtype, on, slices_last=True))
        self.geometry, self.grid = geometry, grid

    def with_slices(self: Same, slices: int) -> Same:
        """The same transform for a stack of another height; nothing large is copied."""
        twin = copy.copy(self)
        twin.domain, twin.range = (
            replace(space, shape=(slices, *space.shape[1:]), slabs=WHOLE, first_slice=0)
            for space in (self.domain, self.range)
        )
        return twin

    def norm(self, *, tolerance: float = 1e-5, most: int = 300) -> float:
        """Largest singular value; one slice tells."""
        if self.domain.slices > 1:
            return self.with_slices(1).norm(tolerance=tolerance, most=most)
        return super().norm(tolerance=tolerance, most=most)


def require_float32(backend: str, dtype: torch.dtype) -> None:
    """Raise InputError for a type that an optional back end does not compute in."""
    if dtype != torch.float32:
        raise InputError(f"back end {backend!r} computes in float32 only, not {dtype}; use projector own")


def require_square_pixels(backend: str, grid: Grid) -> float:
    """The side of a pixel in mm; raises InputError where columns and rows differ in spacing."""
    dx, dy = grid.spacing_mm[:2]
    if not math.isclose(dx, dy, rel_tol=1e-6):
        raise InputError(f"back end {backend!r} needs square pixels, not {dx:g} x {dy:g} mm; use projector own")
    return dx
