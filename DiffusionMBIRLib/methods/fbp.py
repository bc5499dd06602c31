"""Filtered back-projection, of geometries that have one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .base import Method
from .run import Estimate, Run

if TYPE_CHECKING:
    from ..config import ReconSettings
    from ..problems import Problem


class FBP(Method):
    name: ClassVar[str] = "fbp"
    label: ClassVar[str] = "Filtered back-projection (FBP)"
    slabs: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("CT",)
    settings: ClassVar[tuple[str, ...]] = ("fbp_filter",)
    volumes: ClassVar[int] = 4
    order: ClassVar[int] = 60

    def run(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        return Estimate(problem.analytic(settings.fbp_filter))
