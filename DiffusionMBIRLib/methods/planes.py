"""Thin slices from thick ones: coronal and sagittal planes denoised in turn, each time back onto the slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..samplers.schedules import STAGE
from ..tasks import SLICES
from .base import OF_SAMPLERS
from .diffusion import DiffusionMethod, Draw, data_step

if TYPE_CHECKING:
    from torch import Tensor

    from ..config import ReconSettings


class Planes(DiffusionMethod):
    name: ClassVar[str] = "planes"
    label: ClassVar[str] = "Diffusion, plane by plane"
    slabs: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = (SLICES,)
    settings: ClassVar[tuple[str, ...]] = (*OF_SAMPLERS, "start", "schedule", "noise_weight", "temperature")
    volumes: ClassVar[int] = 4
    order: ClassVar[int] = 11

    def evaluations_of_a_sample(self, settings: ReconSettings, task: str, views: int) -> int:
        return settings.steps

    def work(self, settings: ReconSettings) -> dict[str, tuple[str, float]]:
        return {STAGE: ("step", settings.samples * settings.steps)}

    def draw(self, draw: Draw) -> Tensor:
        from ..samplers import dds
        from ..samplers.schedules import geometric_sigmas, karras_sigmas

        s = draw.settings
        spaced = karras_sigmas if s.schedule == "karras" else geometric_sigmas
        return dds.sample(
            draw.denoiser,
            data_step(draw),
            spaced(s.sigma_end, draw.first_level, s.steps),
            draw.start,
            draw.noise,
            eta=1.0,
            temperature=s.temperature,
            monitor=draw.run.monitor,
            checkpoint=draw.checkpoint,
        )
