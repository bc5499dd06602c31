"""A^H A of a Fourier transform at any points: a convolution, by one padded Fourier transform each way.

Wajer and Pruessmann 2001; Fessler et al. 2005 (doi 10.1109/TSP.2005.853152).  It does not matter how many points there
are.  The kernel is computed once, in double precision.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .gridding import Gridding

_ACCURACY = (2.0, 8)  # of the kernel, for transforms in single precision
IMAGES_AT_ONCE = {"cpu": 8, "cuda": 128}


def point_spread(points: np.ndarray, weights: Tensor | None, shape: tuple[int, int], *, exact: bool = False) -> Tensor:
    """complex128 (2 rows, 2 columns): A^H W A of one pixel at every distance, its own at [rows, columns].

    points: (points, 2) cycles per field of view, x (columns) first.  weights: real (points); None: all 1.  exact: to
    the rounding of doubles instead of 1e-7.  The first row and column, at a distance that no two pixels have, are zero.
    """
    rows, columns = shape
    places = np.asarray(points, np.float64).reshape(-1, 2) * 2  # cycles per field of view of a grid twice as large
    accuracy = None if exact else _ACCURACY
    gridding = Gridding(places, (2 * rows, 2 * columns), dtype=torch.complex128, accuracy=accuracy)
    given = torch.ones(len(places)) if weights is None else weights.cpu().reshape(-1)
    kernel = gridding.adjoint(given[None].to(torch.complex128))[0] * (2 / np.sqrt(rows * columns))
    kernel[0], kernel[:, 0] = 0, 0
    return kernel


class Toeplitz:
    """The convolution with :func:`point_spread`, of images in their own field of view."""

    def __init__(self, kernel: Tensor, *, device: torch.device | str = "cpu", dtype: torch.dtype) -> None:
        self.shape = (kernel.shape[0] // 2, kernel.shape[1] // 2)
        # Real, since the kernel at the opposite distance is its conjugate.
        spectrum = torch.fft.fft2(torch.fft.ifftshift(kernel)).real
        self._spectrum = spectrum.to(torch.device(device), dtype.to_real())
        self._at_once = IMAGES_AT_ONCE.get(torch.device(device).type, 8)

    def __call__(self, images: Tensor) -> Tensor:
        """(images, rows, columns) -> the same, anew."""
        out = torch.empty_like(images)
        for at in range(0, len(images), self._at_once):
            out[at : at + self._at_once] = self.few(images[at : at + self._at_once])
        return out

    def few(self, images: Tensor) -> Tensor:
        """Of as many images as are transformed together."""
        rows, columns = self.shape
        spectrum = torch.fft.fft2(images, s=(2 * rows, 2 * columns))
        torch.view_as_real(spectrum).mul_(self._spectrum[..., None])
        return torch.fft.ifft2(spectrum)[..., :rows, :columns]
