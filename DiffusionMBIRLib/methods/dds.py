"""The accelerated method: 10 to 50 network evaluations a slice."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..samplers.schedules import published_dds_steps
from .base import OF_FITS, OF_SAMPLERS, OF_STARTS
from .diffusion import DiffusionMethod, Draw, data_step

if TYPE_CHECKING:
    from torch import Tensor

    from ..config import ReconSettings


class DDS(DiffusionMethod):
    name: ClassVar[str] = "dds"
    label: ClassVar[str] = "Diffusion, accelerated (DDS)"
    settings: ClassVar[tuple[str, ...]] = (
        *OF_SAMPLERS, *OF_STARTS, *OF_FITS, "share_variables", "schedule", "eta", "noise_span", "extrapolation",
    )  # fmt: skip
    publishes: ClassVar[bool] = True
    order: ClassVar[int] = 10

    def evaluations_of_a_sample(self, settings: ReconSettings, task: str, views: int) -> int:
        return len(published_dds_steps(settings.steps)) if settings.published else settings.steps

    def data_steps(self, settings: ReconSettings) -> int:
        return settings.steps

    def draw(self, draw: Draw) -> Tensor:
        from ..samplers import dds
        from ..samplers.schedules import geometric_sigmas, karras_sigmas
        from .published import draw_dds

        s = draw.settings
        if s.published:
            return draw_dds(draw)
        spaced = karras_sigmas if s.schedule == "karras" else geometric_sigmas
        return dds.sample(
            draw.denoiser,
            data_step(draw),
            spaced(s.sigma_end, draw.first_level, s.steps),
            draw.start,
            draw.noise,
            eta=s.eta,
            share_variables=s.share_variables,
            extrapolation=s.extrapolation,
            monitor=draw.run.monitor,
            checkpoint=draw.checkpoint,
        )
