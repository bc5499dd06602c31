"""A CT scan on a device: line integrals, weighted where photons or trust are known, in the prior's value scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..devices import memory_of
from ..errors import InputError
from ..geometry import Grid, RayGeometry, contiguous, mixes_slices
from ..geometry.point_source import NothingSeen
from ..models import ValueScale
from ..operators import LinearOperator, Space, projector
from ..operators.base import Scaled
from ..operators.by_views import ByViews, Unseen
from ..operators.slabs import WHOLE, Slabs
from ..preparation.binning import with_wider_columns
from ..samplers.schedules import usual_level
from ..scans import Measurement
from ..scans.slabs import slab_of_projections
from ..solvers.direct import direct_reconstruction
from ..starts import coarse_start
from ..streaming import lie_on_host, views_at_once
from ..volume import Volume
from .base import Problem, relative
from .edges import give_back

if TYPE_CHECKING:
    from ..config import ReconSettings

# How far line integrals of pixels lie from measured ones, beside the noise.  It bounds how unlike rays are weighed (by
# photons alone 30 times less behind the body than beside it) and how closely the data are fitted at low noise
# levels.  Measured on a held-out chest, 20 levels, PSNR axial / coronal with 0, 1e6 and 1e5 photons a ray:
#   24 views: weights by photons alone, nothing loosened  34.35 / 36.92, 30.84 / 34.60, 30.82 / 34.36
#             0.005                                       34.49 / 37.26, 33.88 / 36.96, 32.36 / 36.06
#             0.01                                        34.57 / 37.70, 34.30 / 37.54, 33.10 / 36.87
#             0.02                                        34.20 / 37.78, 34.07 / 37.67, 33.37 / 37.22
MODEL_ERROR = 0.015
_MOST_EXPONENT = 75.0  # exp of more, over the fewest photons, leaves the range of float32


@dataclass(frozen=True)
class _Projections:
    """The scan in mm: attenuation = base + slope x (1/mm) for x in the value scale; ``operator`` is A / norm.

    mended: what edges have taken from the line integrals is given back.
    """

    scan: Measurement
    operator: LinearOperator
    norm: float
    value: ValueScale
    base: float
    slope: float
    mended: bool

    def measured(self) -> Tensor:
        """The line integrals as they are fitted, each time anew: as large as a volume, and seldom needed."""
        return fitted_integrals(self.scan, self.operator.range, mended=self.mended)

    def residual(self, x: Tensor) -> float:
        """|A x - y| / |y|, weighted by how far rays are trusted alone."""
        measured = self.measured()
        difference = self.operator.forward(x * self.slope + self.base).mul_(self.norm).sub_(measured)
        if self.scan.weights is not None:
            counted = torch.from_numpy(np.sqrt(self.scan.weights)).to(measured.device)
            measured, difference = measured * counted, difference * counted
        data = self.operator.range
        return relative(data.norm(difference), data.norm(measured))

    def direct(self, window: str) -> Tensor:
        """Filtered back-projection, in the value scale.  Raises InputError for a geometry that has none."""
        geometry, grid = self.scan.geometry, self.scan.grid
        reconstruct = direct_reconstruction(geometry)
        back = reconstruct(Scaled(self.operator, self.norm), self.measured(), geometry, grid, window=window)
        return back.to(self.operator.device).sub_(self.base).div_(self.slope)

    def volume(self, x: Tensor, name: str, difference: bool) -> Volume:
        """An estimate as a volume in the scan's unit, in the user's own axis order."""
        array = x.cpu().numpy()
        volume = self.scan.volume(array, name)
        if np.may_share_memory(volume.array, array):
            volume = replace(volume, array=contiguous(array) if not array.flags.c_contiguous else array.copy())
        slope, base = (self.value.scale, self.value.offset) if self.scan.unit == "HU" else (self.slope, self.base)
        values = volume.array  # in place: half the time of new arrays
        values *= np.float32(slope)
        values += np.float32(0.0 if difference else base)
        return volume


def ct_problem(
    scan: Measurement, settings: ReconSettings, value: ValueScale | None, device: torch.device, slabs: Slabs = WHOLE
) -> Problem:
    """y = A x with x in the value scale, |A| = 1, rays weighted by their precision where that is known.

    Rays that are trusted in part have their share in |A| as if they were trusted: a detector whose outer columns were
    made up is as wide as one that saw them, and total variation of one strength means the same.

    slabs: of which ``scan`` is one, of its volume and, where slices do not mix, of its data.
    Raises InputError where no ray meets the grid, and for a projector that does not fit.
    """
    value = value or ValueScale()
    raw = _operator(scan.geometry, scan.grid, settings, device, slabs)
    measured = _on_device(scan, raw.range)
    base = scan.mu_water_per_mm * (1 + value.offset / 1000.0)
    slope = scan.mu_water_per_mm * value.scale / 1000.0
    A: LinearOperator = raw
    weights: Tensor | None = None
    trust: Tensor | None = None
    deviation = MODEL_ERROR
    mixed = mixes_slices(scan.geometry)
    variance: Tensor | None = None
    if scan.photons > 0 or scan.weights is not None or mixed:
        variance = torch.zeros_like(measured)
        if scan.photons > 0:
            variance = measured.clamp(max=_MOST_EXPONENT).exp() / scan.photons
        if scan.photon_profile is not None:
            variance /= torch.from_numpy(scan.photon_profile).to(variance.device)  # infinite where a ray does not count
        variance = variance.add_(MODEL_ERROR**2)
    if settings.edge_gradient:
        give_back(measured, mixed, _trusted(scan, measured.device), variance)
    if variance is not None:
        if scan.weights is not None:
            trust = torch.from_numpy(scan.weights).to(variance.device)
            trust = trust / raw.range.slabs.largest(trust.max())
            variance /= trust
        deviation = float(-raw.range.slabs.largest(-variance.min())) ** 0.5
        weights = variance.rsqrt_().mul_(deviation)
        full = weights if trust is None else torch.where(trust > 0, weights / trust.clamp_min(1e-12).sqrt(), weights)
        A = raw.with_weights(full)
    target = measured.div_(slope)
    if base != 0.0:
        target -= raw.forward(raw.domain.ones().mul_(base / slope))
    if weights is not None:
        target *= weights
    norm = A.norm()
    if not norm > 0:
        raise InputError(f"{scan.name}: no ray meets the grid; check the geometry's detector and the grid's isocentre")
    scaled = raw.scaled(1 / norm)
    A = scaled if weights is None else scaled.with_weights(weights)
    y = target.div_(norm)
    seen = _Projections(scan, scaled, norm, value, base, slope, settings.edge_gradient)
    stride, factor = coarse_start(scan.geometry.views_of_a_point, scan.grid.in_plane)
    coarser = partial(_coarse, scan, settings, value, raw.domain)
    of_views = partial(_of_views, scan, settings, norm, y, weights, raw.domain)
    return Problem(
        scan,
        A,
        y,
        value,
        deviation / (slope * norm),
        usual_level(scan.geometry.views_of_a_point),
        to_volume=seen.volume,
        residual=seen.residual,
        least=_bound(scan.least_per_mm, raw.domain, base, slope, (-1000.0 - value.offset) / value.scale),
        of_views=of_views,
        most=_bound(scan.most_per_mm, raw.domain, base, slope, None),
        direct=seen.direct,
        coarse=None if stride == 1 else partial(coarser, stride, factor),
        coarser=coarser,
        normalised=True,
        as_published=("aliased", "ends-on-data"),
        remarks=(raw.remark,) if raw.remark else (),
    )


def _operator(
    geometry: RayGeometry, grid: Grid, settings: ReconSettings, device: torch.device, slabs: Slabs
) -> LinearOperator:
    """The projector of a slab.  Where slices mix in the data it goes through the views in groups, if they are many."""
    make = partial(projector, grid=grid, device=device, backend=settings.projector)
    if not mixes_slices(geometry):
        alone: LinearOperator = make(geometry)
        return alone.in_slabs(slabs) if slabs.size > 1 else alone
    data_bytes = 4 * math.prod(geometry.data_shape(grid.shape[0]))
    step = views_at_once(geometry.views, data_bytes)
    data_on = torch.device("cpu") if lie_on_host(data_bytes, memory_of(device)) else device
    if slabs.size == 1 and step >= geometry.views and data_on == device:
        all_views: LinearOperator = make(geometry)
        return all_views
    groups = [geometry.take(slice(start, start + step)) for start in range(0, geometry.views, step)]
    return ByViews([_of_group(make, group, grid, device) for group in groups], slabs, data_on=data_on)


def _of_group(
    make: Callable[[RayGeometry], LinearOperator], geometry: RayGeometry, grid: Grid, device: torch.device
) -> LinearOperator:
    """The projector of some views, which may see nothing of a slab."""
    try:
        return make(geometry)
    except NothingSeen:
        volumes = Space(grid.shape, device=device, slices_last=True)
        return Unseen(volumes, replace(volumes, shape=geometry.data_shape(grid.shape[0])))


def _of_views(
    scan: Measurement,
    settings: ReconSettings,
    norm: float,
    y: Tensor,
    weights: Tensor | None,
    volumes: Space,
    views: Sequence[int],
) -> tuple[LinearOperator, Tensor]:
    """A and y of some views alone."""
    part = _operator(scan.geometry.take(views), scan.grid, settings, volumes.device, volumes.slabs)
    A, space = part.scaled(1 / norm), part.range
    chosen = torch.as_tensor(views, device=y.device)
    A = A if weights is None else A.with_weights(space.laid_out(weights[:, chosen]))
    return A, space.laid_out(y[:, chosen])


Else = TypeVar("Else", float, None)


def _bound(per_mm: np.ndarray | None, space: Space, base: float, slope: float, unknown: Else) -> Tensor | Else:
    """A bound of voxels in the value scale, where it is known."""
    if per_mm is None:
        return unknown
    bound = torch.from_numpy(per_mm).to(space.device, space.dtype).expand(space.shape)
    return space.laid_out(((bound - base) / slope).contiguous())


def _coarse(
    scan: Measurement,
    settings: ReconSettings,
    value: ValueScale,
    space: Space,
    views: int | Sequence[int],
    factor: int,
    columns: int = 1,
    slices: slice = slice(None),
) -> tuple[Problem, Callable[[Tensor], Tensor]]:
    """Of many views a part is enough for what noise is added to, and a coarser grid: the finer it is, the more sweeps
    total variation takes to fill in what no view has seen.  views: one of so many, or these.  columns: so many of the
    detector are averaged.  slices: of which the volume is, where one process holds all of them.
    """
    if slices != slice(None):
        scan = slab_of_projections(scan, slices)
    if columns > 1:
        scan = with_wider_columns(scan, columns)
    grid, fewer = scan.grid.coarsened(factor), slice(None, None, views) if isinstance(views, int) else list(views)
    profile = scan.photon_profile
    if profile is not None and profile.shape[1] > 1:
        profile = profile[:, fewer]
    trusted = scan.weights
    if trusted is not None and trusted.shape[1] > 1:
        trusted = trusted[:, fewer]
    part = replace(
        scan, data=scan.data[:, fewer], photon_profile=profile, weights=trusted, geometry=scan.geometry.take(fewer),
        grid=grid, stored_grid=grid, **bounds_on_coarser(scan, factor),
    )  # fmt: skip
    return ct_problem(part, settings, value, space.device, space.slabs), partial(_on_grid, space=space)


def bounds_on_coarser(scan: Measurement, factor: int) -> dict[str, Any]:
    """The scan's known bounds on pixels of ``factor`` times the side, by the names of its fields."""
    found: dict[str, Any] = {}
    for name in ("most_per_mm", "least_per_mm"):
        bound = getattr(scan, name)
        if bound is not None and bound.shape[1:] == scan.grid.in_plane:
            bound = F.avg_pool2d(torch.from_numpy(bound)[:, None], factor)[:, 0].numpy()
        found[name] = bound
    return found


def fitted_integrals(scan: Measurement, space: Space, *, mended: bool) -> Tensor:
    """Of a scan, to be written to.  mended: what edges have taken from them is given back."""
    measured = _on_device(scan, space)
    if mended:
        give_back(measured, mixes_slices(scan.geometry), _trusted(scan, measured.device))
    return measured


def _on_device(scan: Measurement, space: Space) -> Tensor:
    """The line integrals, to be written to: never the scan's own memory."""
    held = torch.from_numpy(np.ascontiguousarray(scan.data, np.float32))
    measured = space.laid_out(held.to(space.device))
    return measured.clone() if measured.data_ptr() == held.data_ptr() else measured


def _trusted(scan: Measurement, device: torch.device) -> Tensor | None:
    """Which rays count, where some may not."""
    return None if scan.weights is None else torch.from_numpy(scan.weights > 0).to(device)


def _on_grid(x: Tensor, space: Space) -> Tensor:
    """x between its pixels, where it has others (bilinear)."""
    in_plane = (space.shape[1], space.shape[2])
    if tuple(x.shape[1:]) == in_plane:
        return x
    return space.laid_out(F.interpolate(x.contiguous()[:, None], size=in_plane, mode="bilinear")[:, 0])
