"""Measured or simulated k-space whose samples lie along a trajectory instead of on a grid.  Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import InputError
from ..geometry import TrajectoryMRI
from ..volume import Volume
from .mr import KSpace


@dataclass(frozen=True)
class TrajectoryKSpace(KSpace):
    """A stack of slices sampled along one trajectory; its other fields are those of :class:`.mr.KSpace`.

    data: complex64 (slices, coils, readouts, samples); of a stack of stars or spirals after the inverse Fourier
    transform along its partitions.  A sample is the sum that :mod:`..operators.gridding` defines.
    grid: what is reconstructed on, which may reach beyond the wanted image, as readouts with oversampling allow.
    stored_grid: the wanted image, cropped from the middle of it (pixel n // 2 to pixel n // 2); None: all of it.
    """

    KIND: ClassVar[str] = "mr-trajectory"

    geometry: TrajectoryMRI  # type: ignore[assignment]

    def _require_grids(self) -> None:
        if self.grid.in_plane != self.geometry.matrix:
            raise InputError(
                f"{self.name}: its trajectory is of a matrix of {self.geometry.matrix} (rows, columns), its grid has "
                f"{self.grid.in_plane} pixels; give the trajectory of these data"
            )
        if self.stored_grid is not None:
            wanted, whole = self.stored_grid.shape, self.grid.shape
            if wanted[0] != whole[0] or wanted[1] > whole[1] or wanted[2] > whole[2]:
                raise InputError(f"{self.name}: stored_grid {wanted} is no part of the grid {whole}")

    def _require_sampled(self) -> None:
        """All of a readout was."""

    def volume(self, array: np.ndarray, name: str) -> Volume:
        (_, rows, columns), (_, below, across) = self.result_grid.shape, array.shape
        top, left = below // 2 - rows // 2, across // 2 - columns // 2
        return super().volume(np.ascontiguousarray(array[:, top : top + rows, left : left + columns]), name)
