"""The volume that noise is added to at the first level, and total variation, which makes most of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..monitor import NoCheckpoint
from ..starts import VIEWS_OF_START

if TYPE_CHECKING:
    from torch import Tensor

    from ..config import ReconSettings
    from ..monitor import Checkpoint, Monitor
    from ..problems import Problem


def total_variation(
    problem: Problem,
    lam: float,
    sweeps: int,
    monitor: Monitor,
    checkpoint: Checkpoint,
    start: Tensor | None = None,
) -> Tensor:
    """Isotropic total variation of a problem's volume, bounded where it is."""
    from ..problems import inverse_spacing
    from ..solvers.classic import admm_tv

    A, y = problem.balanced or (problem.A, problem.y)
    return admm_tv(
        A,
        y,
        lam=lam,
        sweeps=sweeps,
        weights=inverse_spacing(problem.grid),
        floor=problem.least,
        ceiling=problem.most,
        start=start,
        monitor=monitor,
        checkpoint=checkpoint,
    )


def show_direct(problem: Problem, monitor: Monitor) -> None:
    """Let the user see the direct reconstruction, where there is one: it is there long before anything else."""
    direct = problem.direct
    if direct is None:
        return
    with suppress(InputError):  # scans that have none of their own, or none of such angles, do without
        monitor.preview(lambda: direct("hann"), 0)


def coarse_to_fine(
    problem: Problem, lam: float, sweeps: int, grids: int, monitor: Monitor, checkpoint: Checkpoint
) -> Tensor:
    """Total variation that starts from what it is on a grid of twice the pixel side, and so on: long waves, of which
    limited angles leave most to be found, take few sweeps there.

    Of the same image, with an operator of norm 1, a grid of twice the pixel side has a quarter of the misfit and half
    the variation, so that ``lam`` is halved with it.
    """
    coarser = problem.coarser if grids > 1 and all(n % 2 == 0 for n in problem.grid.in_plane) else None
    if coarser is None or checkpoint.load("ADMM-TV"):
        return total_variation(problem, lam, sweeps, monitor, checkpoint)
    views = getattr(problem.scan.geometry, "views_of_a_point", 0)
    part, finer = coarser(2 if views >= 2 * VIEWS_OF_START else 1, 2)
    before = coarse_to_fine(part, lam / 2, 2 * sweeps, grids - 1, OnFinerGrid(monitor, finer), NoCheckpoint())
    return total_variation(problem, lam, sweeps, monitor, checkpoint, start=finer(before))


def sense(problem: Problem, settings: ReconSettings) -> Tensor:
    """SENSE by conjugate gradient, preconditioned where the problem knows how."""
    from ..solvers.sense import sense_cg

    precondition = problem.approximate(0.0) if problem.approximate else None
    lam, steps = settings.cg_lam, settings.cg_iterations
    return sense_cg(problem.A, problem.y, lam=lam, steps=steps, precondition=precondition)


def start_of(problem: Problem, settings: ReconSettings, monitor: Monitor, checkpoint: Checkpoint) -> Tensor:
    """The start that settings name.  Raises InputError where the scan has none of that kind."""
    if settings.start != "fbp":
        show_direct(problem, monitor)
    if settings.start == "noise":
        return problem.A.domain.zeros()
    if settings.start == "spline":
        return problem.analytic("spline")
    if settings.start == "fbp":
        return problem.analytic("hann")
    if settings.start == "sense-cg":
        return sense(problem, settings)
    if problem.coarse is None:
        return total_variation(problem, settings.tv_lam, settings.start_sweeps, monitor, checkpoint)
    part, finer = problem.coarse()
    watched = OnFinerGrid(monitor, finer)
    return finer(total_variation(part, settings.tv_lam, settings.start_sweeps, watched, checkpoint))


@dataclass
class OnFinerGrid:
    """Passes on what happens on a coarser grid, with previews on the finer one."""

    monitor: Monitor
    finer: Callable[[Any], Any]

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        self.monitor.tick(stage, done, total, **metrics)

    def preview(self, estimate: Callable[[], Any], step: int) -> None:
        self.monitor.preview(lambda: self.finer(estimate()), step)

    def poll(self) -> None:
        self.monitor.poll()
