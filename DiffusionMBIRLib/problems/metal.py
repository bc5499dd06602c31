"""Rays through metal: found on a first reconstruction, left out of the fit or bridged, and the metal put back.

Polychromatic rays through metal are no line integrals of anything, so that a fit to them draws streaks.  From raw
data they can be left out; a finished volume has them in every pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..operators import LinearOperator, projector
from ..scans import Measurement
from ..solvers.classic import sirt
from ..solvers.direct import direct_reconstruction, has_direct
from .base import Problem
from .ct import fitted_integrals

if TYPE_CHECKING:
    from ..config import ReconSettings

LINEAR, NORMALISED = "linear", "normalised"  # direct reconstructions of bridged rays
_GROWN = 1  # pixels that the mask is grown by before its rays are looked for: edges of metal are blurred
_TRACE = 1e-3  # of the longest chord: rays that see less of the mask count
_STEPS = 30  # of SIRT, where there is no direct reconstruction
_AIR_HU, _BONE_HU = -500.0, 300.0  # of the prior image: air below, bone as it is above, soft tissue between
_LEAST_PATH = 0.02  # of the longest line integral: shorter ones are not normalised by


def metal_problem(scan: Measurement, settings: ReconSettings, make: Callable[[Measurement], Problem]) -> Problem:
    """The problem of a scan whose rays through metal do not count; its volumes hold the metal of a first
    reconstruction.

    make: builds the problem of a scan.  Raises InputError for the scan of a finished volume, whose streaks no ray can
    be left out for, and where no ray is left.
    """
    threshold = settings.metal_hu
    if scan.provenance.get("kind") == "simulated":
        raise InputError(
            f"{scan.name}: setting metal_hu needs raw projections: in a finished volume the streaks of metal are in "
            "every pixel, and what took their place would be plausible but wrong anatomy; set it to 0"
        )
    probe = make(scan)
    operator = projector(scan.geometry, scan.grid, device=probe.A.device, backend=settings.projector)
    metal = Metal(scan, operator, threshold, settings.edge_gradient)
    count = int(metal.mask.sum())
    if not count:
        line = f"no voxel of the first reconstruction lies above {threshold:g} HU: all rays count"
        return replace(probe, remarks=(*probe.remarks, line))
    share = float(metal.trace.float().mean())
    if share == 1:
        raise InputError(f"{scan.name}: every ray sees voxels above {threshold:g} HU; set metal_hu higher")
    counted = (~metal.trace).float().cpu().numpy()
    problem = make(replace(scan, weights=counted if scan.weights is None else counted * scan.weights))
    hu = (metal.first / scan.mu_water_per_mm - 1) * 1000
    shown = (hu - problem.value.offset) / problem.value.scale

    def with_metal(x: Tensor) -> Tensor:
        return torch.where(metal.mask, shown, x)

    def direct(way: str) -> Tensor:
        found = (metal.bridged(way) / scan.mu_water_per_mm - 1) * 1000
        return (found - problem.value.offset) / problem.value.scale

    line = f"metal above {threshold:g} HU: {count} voxels; {share:.2%} of the rays do not count"
    return replace(
        problem,
        to_volume=lambda x, name, off: problem.to_volume(x if off else with_metal(x), name, off),
        direct=direct,
        remarks=(*problem.remarks, line),
    )


@dataclass(frozen=True)
class Metal:
    """What of a scan is metal.

    operator: from attenuation in 1/mm to line integrals.  threshold_hu: metal is above.  mended: what edges have taken
    from the line integrals is given back.
    """

    scan: Measurement
    operator: LinearOperator
    threshold_hu: float
    mended: bool = True

    @cached_property
    def measured(self) -> Tensor:
        return fitted_integrals(self.scan, self.operator.range, mended=self.mended)

    @cached_property
    def first(self) -> Tensor:
        """A reconstruction of all rays, in 1/mm."""
        return self._reconstructed(self.measured, "hann")

    @cached_property
    def mask(self) -> Tensor:
        return self.first > self.scan.mu_water_per_mm * (1 + self.threshold_hu / 1000)

    @cached_property
    def trace(self) -> Tensor:
        """Which rays see the mask, or a pixel beside it."""
        grown = F.max_pool2d(self.mask.float().contiguous()[:, None], 2 * _GROWN + 1, 1, _GROWN)[:, 0]
        seen = self.operator.forward(self.operator.domain.laid_out(grown))
        return seen > _TRACE * seen.max()

    def bridged(self, way: str) -> Tensor:
        """The direct reconstruction, in 1/mm, with rays of the trace replaced: by linear interpolation, or by that of
        the data over those of a prior image (Meyer et al. 2010, doi 10.1118/1.3484090); another way names a filter.
        """
        if way not in (LINEAR, NORMALISED):
            return self._reconstructed(self.measured, way)
        linear = self._reconstructed(bridge(self.measured, self.trace), "ramp")
        if way == LINEAR:
            return linear
        path = self.operator.forward(self._prior_image(linear))
        sure = path > _LEAST_PATH * path.max()
        over = torch.where(sure, self.measured / path.clamp_min(1e-9), 1.0)
        return self._reconstructed(torch.where(self.trace, bridge(over, self.trace) * path, self.measured), "ramp")

    def _prior_image(self, image: Tensor) -> Tensor:
        """Air, soft tissue and bone of an image, without metal."""
        water = self.scan.mu_water_per_mm
        hu = (image / water - 1) * 1000
        tissue = torch.where(hu < _AIR_HU, -1000.0, torch.where(hu < _BONE_HU, 0.0, hu))
        tissue = torch.where(self.mask, 0.0, tissue)
        return (tissue / 1000 + 1) * water

    def _reconstructed(self, data: Tensor, window: str) -> Tensor:
        if has_direct(self.scan.geometry):
            direct = direct_reconstruction(self.scan.geometry)
            return direct(self.operator, data, self.scan.geometry, self.scan.grid, window=window)
        return sirt(self.operator, data, iterations=_STEPS)


def bridge(data: Tensor, trace: Tensor) -> Tensor:
    """Data (rows, views, columns) with what lies in a trace replaced by lines between its neighbours along columns."""
    values, holes = data.cpu().numpy().copy(), trace.cpu().numpy()
    columns = np.arange(values.shape[-1])
    for row, view in np.argwhere(holes.any(axis=-1)):
        hole = holes[row, view]
        if not hole.all():
            values[row, view, hole] = np.interp(columns[hole], columns[~hole], values[row, view, ~hole])
    return torch.from_numpy(values).to(data.device)
