"""Classical reconstructions of MR data: SENSE by conjugate gradient, wavelet sparsity, and the low-resolution image."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..geometry_mr import CartesianMRI
from ..operators.base import LinearOperator
from ..operators.fourier import SenseFourier
from .cg import conjugate_gradient


def sense_cg(A: LinearOperator, y: Tensor, *, lam: float, steps: int) -> Tensor:
    """min over x of 1/2 |y - A x|^2 + lam / 2 |x|^2 by ``steps`` of conjugate gradient from zero.

    Pruessmann et al. 2001 (doi 10.1002/mrm.1241).  lam and an early stop both keep noise from being amplified.
    """
    rhs = A.adjoint(y)
    return conjugate_gradient(lambda x: A.gram(x).add_(x, alpha=lam), rhs, torch.zeros_like(rhs), steps=steps)


def apodised(y: Tensor, geometry: CartesianMRI) -> Tensor:
    """The fully sampled middle of k-space (slices, coils, rows, columns) under a Hann window, zero elsewhere.

    The window is as wide in both directions as the narrower of the two sides of the middle, counted in multiples of the
    field of view, so that the image of it is equally smooth along rows and columns.
    """
    if min(geometry.acs) < 2:
        raise InputError("the middle of k-space is not fully sampled; use complex_prior real-imaginary")
    width = min(geometry.acs)
    out = torch.zeros_like(y)
    block = (slice(None), slice(None), *geometry.acs_block)
    rows, columns = (_hann(n, s, width).to(y.device) for n, s in zip(y.shape[2:], geometry.acs_block, strict=True))
    out[block] = y[block] * (rows[:, None] * columns)
    return out


def _hann(size: int, block: slice, width: int) -> Tensor:
    """Values in ``block`` of a Hann window around size // 2 that reaches zero just outside of ``width`` positions."""
    distance = torch.arange(block.start, block.stop, dtype=torch.float32) - size // 2
    return torch.cos(torch.pi * distance / (width + 2)).square() * (distance.abs() <= width / 2)


def espirit_l1(A: LinearOperator, y: Tensor, *, lam: float) -> Tensor:
    """Wavelet sparsity slice by slice with sigpy's L1WaveletRecon; complex (slices, rows, columns).

    Lustig et al. 2007 (doi 10.1002/mrm.21391) and Uecker et al. 2014 (doi 10.1002/mrm.24751).  Computes on the CPU.
    Raises InputError where sigpy is not installed.
    """
    try:
        from sigpy.mri.app import L1WaveletRecon
    except ImportError:
        raise InputError(
            "method espirit-l1 needs sigpy; install it with: python -m pip install 'diffusionmbir[mri]'"
        ) from None
    maps = A.maps if isinstance(A, SenseFourier) else torch.ones((1, *y.shape[1:]), dtype=y.dtype)
    slices = []
    for k, samples in enumerate(y.cpu().numpy()):
        run = L1WaveletRecon(samples, maps[k % len(maps)].cpu().numpy(), lam, show_pbar=False)
        slices.append(torch.from_numpy(run.run()))
    return torch.stack(slices).to(y.device, y.dtype)
