"""Cartesian MRI: the sampled part of the 2D Fourier transform of each slice, through one coil or several.

The transform is orthonormal and centred, so that every operator here has norm 1 at most.  What a coil sees is the image
times its complex sensitivity (Pruessmann et al. 1999, SENSE).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .base import LinearOperator

_PLANE = (-2, -1)


def centred_fft(x: Tensor, axes: Sequence[int] = _PLANE) -> Tensor:
    """Orthonormal Fourier transform along ``axes``, origin and lowest frequency at the index size // 2."""
    axes = tuple(axes)
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(x, axes), dim=axes, norm="ortho"), axes)


def centred_ifft(y: Tensor, axes: Sequence[int] = _PLANE) -> Tensor:
    """The inverse, and the adjoint, of :func:`centred_fft`."""
    axes = tuple(axes)
    return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(y, axes), dim=axes, norm="ortho"), axes)


def unit_maps(maps: Tensor) -> Tensor:
    """Coil maps (slices, coils, rows, columns) of which sum |S|^2 is 1 where any coil sees the pixel, 0 elsewhere.

    The image is then what all coils together saw, with noise that is the same everywhere without undersampling.
    """
    total = maps.abs().square().sum(1, keepdim=True)
    return torch.where(total > 1e-6 * total.max(), maps / total.sqrt().clamp_min(1e-20), 0.0)


class CartesianFourier(LinearOperator):
    """Sampled k-space through one coil: complex (slices, rows, columns) -> (slices, 1, rows, columns).

    mask: bool (rows, columns), lowest frequency in the middle.  shape: of the volume.
    """

    def __init__(
        self,
        mask: np.ndarray | Tensor,
        shape: tuple[int, int, int],
        *,
        coils: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.complex64,
    ) -> None:
        slices, rows, columns = shape
        super().__init__(shape, (slices, coils, rows, columns), device=torch.device(device), dtype=dtype)
        if not dtype.is_complex:
            raise InputError(f"k-space needs a complex type, not {dtype}")
        chosen = torch.as_tensor(np.array(mask) if isinstance(mask, np.ndarray) else mask, dtype=torch.bool)
        if tuple(chosen.shape) != (rows, columns):
            raise InputError(f"mask has the shape {tuple(chosen.shape)}, the slices are {(rows, columns)}")
        self.mask = chosen.to(self.device)
        self._axes, self._corner_mask = _effective(self.mask)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.domain, "x")
        return (centred_fft(x) * self.mask)[:, None]

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.range, "y")
        return centred_ifft(y[:, 0] * self.mask)

    def gram(self, x: Tensor) -> Tensor:
        self._check(x, self.domain, "x")
        return self._masked(x)

    def norm(self, *, tolerance: float = 1e-5, most: int = 300) -> float:
        """1 with anything sampled: a part of an orthonormal transform."""
        return float(self.mask.any())

    def _masked(self, x: Tensor) -> Tensor:
        """F^H M F x.  Shifts cancel, and the transform of an axis along which all is sampled does so, too."""
        spectrum = torch.fft.fftn(x, dim=self._axes).mul_(self._corner_mask)
        return torch.fft.ifftn(spectrum, dim=self._axes)


def _effective(mask: Tensor) -> tuple[tuple[int, ...], Tensor]:
    """(axes that need a transform, the mask with the lowest frequency in the corner, of extent 1 along the others)."""
    for axis in (0, 1):
        line = mask.narrow(axis, 0, 1)
        if bool((mask == line).all()):
            return (-1 - axis,), torch.fft.ifftshift(line, 1 - axis)
    return _PLANE, torch.fft.ifftshift(mask)


class SenseFourier(CartesianFourier):
    """Sampled k-space through several coils: complex (slices, rows, columns) -> (slices, coils, rows, columns).

    maps: complex (slices or 1, coils, rows, columns) with sum |S|^2 <= 1, as :func:`unit_maps` makes them, on the
    device and in the type that the operator is to work in.  One coil after another is computed, so that besides the
    data no more than a few volumes are held.
    """

    def __init__(self, mask: np.ndarray | Tensor, maps: Tensor, *, slices: int | None = None) -> None:
        if maps.ndim != 4:
            raise InputError(f"maps must be (slices, coils, rows, columns), they have {maps.ndim} axes")
        held, coils, rows, columns = maps.shape
        slices = slices or held
        if held not in (1, slices):
            raise InputError(f"maps are for {held} slices, the volume has {slices}")
        super().__init__(mask, (slices, rows, columns), coils=coils, device=maps.device, dtype=maps.dtype)
        power = float(maps.abs().square().sum(1).max())
        if power > 1.001:
            raise InputError(f"maps have a power of {power:.4g} somewhere, above 1; normalise them (unit_maps)")
        self.maps = maps

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.domain, "x")
        out = x.new_empty(self.range)
        for coil in range(self.range[1]):
            torch.mul(centred_fft(x * self.maps[:, coil]), self.mask, out=out[:, coil])
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.range, "y")
        out = y.new_zeros(self.domain)
        for coil in range(self.range[1]):
            out.addcmul_(centred_ifft(y[:, coil] * self.mask), self.maps[:, coil].conj())
        return out

    def gram(self, x: Tensor) -> Tensor:
        self._check(x, self.domain, "x")
        out = torch.zeros_like(x)
        for coil in range(self.range[1]):
            out.addcmul_(self._masked(x * self.maps[:, coil]), self.maps[:, coil].conj())
        return out

    def norm(self, *, tolerance: float = 1e-5, most: int = 300) -> float:
        """The largest singular value, by power iteration; at most 1."""
        return LinearOperator.norm(self, tolerance=tolerance, most=most)
