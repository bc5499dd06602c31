"""The paper's Algorithms 1 and 2: predictor and corrector at every level, each level with an ADMM step."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .base import OF_FITS, OF_SAMPLERS, OF_STARTS
from .diffusion import DiffusionMethod, Draw, data_step, predictor_corrector_evaluations

if TYPE_CHECKING:
    from torch import Tensor

    from ..config import ReconSettings


class MBIR(DiffusionMethod):
    """Algorithm 1: ADMM variables are shared across levels."""

    name: ClassVar[str] = "mbir"
    label: ClassVar[str] = "Diffusion, as in the paper (slow)"
    settings: ClassVar[tuple[str, ...]] = (*OF_SAMPLERS, *OF_STARTS, *OF_FITS, "snr")
    publishes: ClassVar[bool] = True
    order: ClassVar[int] = 20
    shares: ClassVar[bool] = True
    sweeps: ClassVar[int] = 1

    def evaluations_of_a_sample(self, settings: ReconSettings, task: str, views: int) -> int:
        return 2 * settings.steps if settings.published else predictor_corrector_evaluations(settings, task, views)

    def data_steps(self, settings: ReconSettings) -> int:
        return (settings.steps + 1) * (settings.sweeps or self.sweeps)

    def draw(self, draw: Draw) -> Tensor:
        from ..samplers import predictor_corrector
        from ..samplers.schedules import geometric_sigmas
        from .published import draw_mbir

        s = draw.settings
        if s.published:
            return draw_mbir(draw)
        return predictor_corrector.sample(
            draw.denoiser,
            data_step(draw, sweeps=self.sweeps),
            geometric_sigmas(s.sigma_end, draw.first_level, s.steps),
            draw.start,
            draw.noise,
            snr=s.snr,
            share_variables=self.shares,
            monitor=draw.run.monitor,
            checkpoint=draw.checkpoint,
        )


class SlowMBIR(MBIR):
    """Algorithm 2: the ADMM starts anew at every level, with several sweeps."""

    name: ClassVar[str] = "mbir-slow"
    label: ClassVar[str] = "Diffusion, paper's Algorithm 2 (very slow)"
    publishes: ClassVar[bool] = False
    order: ClassVar[int] = 21
    shares: ClassVar[bool] = False
    sweeps: ClassVar[int] = 10
