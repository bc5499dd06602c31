"""The ASTRA Toolbox (astra-toolbox.com) as an optional, independent back end of the X-ray transform."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import EngineError, InputError
from ...geometry import Grid, ParallelBeam
from ..projector import projects
from ..space import slices_last
from ..stack import SliceProjector, require_float32, require_square_pixels

KINDS = ("strip", "linear", "line")


def import_astra() -> Any:
    """The module ``astra``; raises InputError with the install line where it is missing."""
    try:
        import astra
    except ImportError as error:
        raise InputError(
            "back end 'astra' needs the ASTRA Toolbox: pip install astra-toolbox (or use projector own)"
        ) from error
    return astra


@projects(ParallelBeam, "astra")
class AstraTransform(SliceProjector):
    """Line integrals of each slice by ASTRA: (slices, rows, columns) in 1/mm -> (slices, views, columns), without unit.

    kind: ASTRA's CPU projector.  'strip' weighs pixels by their area inside a ray's strip, as our own transform does;
    'linear' and 'line' follow the ray through the middle of each detector column.  ASTRA back-projects with the
    transpose of the same weights, so the adjoint is exact up to rounding.  On a CUDA device ASTRA's GPU projector is
    used where ASTRA has one; its back-projection interpolates differently, so that ``exact_adjoint`` is False there.

    Slices go through main memory one by one.  Raises InputError where ASTRA is missing, for types other than float32
    and for pixels that are not square.
    """

    def __init__(
        self,
        geometry: ParallelBeam,
        grid: Grid,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        kind: str = "strip",
    ) -> None:
        astra = import_astra()
        require_float32("astra", dtype)
        require_square_pixels("astra", grid)
        if kind not in KINDS:
            raise InputError(f"projector kind {kind!r} is not known to back end 'astra'; use one of {', '.join(KINDS)}")
        super().__init__(geometry, grid, device=device, dtype=dtype)
        on_gpu = self.device.type == "cuda" and astra.use_cuda()
        self.exact_adjoint = not on_gpu
        try:
            self._astra = _Projector(astra, geometry, grid, "cuda" if on_gpu else kind)
        except astra.log.AstraError as error:
            raise EngineError(f"ASTRA could not set up the scan ({error}); use projector own") from error

    def forward(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        return self._slice_by_slice(self._astra.project, x, self.range.shape)

    def adjoint(self, y: Tensor) -> Tensor:
        self.range.check(y, "y")
        return self._slice_by_slice(self._astra.back_project, y, self.domain.shape)

    def _slice_by_slice(self, transform: Any, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        stack = tensor.detach().contiguous().cpu().numpy()
        out = np.empty(shape, dtype=np.float32)
        for image, image_out in zip(stack, out, strict=True):
            transform(image, image_out)
        return slices_last(torch.from_numpy(out).to(self.device))


class _Projector:
    """An ASTRA projector of one slice that frees its memory in ASTRA when it is no longer used."""

    def __init__(self, astra: Any, geometry: ParallelBeam, grid: Grid, kind: str) -> None:
        rows, columns = grid.in_plane
        width, height = columns * grid.spacing_mm[0], rows * grid.spacing_mm[1]
        volume = astra.create_vol_geom(rows, columns, -width / 2, width / 2, -height / 2, height / 2)
        # ASTRA counts rows from the top, y upwards: in its frame our y is -y and the detector turns the other way.
        theta = -np.radians(geometry.angles_deg)
        axis = np.stack([np.cos(theta), np.sin(theta)], axis=1)
        ray = np.stack([-np.sin(theta), np.cos(theta)], axis=1)
        vectors = np.hstack([ray, axis * geometry.offset_mm, axis * geometry.pitch_mm])
        detector = astra.create_proj_geom("parallel_vec", geometry.columns, vectors)
        number = astra.create_projector(kind, detector, volume)
        self._transform = astra.OpTomo(number)
        weakref.finalize(self, astra.projector.delete, number)

    def project(self, image: np.ndarray, out: np.ndarray) -> None:
        self._transform.FP(image, out=out)

    def back_project(self, sinogram: np.ndarray, out: np.ndarray) -> None:
        self._transform.BP(sinogram, out=out)
