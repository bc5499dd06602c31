"""A Cartesian MR scan on a device: complex volumes, seen through coils whose maps are known or estimated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .config import ReconSettings
from .errors import InputError
from .geometry import CartesianMRI
from .models import MR_PERCENTILE, MR_VALUE
from .monitor import Checkpoint, Monitor
from .operators import CartesianFourier, SenseFourier
from .operators.fourier import centred_fft, centred_ifft, unit_maps
from .priors.base import Denoiser, Prior
from .priors.complex import PartsDenoiser, PhaseDenoiser
from .problem import Problem, slice_denoiser
from .scans import KSpace
from .sensitivity import SMALLEST_ACS, compress_coils, estimate_maps, noise_std_of
from .solvers.sense import espirit_l1, middle_of, sense_cg
from .volume import Volume

SCALE_STEPS = 10  # of conjugate gradient for the volume that sets the scale: aliasing is gone, noise has not come up
_COMPLEX = ".complex"  # marks names of complex tensors in a checkpoint
LEAST_SHARE_OF_NOISE = 0.1  # signal energy over that of one coil's noise below which combined coils are left out
LEAST_REMAINDER = 0.003  # of the imaginary part after the phase is taken out: phases are never known exactly


@dataclass
class MRProblem(Problem):
    """y = A x with complex x in multiples of ``scale``, the 99.5th percentile of the volume's magnitude.

    MR images have no unit, so that a prior of several scanners and contrasts needs one made up.  A percentile of the
    magnitude ignores the few bright vessels and spikes that a maximum hangs on and the share of air that a mean
    depends on.  It is taken from a first SENSE reconstruction, whose percentile lies within a few percent of the
    truth's; the prior is trained with gains that vary by more.
    """

    A: CartesianFourier
    kspace: KSpace
    scale: float

    @classmethod
    def of(cls, kspace: KSpace, settings: ReconSettings, prior: Prior | None, device: torch.device) -> MRProblem:
        """Raises InputError for coils whose maps cannot be estimated and for a prior of other values."""
        if prior is not None and prior.card.modality == "MR" and prior.card.value.unit != MR_VALUE.unit:
            raise InputError(
                f"prior {prior.card.id!r} counts values in {prior.card.value.unit!r}, MR images need "
                f"{MR_VALUE.unit!r}; train or import it for MR"
            )
        kspace = compress_coils(kspace, settings.virtual_coils) if settings.virtual_coils else kspace
        noise = noise_of(kspace)
        fewer = settings.virtual_coils and settings.method != "espirit-l1"  # which brings its own operator
        spill = LEAST_SHARE_OF_NOISE * 2 * noise**2 if fewer else 0.0
        data = torch.from_numpy(np.ascontiguousarray(kspace.data)).to(device)
        A, y = operator_of(kspace, device).reduced(data, spill=spill)
        first = sense_cg(A, y, lam=0.0, steps=SCALE_STEPS)
        scale = float(np.percentile(first.abs().cpu().numpy(), MR_PERCENTILE))
        if not scale > 0:
            raise InputError(f"{kspace.name}: its images are zero nearly everywhere; nothing can be reconstructed")
        denoiser = slice_denoiser(prior, settings, kspace.grid, device)
        return cls(A, y / scale, MR_VALUE, denoiser, kspace.grid, kspace.name, noise / scale, kspace, scale)

    def solve(self, settings: ReconSettings, monitor: Monitor, checkpoint: Checkpoint) -> Tensor:
        return super().solve(settings, monitor, _AsReal(checkpoint))

    def classical(self, method: str, settings: ReconSettings, monitor: Monitor, checkpoint: Checkpoint) -> Tensor:
        if method == "zero-filled":
            return self.A.adjoint(self.y)
        if method == "espirit-l1":
            return espirit_l1(self.kspace.data / self.scale, self.A, lam=settings.l1_lam)
        return self.quick("sense-cg", settings)

    def quick(self, start: str, settings: ReconSettings) -> Tensor:
        return sense_cg(self.A, self.y, lam=settings.cg_lam, steps=settings.cg_iterations)

    def volumes_denoiser(self, settings: ReconSettings) -> Denoiser:
        assert self.denoiser is not None
        channels, way = self.denoiser.prior.card.channels, settings.complex_prior
        if way == "auto":
            way = "two-channel" if channels == 2 else "real-imaginary" if settings.published else "phase"
        if (way == "two-channel") != (channels == 2):
            raise InputError(
                f"setting complex_prior: {settings.complex_prior!r} does not fit prior "
                f"{self.denoiser.prior.card.id!r} with {channels} channel(s)"
            )
        if way == "two-channel":
            return self.denoiser
        if way == "real-imaginary":
            return PartsDenoiser(self.denoiser)
        phase = self.phase()
        return PhaseDenoiser(self.denoiser, phase, self._remainder(phase))

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
        return max(float(imaginary.square().mean()) - noise, LEAST_REMAINDER**2) ** 0.5

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
            whole = centred_fft(sense_cg(self.A, self.y, lam=0.0, steps=SCALE_STEPS))[:, None].cpu().numpy()
            return centred_ifft(torch.from_numpy(middle_of(whole, self._middle, tapered=tapered)))[:, 0].to(
                self.A.device
            )
        middle = middle_of(self.kspace.data, self.kspace.geometry, tapered=tapered) / self.scale
        return self.A.adjoint(self.A.carried_over(torch.from_numpy(middle).to(self.A.device)))

    def residual(self, x: Tensor) -> float:
        return float(self.A.distance(x, self.y) / torch.linalg.vector_norm(torch.view_as_real(self.y)))

    def volume(self, x: Tensor, name: str, *, difference: bool = False) -> Volume:
        """The magnitude of an estimate in the data's own, arbitrary unit, on the stored grid."""
        return self.kspace.volume((x.abs() * self.scale).cpu().numpy(), name)


