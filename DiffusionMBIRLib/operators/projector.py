"""``projector(geometry, grid, backend=...)``: our X-ray transform or an optional one behind the same contract."""

from __future__ import annotations

import torch

from ..errors import InputError
from ..geometry import Grid, ParallelBeam
from .stack import SliceProjector
from .xray import XRayTransform

BACKENDS = ("auto", "matrix", "astra", "torch-radon")


def projector(
    geometry: ParallelBeam,
    grid: Grid,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
) -> SliceProjector:
    """The operator from attenuation (slices, rows, columns) in 1/mm to line integrals (slices, views, columns).

    backend: 'matrix' (ours; 'auto' is the same), 'astra' or 'torch-radon', which are imported only when asked for.
    Raises InputError for an unknown backend and, with the install line, for one that is not installed.
    """
    if backend in ("auto", "matrix"):
        return XRayTransform(geometry, grid, device=device, dtype=dtype)
    if backend == "astra":
        from .astra_backend import AstraTransform

        return AstraTransform(geometry, grid, device=device, dtype=dtype)
    if backend == "torch-radon":
        from .torch_radon_backend import TorchRadonTransform

        return TorchRadonTransform(geometry, grid, device=device, dtype=dtype)
    raise InputError(f"backend {backend!r} is not known; use one of {', '.join(BACKENDS)}")
