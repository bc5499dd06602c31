"""The volume that noise is added to at the first level, and total variation, which makes most of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from ..config import ReconSettings
    from ..monitor import Checkpoint, Monitor
    from ..problems import Problem


def total_variation(problem: Problem, lam: float, sweeps: int, monitor: Monitor, checkpoint: Checkpoint) -> Tensor:
    """Isotropic total variation of a problem's volume, bounded from below where it is."""
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
    if settings.start == "fbp":
        return problem.analytic("hann")
    if settings.start == "sense-cg":
        return sense(problem, settings)
    if problem.coarse is None:
        return total_variation(problem, settings.tv_lam, settings.start_sweeps, monitor, checkpoint)
    part, finer = problem.coarse()
    watched = _Finer(monitor, finer)
    return finer(total_variation(part, settings.tv_lam, settings.start_sweeps, watched, checkpoint))


@dataclass
class _Finer:
    """Passes on what happens on a coarser grid, with previews on the finer one."""

    monitor: Monitor
    finer: Callable[[Any], Any]

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        self.monitor.tick(stage, done, total, **metrics)

    def preview(self, estimate: Callable[[], Any], step: int) -> None:
        self.monitor.preview(lambda: self.finer(estimate()), step)

    def poll(self) -> None:
        self.monitor.poll()
