"""What each part of the method is worth: rows that change one thing each, the full method first."""

from __future__ import annotations

from ..tasks import LIMITED_ANGLE, MR_TASK
from .plan import Row

_LEVELS = 25  # of Algorithm 1 from a classical start: two evaluations each


def ablations_for(task: str) -> tuple[Row, ...]:
    """Rows of the accelerated sampler and of Algorithm 1 from the same start."""
    quick = "sense-cg" if task == MR_TASK else "fbp"
    ours: tuple[tuple[str, dict[str, object]], ...] = (
        ("as preset", {}),
        ("without TV", {"lam": 0.0}),
        ("TV(xyz)", {"tv_axes": "xyz"}),
        ("variables not shared", {"share_variables": False}),
        ("K = 1", {"cg_steps": 1}),
        ("K = 2", {"cg_steps": 2}),
        ("K = 10", {"cg_steps": 10}),
        ("M = 3", {"sweeps": 3}),
        ("10 levels", {"steps": 10}),
        ("20 levels", {"steps": 20}),
        ("30 levels", {"steps": 30}),
        ("100 levels", {"steps": 100}),
        ("from sigma 0.1", {"sigma_start": 0.1}),
        ("from sigma 0.4", {"sigma_start": 0.4}),
        ("from sigma 1", {"sigma_start": 1.0}),
        ("from noise at sigma 12", {"sigma_start": 12.0, "start": "noise"}),
        (f"from {quick.upper()}", {"start": quick}),
        ("geometric levels", {"schedule": "geometric"}),
        ("eta 0.5", {"eta": 0.5}),
        ("eta 0.85", {"eta": 0.85}),
        ("noise turns over 8 slices", {"noise_span": 8}),
        ("noise turns over all slices", {"noise_span": 4096}),
        ("noise turns over 8 slices, without TV", {"noise_span": 8, "lam": 0.0}),
        ("noise turns over all slices, without TV", {"noise_span": 4096, "lam": 0.0}),
        ("mean of 4 samples", {"samples": 4}),
    )
    paper: tuple[tuple[str, dict[str, object]], ...] = (
        ("warm", {}),
        ("warm, without TV", {"lam": 0.0}),
        ("warm, TV(xyz)", {"tv_axes": "xyz"}),
        ("warm, K = 1", {"cg_steps": 1}),
        ("warm, variables not shared", {"method": "mbir-slow", "sweeps": 1}),
        ("warm, M = 3", {"sweeps": 3}),
        ("warm, variables not shared, M = 10 (Algorithm 2)", {"method": "mbir-slow"}),
    )
    if task != MR_TASK:
        ours += (("without softening", {"noise_weight": 0.0}),)
    if task == LIMITED_ANGLE:
        ours += (("plain conjugate gradient, K = 20", {"preconditioner": 0.0, "cg_steps": 20}),)
    rows = [Row(f"DDS, {label}", {"method": "dds"} | changes) for label, changes in ours]
    base = {"method": "mbir", "steps": _LEVELS}
    return (*rows, *(Row(f"Algorithm 1, {label}", base | changes) for label, changes in paper))
