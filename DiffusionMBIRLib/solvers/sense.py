"""Classical reconstructions of MR data: SENSE by conjugate gradient, wavelet sparsity, and the low-resolution image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..geometry_mr import CartesianMRI
from ..operators.base import LinearOperator
from ..operators.fourier import CartesianFourier, SenseFourier
from .cg import conjugate_gradient


def sense_cg(A: LinearOperator, y: Tensor, *, lam: float, steps: int) -> Tensor:
    """min over x of 1/2 |y - A x|^2 + lam / 2 |x|^2 by ``steps`` of conjugate gradient from zero.

    Pruessmann et al. 2001 (doi 10.1002/mrm.1241).  lam and an early stop both keep noise from being amplified.
    """
    rhs = A.adjoint(y)
    return conjugate_gradient(lambda x: A.gram(x).add_(x, alpha=lam), rhs, torch.zeros_like(rhs), steps=steps)


def apodised(data: np.ndarray, geometry: CartesianMRI) -> np.ndarray:
    """The fully sampled middle of k-space (slices, coils, rows, columns) under a Hann window, zero elsewhere.

    The window is as wide in both directions as the narrower side of the middle, so that the image of it is equally
    smooth along rows and columns of a square field of view.  Raises InputError where there is no such middle.
    """
    width = min(geometry.acs)
    if width < 4:
        raise InputError("the middle of k-space is not fully sampled; use complex_prior real-imaginary")
    out = np.zeros_like(data)
    block = (slice(None), slice(None), *geometry.acs_block)
    rows, columns = (_hann(n, s, width) for n, s in zip(data.shape[2:], geometry.acs_block, strict=True))
    out[block] = data[block] * (rows[:, None] * columns)
    return out


def _hann(size: int, block: slice, width: int) -> np.ndarray:
    """Values in ``block`` of a Hann window around size // 2 that reaches zero just outside of ``width`` positions."""
    distance = np.arange(block.start, block.stop, dtype=np.float32) - size // 2
    window: np.ndarray = np.cos(np.pi * distance / (width + 2)) ** 2 * (np.abs(distance) <= width / 2)
    return window


def espirit_l1(data: np.ndarray, A: CartesianFourier, *, lam: float) -> Tensor:
    """Wavelet sparsity slice by slice with sigpy's L1WaveletRecon, from k-space (slices, coils, rows, columns).

    Lustig et al. 2007 (doi 10.1002/mrm.21391) and Uecker et al. 2014 (doi 10.1002/mrm.24751).  Computes on the CPU.
    Raises InputError where sigpy is not installed.
    """
    try:
        from sigpy.mri.app import L1WaveletRecon
    except ImportError:
        raise InputError(
            "method espirit-l1 needs sigpy; install it with: python -m pip install 'diffusionmbir[mri]'"
        ) from None
    ones = np.ones((1, *data.shape[1:]), np.complex64)
    maps = A.maps.cpu().numpy() if isinstance(A, SenseFourier) else ones
    images = [L1WaveletRecon(y, maps[k % len(maps)], lam, show_pbar=False).run() for k, y in enumerate(data)]
    return torch.from_numpy(np.stack(images)).to(A.device, A.dtype)
