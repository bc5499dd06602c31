"""torch-radon (github.com/matteo-ronchetti/torch-radon, version 1) as an optional back end on CUDA devices."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ...geometry import Grid, ParallelBeam
from ..projector import projects
from ..space import slices_last
from ..stack import SliceProjector, require_float32, require_square_pixels

MOST_VIEWS = 4096  # what its back-projection keeps in a block's shared memory


def import_torch_radon() -> Any:
    """The module ``torch_radon``; raises InputError that says how to get it where it, or its CUDA part, is missing."""
    try:
        import_module("torch_radon_cuda")  # torch_radon itself only prints when this is missing
        return import_module("torch_radon")
    except ImportError as error:
        raise InputError(
            "back end 'torch-radon' needs torch-radon 1.0: build it from its source, "
            "github.com/matteo-ronchetti/torch-radon (or use projector own)"
        ) from error


@projects(ParallelBeam, "torch-radon")
class TorchRadonTransform(SliceProjector):
    """Line integrals of each slice by torch-radon: (slices, rows, columns) in 1/mm -> (slices, views, columns).

    Samples the ray through the middle of each detector column with bilinear interpolation; its back-projection
    interpolates in the sinogram instead.  The two are transposes only approximately, hence ``exact_adjoint`` is False:
    fit for previews and filtered back-projection, while conjugate gradient stalls at the size of the mismatch.

    Raises InputError where torch-radon is missing and for what it cannot do: other devices than CUDA, other types
    than float32, grids or pixels that are not square, a shifted detector, more than 4096 views.
    """

    exact_adjoint = False

    def __init__(
        self,
        geometry: ParallelBeam,
        grid: Grid,
        *,
        device: torch.device | str = "cuda",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        torch_radon = import_torch_radon()
        require_float32("torch-radon", dtype)
        self._pixel_mm = require_square_pixels("torch-radon", grid)
        _require_cuda(torch.device(device))
        _require_supported(geometry, grid)
        super().__init__(geometry, grid, device=device, dtype=dtype)
        # Its images are in pixels, with x along columns and y along rows as ours, but its angles turn the other way.
        angles = torch.tensor([-math.radians(angle) for angle in geometry.angles_deg], dtype=torch.float32)
        self._radon = torch_radon.Radon(
            grid.in_plane[0], angles, det_count=geometry.columns, det_spacing=geometry.pitch_mm / self._pixel_mm
        )

    def forward(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        return slices_last(self._radon.forward(x.contiguous()) * self._pixel_mm)

    def adjoint(self, y: Tensor) -> Tensor:
        self.range.check(y, "y")
        return slices_last(self._radon.backprojection(y.contiguous()) * self._pixel_mm)


def _require_cuda(device: torch.device) -> None:
    if device.type != "cuda":
        raise InputError(f"back end 'torch-radon' runs on CUDA devices only, not on {device}; use projector own")


def _require_supported(geometry: ParallelBeam, grid: Grid) -> None:
    rows, columns = grid.in_plane
    if rows != columns:
        raise InputError(f"back end 'torch-radon' needs square slices, not {rows} x {columns}; use projector own")
    if geometry.offset_mm != 0:
        raise InputError(
            f"back end 'torch-radon' knows no detector shift, geometry.offset_mm is {geometry.offset_mm:g}; "
            "use projector own"
        )
    if geometry.views > MOST_VIEWS:
        raise InputError(
            f"back end 'torch-radon' takes at most {MOST_VIEWS} views, not {geometry.views}; use projector own"
        )
