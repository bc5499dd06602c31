"""What a finished run tells of its own errors, at the cost of a few evaluations of the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..methods.starts import total_variation
from ..monitor import Monitor, NoCheckpoint, Polled, Silent
from ..problems import Problem
from ..samplers.noise import CALIBRATION, Noise, noised
from .cost import TV_SWEEPS
from .split import measured_part

LEVELS = (0.03, 0.15)  # of the noise that the prior is asked to take off the result, in the value scale
NAMES = ("value", "filled", *(f"moved {level:g}" for level in LEVELS), "unexplained", "less tv")


@dataclass(frozen=True)
class Signals:
    """maps: (slices, len(NAMES), rows, columns), real, in the value scale: the volume; what the prior filled in; how
    far the prior moves the result when noise is added and taken off again, for each level; what the data say that the
    result does not explain, A^T (A x - y), or of several coils the size of what each of them saw; the volume less that
    of total variation from the same data.  measured: the part of the volume that the data determine (of MRI complex).
    misfit: |A x - y| / |y| of the weighted data.
    """

    maps: Tensor
    measured: Tensor
    misfit: float


def signals_of(
    problem: Problem, denoiser: Denoiser, x: Tensor, *, seed: int, tv_lam: float, monitor: Monitor | None = None
) -> Signals:
    """Evaluations, products and sweeps as :mod:`.cost` counts them."""
    watched = Polled(monitor or Silent())
    noise = Noise(problem.A.domain, seed)
    measured = measured_part(problem.A, x, problem.noise, poll=watched.poll)
    moved = [denoiser(noised(x, noise(k, CALIBRATION), level), level).sub_(x) for k, level in enumerate(LEVELS)]
    unexplained = problem.A.unexplained(x, problem.y)
    misfit = float(problem.A.distance(x, problem.y) / torch.linalg.vector_norm(problem.y).clamp_min(1e-12))
    size, sweeps = magnitude(x), TV_SWEEPS[problem.scan.modality]
    maps = [size, size - magnitude(measured), *(magnitude(x + m) - size for m in moved), _along(unexplained, x)]
    maps.append(size - magnitude(total_variation(problem, tv_lam, sweeps, watched, NoCheckpoint())))
    return Signals(torch.stack([m.contiguous() for m in maps], dim=1).float(), measured, misfit)


def magnitude(x: Tensor) -> Tensor:
    """Of complex volumes the magnitude; real ones as they are."""
    return x.abs() if x.is_complex() else x


def _along(x: Tensor, phase_of: Tensor) -> Tensor:
    """The part of complex x that has the phase of another volume; real x as it is."""
    if not x.is_complex():
        return x
    return (x * phase_of.conj()).real / phase_of.abs().clamp_min(1e-6)
