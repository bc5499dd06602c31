"""Means of thin slices over thick ones, and the way back that has a closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..geometry import Grid
from ..geometry.slices import SliceProfiles
from .base import LinearOperator
from .space import Space


class SliceMeans(LinearOperator):
    """y = S x: thin slices (thin, rows, columns) -> thick ones (thick, rows, columns), one small matrix S along z."""

    def __init__(
        self,
        geometry: SliceProfiles,
        grid: Grid,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        volumes = Space(grid.shape, dtype, torch.device(device))
        self.shares = geometry.matrix(grid)
        super().__init__(volumes, replace(volumes, shape=geometry.data_shape(grid.shape[0])))
        self._matrix = self.small(self.shares)

    def small(self, matrix: np.ndarray) -> Tensor:
        """A matrix along z, on the device."""
        return torch.from_numpy(np.ascontiguousarray(matrix)).to(self.device, self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        return along_z(self._matrix, x)

    def adjoint(self, y: Tensor) -> Tensor:
        self.range.check(y, "y")
        return along_z(self._matrix.T, y)

    def norm(self, *, tolerance: float = 1e-5, most: int = 300) -> float:
        """The largest singular value, of the small matrix."""
        return float(np.linalg.norm(self.shares, 2))


def along_z(matrix: Tensor, x: Tensor) -> Tensor:
    """The matrix times each column of a volume along its first axis."""
    return torch.tensordot(matrix, x, 1)
