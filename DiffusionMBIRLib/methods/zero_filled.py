"""The adjoint of the sampled data: zeros in place of what was not sampled; of trajectories with weights (gridding)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .base import Method
from .run import Estimate, Run

if TYPE_CHECKING:
    from ..config import ReconSettings
    from ..problems import Problem


class ZeroFilled(Method):
    name: ClassVar[str] = "zero-filled"
    label: ClassVar[str] = "Zero-filled, or gridding"
    slabs: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("MR",)
    order: ClassVar[int] = 73

    def run(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        return Estimate(problem.A.adjoint(problem.y) if problem.direct is None else problem.direct("ramp"))
