"""Slice-wise diffusion: predictor and corrector, each followed by a step onto the data; slices are not coupled."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..samplers.schedules import STAGE
from .base import OF_SAMPLERS, OF_STARTS
from .diffusion import DiffusionMethod, Draw, predictor_corrector_evaluations

if TYPE_CHECKING:
    from torch import Tensor

    from ..config import ReconSettings


class ScoreCT(DiffusionMethod):
    name: ClassVar[str] = "score-ct"
    label: ClassVar[str] = "Diffusion, slice by slice (score-CT)"
    takes: ClassVar[tuple[str, ...]] = ("CT",)
    settings: ClassVar[tuple[str, ...]] = (*OF_SAMPLERS, *OF_STARTS, "snr", "complex_prior")
    slice_by_slice: ClassVar[bool] = True
    order: ClassVar[int] = 30

    def evaluations_of_a_sample(self, settings: ReconSettings, task: str, views: int) -> int:
        return predictor_corrector_evaluations(settings, task, views)

    def work(self, settings: ReconSettings) -> dict[str, tuple[str, float]]:
        """A product with the operator after each evaluation, not a step of conjugate gradient with its system."""
        return {STAGE: ("step", 4.0 * settings.steps * settings.samples)}

    def draw(self, draw: Draw) -> Tensor:
        from ..samplers import predictor_corrector
        from ..samplers.schedules import geometric_sigmas
        from ..solvers.projection import Projection

        s, problem = draw.settings, draw.problem
        return predictor_corrector.sample(
            draw.denoiser,
            Projection(problem.A, problem.y, normalised=problem.normalised),
            geometric_sigmas(s.sigma_end, draw.first_level, s.steps),
            draw.start,
            draw.noise,
            snr=s.snr,
            after_predictor=True,
            monitor=draw.run.monitor,
            checkpoint=draw.checkpoint,
        )


class ScoreMRI(ScoreCT):
    name: ClassVar[str] = "score-mri"
    label: ClassVar[str] = "Diffusion, slice by slice (score-MRI)"
    takes: ClassVar[tuple[str, ...]] = ("MR",)
    order: ClassVar[int] = 31
