"""Ordered subsets of the views: what SIRT does, in fewer passes over the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import InputError
from .base import Method
from .run import Estimate, Run

if TYPE_CHECKING:
    from ..config import ReconSettings
    from ..problems import Problem


class OSSART(Method):
    name: ClassVar[str] = "os-sart"
    label: ClassVar[str] = "Ordered subsets (OS-SART)"
    slabs: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("CT",)
    settings: ClassVar[tuple[str, ...]] = ("sart_passes", "subsets")
    volumes: ClassVar[int] = 8
    order: ClassVar[int] = 53

    def work(self, settings: ReconSettings) -> dict[str, tuple[str, float]]:
        return {"subsets": ("projector", 1), "OS-SART": ("sirt", settings.sart_passes)}

    def run(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        from ..solvers.subsets import interleaved, ordered_subsets

        geometry: Any = problem.scan.geometry
        groups = interleaved(geometry.angles_deg, min(settings.subsets, geometry.views_of_a_point))
        assert problem.of_views is not None
        parts = []
        for number, views in enumerate(groups):
            try:
                parts.append(problem.of_views(views))
            except InputError as error:
                raise InputError(
                    f"setting subsets: of {len(groups)}, number {number + 1} cannot be used by itself ({error}); take "
                    "fewer"
                ) from error
            run.monitor.tick("subsets", number + 1, len(groups))
        volume = ordered_subsets(
            parts,
            passes=settings.sart_passes,
            floor=problem.least,
            ceiling=problem.most,
            monitor=run.monitor,
            checkpoint=run.checkpoint,
        )
        return Estimate(volume)
