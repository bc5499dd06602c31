"""Classical reconstructions of MR data: SENSE by conjugate gradient, wavelet sparsity, and the low-resolution image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..geometry import CartesianMRI
from ..operators.base import LinearOperator
from ..operators.fourier import CartesianFourier, SenseFourier
from .cg import conjugate_gradient
from .recycled import RecycledGradient


def sense_cg(
    A: LinearOperator,
    y: Tensor,
    *,
    lam: float,
    steps: int,
    precondition: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """min over x of 1/2 |y - A x|^2 + lam / 2 |x|^2 by ``steps`` of conjugate gradient from zero.

    Pruessmann et al. 2001 (doi 10.1002/mrm.1241).  lam and an early stop both keep noise from being amplified.
    precondition: r -> an approximate solution of A^H A x = r.
    """
    rhs, inner = A.adjoint(y), A.domain.dot
    start = torch.zeros_like(rhs)

    def system(x: Tensor) -> Tensor:
        return A.gram(x).add_(x, alpha=lam)

    if precondition is not None:
        return RecycledGradient(precondition)(system, rhs, start, steps=steps, dot=inner)
    return conjugate_gradient(system, rhs, start, steps=steps, dot=inner)


def middle_of(data: np.ndarray, geometry: CartesianMRI, *, tapered: bool) -> np.ndarray:
    """The fully sampled middle of k-space (slices, coils, rows, columns), zero elsewhere; symmetric about the centre.

    An unpaired line at one end would alone give a real image a phase.  tapered: under half a cosine, whose image has a
    phase without ringing; across the direction of the lines the middle is then cut to twice its narrower side, since a
    phase is smooth in both.  Raises InputError where there is no such middle.
    """
    narrow = (min(geometry.acs) - 1) // 2  # positions on each side of the centre
    if narrow < 2:
        raise InputError("the middle of k-space is not fully sampled; use complex_prior real-imaginary")
    window = np.ones((1, 1), dtype=np.float32)
    for size, extent in zip(data.shape[2:], geometry.acs, strict=True):
        reach = (extent - 1) // 2
        reach = min(reach, 2 * narrow) if tapered else reach
        distance = np.abs(np.arange(size, dtype=np.float32) - size // 2)
        side = np.cos(0.5 * np.pi * distance / (reach + 1)) if tapered else np.ones_like(distance)
        window = window[..., None] * np.where(distance <= reach, side, 0)
    return data * window[0, 0].astype(np.float32)


def espirit_l1(data: np.ndarray, A: CartesianFourier, *, lam: float) -> Tensor:
    """Wavelet sparsity slice by slice with sigpy's L1WaveletRecon, from k-space (slices, coils, rows, columns).

    Lustig et al. 2007 (doi 10.1002/mrm.21391) and Uecker et al. 2014 (doi 10.1002/mrm.24751).  Computes on the CPU.
    Raises InputError where sigpy is not installed.
    """
    ones = np.ones((1, *data.shape[1:]), np.complex64)
    maps = A.maps.cpu().numpy() if isinstance(A, SenseFourier) else ones
    recon = wavelet_app()
    images = [recon(y, maps[k % len(maps)], lam, show_pbar=False).run() for k, y in enumerate(data)]
    return torch.from_numpy(np.stack(images)).to(A.device, A.dtype)


def wavelet_app() -> Any:
    """SigPy's reconstruction with wavelet sparsity.  Raises InputError where sigpy is not installed."""
    try:
        from sigpy.mri.app import L1WaveletRecon
    except ImportError:
        raise InputError(
            "method espirit-l1 needs sigpy; install it with: python -m pip install 'diffusionmbir[mri]'"
        ) from None
    return L1WaveletRecon