@dataclass
class _AsReal:
    """A checkpoint that keeps complex tensors as real ones with a last axis of two: files know those everywhere."""

    checkpoint: Checkpoint

    def load(self, stage: str) -> dict[str, Tensor] | None:
        stored = self.checkpoint.load(stage)
        if stored is None:
            return None
        split = {name: name.removesuffix(_COMPLEX) for name in stored}
        return {plain: stored[n] if n == plain else torch.view_as_complex(stored[n]) for n, plain in split.items()}

    def save(self, stage: str, state: dict[str, Tensor]) -> None:
        entries = {
            (name + _COMPLEX if value.is_complex() else name): torch.view_as_real(value)
            if value.is_complex()
            else value
            for name, value in state.items()
        }
        self.checkpoint.save(stage, entries)


def noise_of(kspace: KSpace) -> float:
    """Standard deviation of the noise in the data; where they do not tell, measured on the outermost samples.

    Data simulated without noise have none.
    """
    simulated = kspace.provenance.get("kind") == "simulated"
    return kspace.noise_std if simulated else noise_std_of(kspace)


def operator_of(kspace: KSpace, device: torch.device) -> CartesianFourier:
    """The Fourier operator of a measurement; with several coils, whose maps are estimated where they are not given."""
    kspace = with_maps(kspace)
    if kspace.maps is None:
        return CartesianFourier(kspace.geometry.mask, kspace.grid.shape, device=device)
    on_device = unit_maps(torch.from_numpy(np.ascontiguousarray(kspace.maps)).to(device))
    return SenseFourier(kspace.geometry.mask, on_device, slices=kspace.grid.shape[0])


def with_maps(kspace: KSpace) -> KSpace:
    """The measurement with its coils' maps estimated once, for several reconstructions of it.

    By ESPIRiT.  Raises InputError where they cannot be estimated.
    """
    if kspace.geometry.coils == 1 or kspace.maps is not None:
        return kspace
    return replace(kspace, maps=estimate_maps(kspace), provenance={**kspace.provenance, "maps": "espirit"})
