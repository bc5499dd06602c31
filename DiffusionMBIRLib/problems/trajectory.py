"""An MR scan along a trajectory on a device: the counterpart of :mod:`.mr`, with gridding in place of masks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..denoisers import Denoiser, PhaseDenoiser, SliceDenoiser
from ..errors import InputError
from ..geometry import CartesianMRI, TrajectoryMRI
from ..models import MR_PERCENTILE
from ..operators.density import capped, density_weights
from ..operators.fourier import fft2c, ifft2c, unit_maps
from ..operators.noncartesian import NonCartesianFourier
from ..scans import KSpace, TrajectoryKSpace
from ..sensitivity import SMALLEST_ACS, compress_coils, estimate_maps
from ..solvers.sampled import SamplingPreconditioner
from ..solvers.sense import sense_cg, wavelet_app
from .base import Problem
from .complex_images import LEAST_REMAINDER, SCALE_STEPS, ComplexImages, noise_of, required_unit

if TYPE_CHECKING:
    from ..config import ReconSettings

MIDDLE_CYCLES = 20.0  # radius of k-space that maps come from
_MIDDLE_SIZE = 48  # of the grid that it is solved on: larger, so that its edges do not fold into what is used
_MIDDLE_STEPS = 15
_USED = 32  # of it, (rows, columns)
_SLICES_OF_MAPS = 4  # that tell how the coils vary
BELIEVED = 0.4  # of what the first volume leaves of the data, which counts as noise: in part it is not yet solved for
PHASE_CYCLES = 24.0  # radius of k-space that holds the smooth phase


def trajectory_problem(kspace: TrajectoryKSpace, settings: ReconSettings, device: torch.device) -> Problem:
    """Raises InputError for coils whose maps cannot be estimated, and for published settings."""
    if settings.published:
        raise InputError("setting published: the papers' code is for Cartesian k-space; leave it out")
    seen = Sampled.of(kspace, settings, device)
    return seen.problem(
        direct=lambda window: seen.gridded(),
        balanced=seen.balanced,
        approximate=seen.approximate,
        remarks=remarks_on_readouts(kspace.geometry),
    )


@dataclass(frozen=True)
class Sampled(ComplexImages[TrajectoryKSpace, NonCartesianFourier]):
    """Images of a scan along a trajectory.

    noise: of the receivers, or what no image explains where that is more, as of a trajectory that is not quite right.
    first: a volume by few steps of conjugate gradient, which tells the unit and the phase.
    """

    first: Tensor

    @classmethod
    def of(cls, kspace: TrajectoryKSpace, settings: ReconSettings, device: torch.device) -> Sampled:
        """With coils combined and maps estimated.  Raises InputError where that cannot be done."""
        noise, kspace = noise_of(kspace), with_estimated_maps(kspace, settings.virtual_coils, device)
        A = transform_of(kspace, device)
        y = torch.from_numpy(np.ascontiguousarray(kspace.data)).to(device)
        first = sense_cg(A, y, lam=0.0, steps=SCALE_STEPS, precondition=_approximate(A, 0.0))
        left = float(A.distance(first, y)) / (2 * y.numel()) ** 0.5
        unit = required_unit(float(np.percentile(first.abs().cpu().numpy(), MR_PERCENTILE)), kspace)
        noise = max(noise, BELIEVED * left)
        return cls(kspace, A, y / unit, unit, noise / unit, first / unit)

    def gridded(self) -> Tensor:
        """The adjoint with the weights of the trajectory's density: gridding, coils combined by their maps."""
        weights = torch.from_numpy(_weights(self.kspace.geometry)).to(self.A.device, self.A.domain.real)
        return self.A.adjoint(self.y * weights)

    @cached_property
    def balanced(self) -> tuple[NonCartesianFourier, Tensor]:
        """(A, y) under weights of at most one cell of k-space."""
        weighted = self.A.reweighted(capped(_weights(self.kspace.geometry)))
        return weighted, weighted.weighted(self.y)

    def approximate(self, coupling: float) -> SamplingPreconditioner:
        """An approximate inverse of A^H A with a coupling across slices."""
        return _approximate(self.A, coupling)

    def _with_phase(self, denoiser: SliceDenoiser) -> Denoiser:
        """By the smooth part of the phase; what is left imaginary grows with the magnitude."""
        phase = self._low_pass(tapered=True).angle()
        sharp = self._low_pass(tapered=False)
        imaginary = (sharp * torch.polar(torch.ones_like(phase), -phase)).imag
        share = float(imaginary.square().mean() / sharp.abs().square().mean()) ** 0.5
        return PhaseDenoiser(denoiser, phase, (share * sharp.abs()).clamp_min_(LEAST_REMAINDER))

    def _low_pass(self, *, tapered: bool) -> Tensor:
        rows, columns = self.A.domain.shape[1:]
        radius = torch.hypot(
            (torch.arange(rows, dtype=torch.float64) - rows // 2)[:, None],
            (torch.arange(columns, dtype=torch.float64) - columns // 2)[None],
        )
        window = (radius < PHASE_CYCLES).double()
        if tapered:
            window *= 0.5 + 0.5 * torch.cos(radius * (torch.pi / PHASE_CYCLES))
        return ifft2c(fft2c(self.first) * window.to(self.A.device, self.A.domain.real))


def remarks_on_readouts(geometry: TrajectoryMRI) -> tuple[str, ...]:
    """What a user should know of such a readout."""
    from ..geometry.trajectory import LONG_READOUT_MS

    if geometry.readout_ms <= LONG_READOUT_MS:
        return ()
    return (
        f"readouts of {geometry.readout_ms:.3g} ms: where the field is off, such as near air, images blur or shift; no "
        "correction is made",
    )


def transform_of(kspace: TrajectoryKSpace, device: torch.device) -> NonCartesianFourier:
    """The transform of a measurement whose maps are known, or that has one coil."""
    slices, rows, columns = kspace.grid.shape
    if kspace.maps is None:
        maps = torch.ones(1, 1, rows, columns, dtype=torch.complex64, device=device)
    else:
        maps = unit_maps(torch.from_numpy(np.ascontiguousarray(kspace.maps)).to(device))
    return NonCartesianFourier(kspace.geometry.points, maps, slices=slices)


def with_estimated_maps(kspace: TrajectoryKSpace, coils: int, device: torch.device) -> TrajectoryKSpace:
    """With at most so many coils (0: all), and their maps estimated from the middle where they are not given.

    Raises InputError where they cannot be estimated.
    """
    fewer = 0 < coils < kspace.geometry.coils
    if kspace.geometry.coils == 1 or (kspace.maps is not None and not fewer):
        return kspace
    middle = middle_on_grid(kspace, device)
    if fewer:
        mixed = compress_coils(kspace, coils, middle)
        assert isinstance(mixed, TrajectoryKSpace)
        middle, kspace = compress_coils(middle, coils), mixed
    if kspace.maps is not None:
        return kspace
    return replace(kspace, maps=_maps_everywhere(middle), provenance={**kspace.provenance, "maps": "espirit"})


def _maps_everywhere(middle: KSpace) -> np.ndarray:
    """By ESPIRiT, and where that finds none by the images of the middle: what leaks into air must be seen as well."""
    maps = estimate_maps(middle)
    unseen = ~maps.any(axis=1, keepdims=True)
    return np.where(unseen, estimate_maps(middle, method="low-resolution"), maps) if unseen.any() else maps


def middle_on_grid(kspace: TrajectoryKSpace, device: torch.device) -> KSpace:
    """The middle of k-space as a Cartesian scan, coil by coil, which maps are estimated from.

    Solved by least squares on a coarse grid of the same field of view.  Raises InputError where hardly any is sampled.
    """
    geometry = kspace.geometry
    radius = np.hypot(geometry.points[..., 0], geometry.points[..., 1])
    reach = min(MIDDLE_CYCLES, geometry.reach)
    if reach < SMALLEST_ACS / 2:
        raise InputError(
            f"{kspace.name}: its trajectory reaches {reach:.3g} cycles per field of view only, maps of the coils need "
            f"{SMALLEST_ACS / 2:g}; is its unit right?"
        )
    inside = radius <= reach
    size = min(_MIDDLE_SIZE, *geometry.matrix)
    points = geometry.points[inside][None]
    ones = torch.ones(1, 1, size, size, dtype=torch.complex64, device=device)
    weights = np.minimum(density_weights(geometry.points, geometry.matrix)[inside], 1.0)[None]
    data = torch.from_numpy(np.ascontiguousarray(kspace.data[..., inside])).to(device)
    slices, coils, samples = data.shape
    A = NonCartesianFourier(points, ones, slices=slices * coils, weights=torch.from_numpy(weights))
    y = A.weighted(data.reshape(slices * coils, 1, 1, samples))
    images = sense_cg(A, y, lam=0.0, steps=_MIDDLE_STEPS)
    used = min(_USED, 2 * int(reach * 0.8), size)
    spectra = fft2c(images).reshape(slices, coils, size, size).cpu().numpy()
    first = size // 2 - used // 2
    block = spectra[..., first : first + used, first : first + used]
    whole = np.zeros((slices, coils, *geometry.matrix), dtype=np.complex64)
    mask = np.zeros(geometry.matrix, dtype=bool)
    top, left = (n // 2 - used // 2 for n in geometry.matrix)
    whole[..., top : top + used, left : left + used] = block
    mask[top : top + used, left : left + used] = True
    return KSpace(whole, CartesianMRI(mask, coils), kspace.grid, name=kspace.name)


def wavelets(problem: Problem, *, lam: float) -> Tensor:
    """Wavelet sparsity slice by slice with sigpy, as :func:`..solvers.sense.espirit_l1`, under ``balanced`` weights."""
    assert problem.balanced is not None
    A, recon = problem.balanced[0], wavelet_app()
    assert isinstance(A, NonCartesianFourier)
    assert A.weights is not None
    coordinates = np.ascontiguousarray(A.points[..., ::-1]).astype(np.float32)
    maps, weights, y = (a.cpu().numpy() for a in (A.maps, A.weights, problem.y))
    options = {"weights": weights, "coord": coordinates, "show_pbar": False}
    images = [recon(samples, maps[k % len(maps)], lam, **options).run() for k, samples in enumerate(y)]
    return torch.from_numpy(np.stack(images)).to(A.device, A.dtype)


def _weights(geometry: TrajectoryMRI) -> np.ndarray:
    return density_weights(geometry.points, geometry.matrix)


def _approximate(A: NonCartesianFourier, coupling: float) -> SamplingPreconditioner:
    slices, some = A.domain.shape[0], A.maps[:: max(1, len(A.maps) // _SLICES_OF_MAPS)]
    return SamplingPreconditioner(A.kernel, slices, some, coupling=coupling, device=A.device, dtype=A.dtype)
