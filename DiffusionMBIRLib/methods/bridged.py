"""Direct reconstructions of scans with metal whose rays are replaced: the usual methods to compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..errors import InputError
from .base import Method
from .run import Estimate, Run

if TYPE_CHECKING:
    from ..config import ReconSettings
    from ..problems import Problem


class NMAR(Method):
    """Normalised interpolation (Meyer et al. 2010)."""

    name: ClassVar[str] = "nmar"
    label: ClassVar[str] = "Metal: normalised interpolation (NMAR)"
    takes: ClassVar[tuple[str, ...]] = ("CT",)
    volumes: ClassVar[int] = 8
    order: ClassVar[int] = 64
    way: ClassVar[str] = "normalised"

    def run(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        if not settings.metal_hu:
            raise InputError(f"setting metal_hu: {self.name} needs to know what is metal; give it in HU, such as 2500")
        return Estimate(problem.analytic(self.way))


class LinearInterpolation(NMAR):
    """Linear interpolation (Kalender et al. 1987)."""

    name: ClassVar[str] = "metal-linear"
    label: ClassVar[str] = "Metal: linear interpolation"
    order: ClassVar[int] = 65
    way: ClassVar[str] = "linear"
