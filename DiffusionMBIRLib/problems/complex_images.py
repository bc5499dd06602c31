"""What MR scans on a device have in common, however k-space was sampled: complex volumes of a made-up unit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from torch import Tensor

from ..denoisers import Denoiser, PartsDenoiser, SliceDenoiser
from ..errors import InputError
from ..models import MR_VALUE
from ..operators import LinearOperator
from ..samplers.schedules import USUAL_LEVEL
from ..scans import KSpace
from ..sensitivity import noise_std_of
from ..volume import Volume
from .base import Problem

if TYPE_CHECKING:
    from ..config import ReconSettings

SCALE_STEPS = 10  # of conjugate gradient for the volume that sets the scale: aliasing is gone, noise has not come up
LEAST_REMAINDER = 0.003  # of the imaginary part after the phase is taken out: phases are never known exactly

Scan = TypeVar("Scan", bound=KSpace)
Operator = TypeVar("Operator", bound=LinearOperator)


@dataclass(frozen=True)
class ComplexImages(ABC, Generic[Scan, Operator]):
    """y = A x with complex x in multiples of ``unit``, the 99.5th percentile of the volume's magnitude.

    MR images have no unit, so that a prior of several scanners and contrasts needs one made up.  A percentile of the
    magnitude ignores the few bright vessels and spikes that a maximum hangs on and the share of air that a mean
    depends on.  It is taken from a first reconstruction by conjugate gradient, whose percentile lies within a few
    percent of the truth's; the prior is trained with gains that vary by more.

    noise: standard deviation of y in that unit.
    """

    kspace: Scan
    A: Operator
    y: Tensor
    unit: float
    noise: float

    def problem(self, **more: Any) -> Problem:
        """more: what this kind of sampling has beside."""
        return Problem(
            self.kspace,
            self.A,
            self.y,
            MR_VALUE,
            self.noise,
            USUAL_LEVEL,
            to_volume=self.volume,
            residual=self.residual,
            unit=self.unit,
            seen_by=self.by,
            unseen=self.unseen,
            **more,
        )

    @property
    def unseen(self) -> Tensor | None:
        """Where no coil sees anything."""
        maps = getattr(self.A, "maps", None)
        if maps is None:
            return None
        blind = (maps == 0).all(1).expand(self.A.domain.shape)
        return blind if bool(blind.any()) else None

    def residual(self, x: Tensor) -> float:
        """|A x - y| / |y|."""
        return float(self.A.distance(x, self.y) / self.A.range.norm(self.y))

    def volume(self, x: Tensor, name: str, difference: bool) -> Volume:
        """The magnitude of an estimate in the data's own, arbitrary unit, on the wanted grid."""
        return self.kspace.volume((x.abs() * self.unit).cpu().numpy(), name)

    def by(self, denoiser: SliceDenoiser, settings: ReconSettings) -> Denoiser:
        """How a prior sees complex volumes.  Raises InputError for a setting that does not fit its channels."""
        card, way = denoiser.prior.card, settings.complex_prior
        if way == "auto":
            way = "two-channel" if card.channels == 2 else "real-imaginary" if settings.published else "phase"
        if (way == "two-channel") != (card.channels == 2):
            raise InputError(
                f"setting complex_prior: {settings.complex_prior!r} does not fit prior {card.id!r} with "
                f"{card.channels} channel(s)"
            )
        if way == "two-channel":
            return denoiser
        return PartsDenoiser(denoiser) if way == "real-imaginary" else self._with_phase(denoiser)

    @abstractmethod
    def _with_phase(self, denoiser: SliceDenoiser) -> Denoiser:
        """By the smooth part of the phase, estimated from the data."""


def noise_of(kspace: KSpace) -> float:
    """Standard deviation of the noise in the data; where they do not tell, measured on the outermost samples.

    Data simulated without noise have none.
    """
    simulated = kspace.provenance.get("kind") == "simulated"
    return kspace.noise_std if simulated else noise_std_of(kspace)


def required_unit(unit: float, kspace: KSpace) -> float:
    """Raises InputError where there is none."""
    if not unit > 0:
        raise InputError(f"{kspace.name}: its images are zero nearly everywhere; nothing can be reconstructed")
    return unit
