"""The dual-coupled method: 10 to 50 network evaluations a slice, fewer than without the dual."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..geometry.coverage import sees_every_line
from ..scans import Measurement
from .base import OF_FITS, OF_SAMPLERS, OF_STARTS
from .diffusion import DiffusionMethod, Draw, data_step

if TYPE_CHECKING:
    from torch import Tensor

    from ..config import ReconSettings
    from ..scans import Scan


# The first level where the settings leave it open and few views ask for no higher one: unlike renoising, noise that is
# matched to the data step's change gains from a level above the errors of the start.
LEAST_FIRST_LEVEL = 0.4
OF_A_WEDGE = 0.8  # where views of less than half a turn leave directions without data
LEVELS_PIXELS = 128  # of the shorter side of the volumes that these were chosen on


def usual_first_level(fewest: float, scan: Scan) -> float:
    """Where the settings leave it open; fewest: what the number of views asks for.

    Where much is missing it rises with the pixels along a side: coarse structures keep their noise only as far as its
    mean over them does (Hoogeboom et al. 2023, arXiv 2301.11093).  Measured with 20 levels on 256 x 256, mean PSNR of
    the planes, the level of 128 x 128 and twice that: A0002 at 90 degrees 27.78 and 28.69 dB, at 4 views 22.50 and
    23.63; a held-out abdomen 33.86 and 33.96, 31.05 and 31.08; a held-out limb 33.38 and 34.13, 31.72 and 32.21.  Twice
    the least one serves not all: A0002 at 8 views 29.11 and 29.31, 24 views 36.93 and 36.72; the limb 36.05 and 35.63,
    40.49 and 40.43.
    """
    if not isinstance(scan, Measurement):
        return max(fewest, LEAST_FIRST_LEVEL)
    missing = fewest if sees_every_line(scan.geometry) else max(fewest, OF_A_WEDGE)
    return max(missing * max(1.0, min(scan.grid.in_plane) / LEVELS_PIXELS), LEAST_FIRST_LEVEL)


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
        usual = min(usual_first_level(draw.problem.usual_sigma, draw.problem.scan), draw.prior.sigma_max)
        first = draw.first_level if s.sigma_start else max(usual, s.sigma_end)
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
            unseen=draw.problem.unseen,
            monitor=draw.run.monitor,
            checkpoint=draw.checkpoint,
        )
