"""ESPIRiT (Uecker et al. 2014, doi 10.1002/mrm.24751): sensitivity maps as eigenvectors of the calibration.

Windows of calibrated k-space span a small space.  In image space the projection onto it is one small matrix a pixel,
whose eigenvector of eigenvalue 1 holds what the coils see there.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SINGULAR_SHARE = 0.02  # of the largest singular value of the windows; below it is noise
LEAST_EIGENVALUE = 0.8  # of a pixel that an object fills
_SQUARINGS = 7  # of a pixel's matrix: its 128th power leaves its first eigenvector only


@torch.inference_mode()
def espirit_maps(middle: np.ndarray, shape: tuple[int, int], *, kernel: int = 6) -> np.ndarray:
    """Maps complex64 (coils, rows, columns) of sum |S|^2 = 1 on a grid of ``shape``, 0 where no object is seen.

    middle: complex (coils, rows, columns), the fully sampled middle of k-space, its lowest frequency at n // 2.
    kernel: side of the windows.  Phases differ freely from pixel to pixel.
    """
    lags = _correlations(_signal_space(torch.from_numpy(np.ascontiguousarray(middle)), kernel), middle.shape[0], kernel)
    down, right = (_waves(side, kernel) for side in shape)
    matrices = torch.einsum("ra,cdab,sb->rscd", down, lags, right) / kernel**2
    vectors, values = _first_eigenvectors(matrices)
    return torch.where(values > LEAST_EIGENVALUE, vectors.movedim(-1, 0), 0).numpy()


def _signal_space(middle: Tensor, kernel: int) -> Tensor:
    """Orthonormal vectors (coils x kernel x kernel, rank) that span the windows of k-space, without those of noise."""
    windows = middle.to(torch.complex128).unfold(1, kernel, 1).unfold(2, kernel, 1)
    rows = windows.permute(1, 2, 0, 3, 4).reshape(windows.shape[1] * windows.shape[2], -1)
    if len(rows) < rows.shape[1]:  # the smaller of the two Gram matrices
        energies, left = torch.linalg.eigh(rows @ rows.mH)
        kept = energies > SINGULAR_SHARE**2 * energies[-1]
        return (rows.mT @ left[:, kept].conj()) / energies[kept].sqrt()
    energies, vectors = torch.linalg.eigh(rows.mT @ rows.conj())
    return vectors[:, energies > SINGULAR_SHARE**2 * energies[-1]]


def _correlations(space: Tensor, coils: int, kernel: int) -> Tensor:
    """The projection onto the space, summed over windows' places: (coils, coils, lags, lags), lags from 1 - kernel."""
    places, span = kernel**2, 2 * kernel - 1
    projection = (space @ space.mH).reshape(coils, places, coils, places).permute(0, 2, 1, 3).reshape(-1, places**2)
    row, column = np.divmod(np.arange(places), kernel)
    lag = (np.subtract.outer(row, row) + kernel - 1) * span + np.subtract.outer(column, column) + kernel - 1
    out = projection.new_zeros(coils**2, span**2).index_add_(1, torch.from_numpy(lag.reshape(-1)), projection)
    return out.reshape(coils, coils, span, span).to(torch.complex64)


def _waves(side: int, kernel: int) -> Tensor:
    """exp(2 pi i r lag / side), (side, lags), with the origin of r at side // 2."""
    turns = np.outer(np.arange(side) - side // 2, np.arange(1 - kernel, kernel)) / side
    return torch.from_numpy(np.exp(2j * np.pi * turns).astype(np.complex64))


def _first_eigenvectors(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Unit eigenvectors (rows, columns, coils) of the largest eigenvalues (rows, columns) of Hermitian matrices."""
    power = matrices
    for _ in range(_SQUARINGS):
        power = power / power.diagonal(dim1=-2, dim2=-1).real.sum(-1).clamp_min(1e-20)[..., None, None]
        power = power @ power
    strongest = power.diagonal(dim1=-2, dim2=-1).real.argmax(-1)
    vectors = power.gather(-1, strongest[..., None, None].expand(*power.shape[:-1], 1))[..., 0]
    lengths = torch.view_as_real(vectors).square().sum((-2, -1)).sqrt()
    vectors = vectors / lengths.clamp_min(1e-20)[..., None]
    values = (vectors.conj() * (matrices @ vectors[..., None])[..., 0]).sum(-1).real
    return vectors, values
