"""The dual-coupled method: 10 to 50 network evaluations a slice, fewer than without the dual."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .base import OF_FITS, OF_SAMPLERS, OF_STARTS
from .diffusion import DiffusionMethod, Draw, data_step

if TYPE_CHECKING:
    from torch import Tensor

    from ..config import ReconSettings


# The first level where the settings leave it open and few views ask for no higher one: unlike renoising, noise that is
# matched to the data step's change gains from a level above the errors of the start.
LEAST_FIRST_LEVEL = 0.4


class Dual(DiffusionMethod):
    name: ClassVar[str] = "dual"
    label: ClassVar[str] = "Diffusion, dual-coupled"
    settings: ClassVar[tuple[str, ...]] = (
        *OF_SAMPLERS, *OF_STARTS, *OF_FITS, "schedule", "noise_span", "damping", "temperature", "relaxation",
        "antithetic",
    )  # fmt: skip
    volumes: ClassVar[int] = 10
    order: ClassVar[int] = 9

    def evaluations_of_a_sample(self, settings: ReconSettings, task: str, views: int) -> int:
        return settings.steps * (2 if settings.antithetic else 1)

    def draw(self, draw: Draw) -> Tensor:
        from ..samplers import dual
        from ..samplers.schedules import geometric_sigmas, karras_sigmas, usual_relaxation

        s = draw.settings
        usual = max(draw.first_level, min(LEAST_FIRST_LEVEL, draw.prior.sigma_max))
        first = draw.first_level if s.sigma_start else usual
        views = getattr(draw.problem.scan.geometry, "views_of_a_point", 0)
        spaced = karras_sigmas if s.schedule == "karras" else geometric_sigmas
        return dual.sample(
            draw.denoiser,
            data_step(draw),
            spaced(s.sigma_end, first, s.steps),
            draw.start,
            draw.noise,
            damping=s.damping,
            temperature=s.temperature,
            relaxation=s.relaxation or usual_relaxation(views),
            antithetic=s.antithetic,
            monitor=draw.run.monitor,
            checkpoint=draw.checkpoint,
        )
