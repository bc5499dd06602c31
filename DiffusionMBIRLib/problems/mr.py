"""A Cartesian MR scan on a device: complex volumes, seen through coils whose maps are known or estimated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..denoisers import Denoiser, PhaseDenoiser, SliceDenoiser
from ..geometry import CartesianMRI
from ..models import MR_PERCENTILE
from ..operators import CartesianFourier, SenseFourier
from ..operators.fourier import fft2c, ifft2c, unit_maps
from ..operators.slabs import WHOLE, Slabs
from ..scans import KSpace
from ..scans.slabs import slab_of_kspace
from ..sensitivity import SMALLEST_ACS, compress_coils, estimate_maps
from ..solvers.sense import middle_of, sense_cg
from .base import Problem
from .complex_images import LEAST_REMAINDER, SCALE_STEPS, ComplexImages, noise_of, required_unit

if TYPE_CHECKING:
    from ..config import ReconSettings

LEAST_SHARE_OF_NOISE = 0.1  # signal energy over that of one coil's noise below which combined coils are left out


def mr_problem(kspace: KSpace, settings: ReconSettings, device: torch.device, slabs: Slabs = WHOLE) -> Problem:
    """slabs: which slices are reconstructed here.  Raises InputError for coils whose maps cannot be estimated."""
    return Images.of(kspace, settings, device, slabs).problem()


@dataclass(frozen=True)
class Images(ComplexImages[KSpace, CartesianFourier]):
    """Images of a scan on a grid of k-space."""

    @classmethod
    def of(cls, kspace: KSpace, settings: ReconSettings, device: torch.device, slabs: Slabs = WHOLE) -> Images:
        """With coils combined and maps estimated.  Raises InputError where that cannot be done."""
        whole = compress_coils(kspace, settings.virtual_coils) if settings.virtual_coils else kspace
        part = slab_of_kspace(whole, slabs.mine(whole.grid.shape[0])) if slabs.size > 1 else whole
        noise, kspace = noise_of(whole), with_maps(part, whole)
        spill = LEAST_SHARE_OF_NOISE * 2 * noise**2 if settings.virtual_coils else 0.0
        data = torch.from_numpy(np.ascontiguousarray(kspace.data)).to(device)
        A, y = operator_of(kspace, device, slabs).reduced(data, spill=spill)
        first = sense_cg(A, y, lam=0.0, steps=SCALE_STEPS)
        unit = required_unit(slabs.percentile(first.abs(), MR_PERCENTILE), kspace)
        return cls(kspace, A, y / unit, unit, noise / unit)

    def _with_phase(self, denoiser: SliceDenoiser) -> Denoiser:
        phase = self.phase()
        return PhaseDenoiser(denoiser, phase, self._remainder(phase))

    def phase(self) -> Tensor:
        """The smooth part of the volume's phase in radians, from the fully sampled middle of k-space.

        Where the maps come from a calibration scan and the data lack a middle, from that of a SENSE reconstruction.
        """
        return self._low_resolution(tapered=True).angle()

    def _remainder(self, phase: Tensor) -> float:
        """The standard deviation of what the phase leaves imaginary, beyond noise.

        Measured on the image of the whole middle of k-space: on a volume from all data, aliasing and noise would count
        as well and let the imaginary part keep them.
        """
        imaginary = (self._low_resolution(tapered=False) * torch.polar(torch.ones_like(phase), -phase)).imag
        rows, columns = self._middle.acs
        noise = self.noise**2 * rows * columns / phase[0].numel()
        power = float(self.A.domain.slabs.mean(imaginary.square()))
        return max(power - noise, LEAST_REMAINDER**2) ** 0.5

    @property
    def _middle(self) -> CartesianMRI:
        """The sampling whose fully sampled middle tells the phase."""
        geometry = self.kspace.geometry
        if self.kspace.calibration is None or min(geometry.acs) >= SMALLEST_ACS:
            return geometry
        rows, columns = geometry.mask.shape
        block, reach = np.zeros((rows, columns), dtype=bool), SMALLEST_ACS
        row, column = rows // 2, columns // 2
        block[row - reach : row + reach + 1, column - reach : column + reach + 1] = True
        return CartesianMRI(block)

    def _low_resolution(self, *, tapered: bool) -> Tensor:
        if self._middle is not self.kspace.geometry:
            whole = fft2c(sense_cg(self.A, self.y, lam=0.0, steps=SCALE_STEPS))[:, None].cpu().numpy()
            return ifft2c(torch.from_numpy(middle_of(whole, self._middle, tapered=tapered)))[:, 0].to(self.A.device)
        middle = middle_of(self.kspace.data, self.kspace.geometry, tapered=tapered) / self.unit
        return self.A.adjoint(self.A.carried_over(torch.from_numpy(middle).to(self.A.device)))


def operator_of(kspace: KSpace, device: torch.device, slabs: Slabs = WHOLE) -> CartesianFourier:
    """The Fourier operator of a measurement; with several coils, whose maps are estimated where they are not given."""
    kspace = with_maps(kspace)
    if kspace.maps is None:
        return CartesianFourier(kspace.geometry.mask, kspace.grid.shape, device=device).in_slabs(slabs)
    on_device = unit_maps(torch.from_numpy(np.ascontiguousarray(kspace.maps)).to(device), slabs)
    return SenseFourier(kspace.geometry.mask, on_device, slices=kspace.grid.shape[0]).in_slabs(slabs)


def with_maps(kspace: KSpace, whole: KSpace | None = None) -> KSpace:
    """The measurement with its coils' maps estimated once, for several reconstructions of it.

    By ESPIRiT.  whole: the measurement that this one holds some slices of.  Raises InputError where they cannot be
    estimated.
    """
    if kspace.geometry.coils == 1 or kspace.maps is not None:
        return kspace
    return replace(kspace, maps=estimate_maps(kspace, whole=whole), provenance={**kspace.provenance, "maps": "espirit"})
