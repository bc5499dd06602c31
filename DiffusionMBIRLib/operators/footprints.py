"""The X-ray transform of cone beams by separable footprints, without a matrix.

* Detectors whose rows' direction is the axis, as on circles and helices: the shadow of a voxel is taken as the product
  of a profile along columns and one along rows (Long, Fessler and Balter 2010, doi 10.1109/TMI.2010.2050898).  Along
  columns it is the trapezoid between the shadows of the pixel's four corners, exact in the plane of the pixel; along
  rows a box.  Its weight is the voxel's volume where it falls, so that the transform keeps mass, times how much longer
  the ray through each detector cell is than one straight ahead (their A2).
* Others (turned in their own plane, tilted, poses of any kind): shadows of voxels have slanted outlines there, whose
  products of profiles would not add up to a smooth whole.  So it is the detector cell that throws its shadow onto each
  layer of the volume and is cut with the voxels there (De Man and Basu 2004, doi 10.1088/0031-9155/49/11/024).  The
  shadow is a parallelogram with two sides along the layer's narrower axis: its second moments are those of the cell's
  shadow and the ray's way within the layer together, lean included.

The kernels are compiled by numba on a CPU or by Triton on CUDA, where these are installed, else made of torch's own
functions, which is slower.
"""

from __future__ import annotations

import copy
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..geometry import Grid, PointSource
from .base import LinearOperator
from .projector import projects
from .sight import Sight
from .space import Space

KERNELS = ("numba", "triton", "torch")
SLOW = "numba is not installed: cone beams are projected by torch alone, which is slower; pip install numba"


def usual_kernel(device: torch.device, upright: bool = True) -> str:
    """The fastest kernel that this machine has for a device."""
    if device.type == "cpu" and find_spec("numba"):
        return "numba"
    return "triton" if device.type == "cuda" and upright and find_spec("triton") else "torch"


@projects(PointSource)  # type: ignore[type-abstract]
class ConeTransform(LinearOperator):
    """Line integrals of volumes: (slices, rows, columns) in 1/mm -> (detector rows, views, columns), without unit.

    kernel: one of ``KERNELS``; None for the usual one.  Raises InputError where the geometry does not see the grid.
    """

    def __init__(
        self,
        geometry: PointSource,
        grid: Grid,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        kernel: str | None = None,
    ) -> None:
        geometry.require_in_sight(grid)
        on = torch.device(device)
        volumes = Space(grid.shape, dtype, on, slices_last=True)
        super().__init__(volumes, Space(geometry.data_shape(grid.shape[0]), dtype, on, slices_last=True))
        self.geometry, self.grid, self._factor = geometry, grid, 1.0
        self._sight = Sight.of(geometry, grid)
        self.kernel = kernel or usual_kernel(self.device, self._sight.upright)
        if self.kernel not in KERNELS:
            raise InputError(f"kernel {self.kernel!r} is not known; use one of {', '.join(KERNELS)}")
        if self.kernel == "triton" and not self._sight.upright:
            raise InputError("kernel 'triton' takes detectors whose rows' direction is the axis only; use torch")
        if self.kernel == "torch" and not kernel and self.device.type == "cpu":
            self.remark = SLOW
        self._kernel: Any = import_module(f"{__package__}.kernels.footprints_{self.kernel}")

    def forward(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        out = self.range.empty()
        self._kernel.project(self._sight, self._factor, _inside_out(self.domain.laid_out(x)), _inside_out(out))
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        self.range.check(y, "y")
        out = self.domain.empty()
        self._kernel.back_project(self._sight, self._factor, _inside_out(self.range.laid_out(y)), _inside_out(out))
        return out

    def scaled(self, factor: float) -> ConeTransform:
        """factor A, with the factor in the weights: no extra pass over volumes."""
        twin = copy.copy(self)
        twin._factor = self._factor * float(factor)
        return twin


def _inside_out(x: Tensor) -> Tensor:
    """As it lies in memory, with the first axis last."""
    return x.detach().movedim(0, -1)
