"""Thick slices on a device: means over thin ones, which a prior sees in coronal and sagittal planes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..models import MR_PERCENTILE, MR_VALUE, ValueScale
from ..operators import LinearOperator
from ..operators.slices import SliceMeans, along_z
from ..scans import ThickSlices
from ..solvers.slices import SliceProjection, spline
from ..volume import Volume
from .base import Problem, relative

if TYPE_CHECKING:
    from ..config import ReconSettings

FIRST_LEVEL = 0.1  # where the settings leave it open
_AIR_HU = -1000.0
_INSIDE_HU = -800.0  # of CT: less dense voxels, which may be clipped, tell nothing of the noise
_INSIDE_MR = 0.1  # of MR, in multiples of the value scale's unit: what is darker is air
_FEWEST = 1000  # voxels that tell the noise


def slices_problem(
    scan: ThickSlices, settings: ReconSettings, value: ValueScale | None, device: torch.device
) -> Problem:
    """y = S x with x in the value scale, of MR in multiples of the slices' 99.5th percentile; |S| = 1."""
    means = SliceMeans(scan.geometry, scan.grid, device=device)
    norm = means.norm()
    measured = torch.from_numpy(np.ascontiguousarray(scan.data, np.float32)).to(device)
    mr = scan.modality == "MR"
    value = MR_VALUE if mr else value or ValueScale()
    unit = float(np.percentile(np.asarray(scan.data, np.float32), MR_PERCENTILE)) or 1.0 if mr else value.scale
    seen = _Slices(
        scan, means, means.scaled(1 / norm), measured.sub(value.offset).div_(unit * norm), unit, value.offset
    )
    inside = _INSIDE_MR if mr else (_INSIDE_HU - value.offset) / unit
    noise = noise_of_slices((seen.y * norm).cpu().numpy(), inside)
    air = 0.0 if mr else (_AIR_HU - value.offset) / unit
    return Problem(
        scan,
        seen.A,
        seen.y,
        value,
        noise / norm,
        FIRST_LEVEL,
        to_volume=seen.volume,
        residual=seen.residual,
        unit=unit if mr else 1.0,
        least=min(air, float(seen.y.min()) * norm),
        direct=seen.direct,
        planes=(1, 2),
        data_step=lambda weight: SliceProjection(seen.A, seen.y, means, noise=weight * noise / norm),
        normalised=True,
    )


@dataclass(frozen=True)
class _Slices:
    """The slices in the value scale: value in the unit of the volume = base + slope x."""

    scan: ThickSlices
    means: SliceMeans
    A: LinearOperator
    y: Tensor
    slope: float
    base: float

    def residual(self, x: Tensor) -> float:
        """|S x - y| / |y - the value of air|: HU have their zero at water."""
        return relative(self.A.distance(x, self.y), torch.linalg.vector_norm(self.y))

    def direct(self, way: str) -> Tensor:
        """The cubic spline through the slices for "spline", else the nearest volume to it that has their means."""
        weights = self.means.small(spline(self.scan.geometry, self.scan.grid))
        curve = along_z(weights, self.y).mul_(self.means.norm())
        return curve if way == "spline" else SliceProjection(self.A, self.y, self.means)(curve)

    def volume(self, x: Tensor, name: str, difference: bool) -> Volume:
        values = x.cpu().numpy() * np.float32(self.slope)
        values += np.float32(0.0 if difference else self.base)
        return self.scan.volume(values, name)


def noise_of_slices(slices: np.ndarray, inside: float) -> float:
    """Standard deviation of the noise in slices (slices, rows, columns), from voxels above ``inside``.

    By the median of a second difference along rows and columns, which edges hardly count in (after Immerkaer 1996,
    doi 10.1006/cviu.1996.0060); low where noise is smooth.  0 where too few voxels tell.
    """
    if min(slices.shape[1:]) < 3:
        return 0.0
    along = slices[:, :, 2:] - 2 * slices[:, :, 1:-1] + slices[:, :, :-2]
    both = along[:, 2:] - 2 * along[:, 1:-1] + along[:, :-2]
    told = np.abs(both[slices[:, 1:-1, 1:-1] > inside])
    return float(np.median(told)) / (0.6745 * 6) if told.size >= _FEWEST else 0.0
