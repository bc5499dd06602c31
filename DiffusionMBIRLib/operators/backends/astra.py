"""The ASTRA Toolbox (astra-toolbox.com) as an optional, independent back end of the X-ray transform."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import EngineError, InputError
from ...geometry import FanBeam, Grid, ParallelBeam, RayGeometry
from ..projector import projects
from ..space import slices_last
from ..stack import SliceProjector, require_float32, require_square_pixels

KINDS = ("strip", "linear", "line")
_FAN_KINDS = ("strip_fanflat", "line_fanflat")


def import_astra() -> Any:
    """The module ``astra``; raises InputError with the install line where it is missing."""
    try:
        import astra
    except ImportError as error:
        raise InputError(
            "back end 'astra' needs the ASTRA Toolbox: pip install astra-toolbox (or use projector own)"
        ) from error
    return astra


class _OfSlices(SliceProjector):
    """Slices go through main memory and ASTRA one by one.

    detector: ASTRA's record of the scan.  upward: whether its rows run from bottom to top, so that y is ours.
    """

    def __init__(
        self, geometry: RayGeometry, grid: Grid, detector: Any, kind: str, device: torch.device | str, *, upward: bool
    ) -> None:
        super().__init__(geometry, grid, device=device, dtype=torch.float32)
        self._upward = upward
        astra = import_astra()
        try:
            self._astra = _Projector(astra, detector, grid, kind)
        except astra.log.AstraError as error:
            raise EngineError(f"ASTRA could not set up the scan ({error}); use projector own") from error

    def forward(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        return self._slice_by_slice(self._astra.project, x.flip(1) if self._upward else x, self.range.shape)

    def adjoint(self, y: Tensor) -> Tensor:
        self.range.check(y, "y")
        back = self._slice_by_slice(self._astra.back_project, y, self.domain.shape)
        return slices_last(back.flip(1)) if self._upward else back

    def _slice_by_slice(self, transform: Any, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        stack = tensor.detach().contiguous().cpu().numpy()
        out = np.empty(shape, dtype=np.float32)
        for image, image_out in zip(stack, out, strict=True):
            transform(image, image_out)
        return slices_last(torch.from_numpy(out).to(self.device))


@projects(ParallelBeam, "astra")
class AstraTransform(_OfSlices):
    """Line integrals of each slice by ASTRA: (slices, rows, columns) in 1/mm -> (slices, views, columns), without unit.

    kind: ASTRA's CPU projector.  'strip' weighs pixels by their area inside a ray's strip, as our own transform does;
    'linear' and 'line' follow the ray through the middle of each detector column.  ASTRA back-projects with the
    transpose of the same weights, so the adjoint is exact up to rounding.  On a CUDA device ASTRA's GPU projector is
    used where ASTRA has one; its back-projection interpolates differently, so that ``exact_adjoint`` is False there.

    Raises InputError where ASTRA is missing, for types other than float32 and for pixels that are not square.
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
        _require_kind(kind, KINDS)
        on_gpu = torch.device(device).type == "cuda" and astra.use_cuda()
        detector = _parallel(astra, geometry, grid)
        super().__init__(geometry, grid, detector, "cuda" if on_gpu else kind, device, upward=False)
        self.exact_adjoint = not on_gpu


@projects(FanBeam, "astra")
class AstraFanTransform(_OfSlices):
    """The same of fan beams on a flat detector that stands straight before the source, by ASTRA's CPU projectors.

    kind: 'strip_fanflat' weighs pixels by their area inside a ray's wedge, as our own transform does; 'line_fanflat'
    follows the ray through the middle of each detector column.

    Raises InputError where ASTRA is missing, and for what it cannot do: types other than float32, pixels that are not
    square, curved or shifted detectors, grids off the isocentre.
    """

    def __init__(
        self,
        geometry: FanBeam,
        grid: Grid,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        kind: str = "strip_fanflat",
    ) -> None:
        astra = import_astra()
        require_float32("astra", dtype)
        require_square_pixels("astra", grid)
        _require_kind(kind, _FAN_KINDS)
        for what, present in (
            ("curved detectors", geometry.arc),
            ("detectors with geometry.offset_mm", geometry.offset_mm != 0),
            ("grids off the isocentre", any(grid.off_isocentre_mm[:2])),
        ):
            if present:
                raise InputError(f"back end 'astra' does no fan beams on {what}; use projector own")
        detector = astra.create_proj_geom(
            "fanflat",
            geometry.pitch_mm,
            geometry.columns,
            np.radians(geometry.angles_deg),
            geometry.sod_mm,
            geometry.sdd_mm - geometry.sod_mm,
        )
        super().__init__(geometry, grid, detector, kind, device, upward=True)


def _require_kind(kind: str, kinds: tuple[str, ...]) -> None:
    if kind not in kinds:
        raise InputError(f"projector kind {kind!r} is not known to back end 'astra'; use one of {', '.join(kinds)}")


def _parallel(astra: Any, geometry: ParallelBeam, grid: Grid) -> Any:
    """ASTRA counts rows from the top, y upwards: in its frame our y is -y and the detector turns the other way.

    Its origin is the middle of the grid, wherever the isocentre lies.
    """
    theta = -np.radians(geometry.angles_deg)
    axis = np.stack([np.cos(theta), np.sin(theta)], axis=1)
    ray = np.stack([-np.sin(theta), np.cos(theta)], axis=1)
    middle_x, middle_y, _ = grid.off_isocentre_mm
    centre = axis * geometry.offset_mm - np.array([middle_x, -middle_y])
    return astra.create_proj_geom("parallel_vec", geometry.columns, np.hstack([ray, centre, axis * geometry.pitch_mm]))


class _Projector:
    """An ASTRA projector of one slice that frees its memory in ASTRA when it is no longer used."""

    def __init__(self, astra: Any, detector: Any, grid: Grid, kind: str) -> None:
        rows, columns = grid.in_plane
        width, height = columns * grid.spacing_mm[0], rows * grid.spacing_mm[1]
        volume = astra.create_vol_geom(rows, columns, -width / 2, width / 2, -height / 2, height / 2)
        number = astra.create_projector(kind, detector, volume)
        self._transform = astra.OpTomo(number)
        weakref.finalize(self, astra.projector.delete, number)

    def project(self, image: np.ndarray, out: np.ndarray) -> None:
        self._transform.FP(image, out=out)

    def back_project(self, sinogram: np.ndarray, out: np.ndarray) -> None:
        self._transform.BP(sinogram, out=out)
