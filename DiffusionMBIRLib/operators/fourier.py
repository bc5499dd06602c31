"""Cartesian MRI: the sampled part of the 2D Fourier transform of each slice, through one coil or several.

The transform is orthonormal and centred, so that every operator here has norm 1 at most.  What a coil sees is the image
times its complex sensitivity (Pruessmann et al. 1999, SENSE).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .base import LinearOperator
from .circulant import sampling_spectrum
from .coils import local_coils, mixed
from .slabs import WHOLE, Slabs
from .space import Space

_PLANE = (-2, -1)
PIXELS_AT_ONCE = {"cpu": 2**18, "cuda": 2**26}  # over slices and coils: on a CPU what stays in its cache


def fft2c(x: Tensor, axes: Sequence[int] = _PLANE) -> Tensor:
    """Orthonormal Fourier transform along ``axes``, origin and lowest frequency at the index size // 2."""
    axes = tuple(axes)
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(x, axes), dim=axes, norm="ortho"), axes)


def ifft2c(y: Tensor, axes: Sequence[int] = _PLANE) -> Tensor:
    """The inverse, and the adjoint, of :func:`fft2c`."""
    axes = tuple(axes)
    return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(y, axes), dim=axes, norm="ortho"), axes)


def unit_maps(maps: Tensor, slabs: Slabs = WHOLE) -> Tensor:
    """Coil maps (slices, coils, rows, columns) of which sum |S|^2 is 1 where any coil sees the pixel, 0 elsewhere.

    The image is then what all coils together saw, with noise that is the same everywhere without undersampling.
    slabs: who holds the maps of other slices.
    """
    total = maps.abs().square().sum(1, keepdim=True)
    return torch.where(total > 1e-6 * slabs.largest(total.max()), maps / total.sqrt().clamp_min(1e-20), 0.0)


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
        volumes = Space(shape, dtype, torch.device(device))
        super().__init__(volumes, replace(volumes, shape=(slices, coils, rows, columns)))
        if not dtype.is_complex:
            raise InputError(f"k-space needs a complex type, not {dtype}")
        chosen = torch.as_tensor(np.array(mask) if isinstance(mask, np.ndarray) else mask, dtype=torch.bool)
        if tuple(chosen.shape) != (rows, columns):
            raise InputError(f"mask has the shape {tuple(chosen.shape)}, the slices are {(rows, columns)}")
        self.mask = chosen.to(self.device)
        self._axes, self._corner_mask = _effective(self.mask)
        sampled = self._corner_mask.double() / math.prod(self._corner_mask.shape[axis] for axis in self._axes) ** 0.5
        self._sampling = _for_parts(sampled, 1.0, self.dtype)  # of a transform that was not scaled
        self._lengths, spectrum = sampling_spectrum(self._corner_mask, self._axes, self.dtype)
        self._filter = _for_parts(spectrum, -1.0, self.dtype)
        self._centred = True
        at_once = max(1, PIXELS_AT_ONCE[self.device.type] // (coils * rows * columns))
        self._parts = [slice(start, min(start + at_once, slices)) for start in range(0, slices, at_once)]

    def forward(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        out = self.range.empty()
        for part in self._parts:
            out[part] = self._samples(x, part)
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        self.range.check(y, "y")
        out = self.domain.empty()
        for part in self._parts:
            images = ifft2c(y[part] * self.mask) if self._centred else self._images(y[part] * self._corner_mask)
            out[part] = self._combined(images, part)
        return out

    def gram(self, x: Tensor) -> Tensor:
        """A^H A x.  The inverse transform is the conjugate of the transform of the conjugate, and conjugation costs
        nothing in a filter: so maps need no conjugated copy, and no transform is scaled.
        """
        self.domain.check(x, "x")
        out, (rows, columns) = torch.empty_like(x), x.shape[1:]
        for part in self._parts:
            spectrum = torch.fft.fftn(self._seen(x, part), s=self._lengths, dim=self._axes)
            torch.view_as_real(spectrum).mul_(self._filter)
            images = torch.fft.fftn(spectrum, dim=self._axes)[..., :rows, :columns]
            self._combine_conjugates(images, part, out[part])
        return out.conj_physical_()

    def gradients(self, y: Tensor) -> Callable[[Tensor], Tensor]:
        """x -> A^H (A x - y).  Keeps A^H y: all coils' samples are larger, and A^H A x takes less than A x."""
        back_projection = self.adjoint(y)
        return lambda x: self.gram(x).sub_(back_projection)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """|A x - y|, part by part: no second copy of the data is made."""
        self.domain.check(x, "x")
        self.range.check(y, "y")
        squares = []
        for part in self._parts:
            off = torch.view_as_real(self._samples(x, part).sub_(y[part])).flatten()  # a complex norm is slow
            squares.append(torch.dot(off, off))
        return self.range.slabs.total(torch.stack(squares).sum()).sqrt()

    def norm(self, *, tolerance: float = 1e-5, most: int = 300) -> float:
        """1 with anything sampled: a part of an orthonormal transform."""
        return float(self.mask.any())

    def reduced(self, y: Tensor, *, spill: float = 0.0) -> tuple[CartesianFourier, Tensor]:
        """The same problem in fewer transforms: (B, z) with |B x - z| = |A x - y| for every x, and B^H B = A^H A.

        Axes along which all is sampled stay in image space, and nothing is shifted: both are unitary changes of y.
        Where there is such an axis, only as many combinations of coils are kept along it as leave out a signal of
        ``spill`` at most, in squares of y, as a mean over the pixels of the object (0: all of them).
        """
        twin = copy.copy(self)
        twin._centred = False
        return twin, twin.carried_over(y)

    def carried_over(self, y: Tensor) -> Tensor:
        """Measured data of the operator that this one was reduced from, as this one sees them."""
        replace(self.range, shape=(self.range.shape[0], self._coils_of_data, *self.range.shape[2:])).check(y, "y")
        out = self.range.empty()
        for part in self._parts:
            out[part] = self._mixed(self._spectrum(ifft2c(y[part] * self.mask)))
        return out

    @property
    def _coils_of_data(self) -> int:
        return self.range.shape[1]

    def _mixed(self, spectrum: Tensor) -> Tensor:
        return spectrum

    def _samples(self, x: Tensor, part: slice) -> Tensor:
        """A x of some slices."""
        seen = self._seen(x, part)
        return fft2c(seen) * self.mask if self._centred else self._spectrum(seen)

    def _seen(self, x: Tensor, part: slice) -> Tensor:
        """What each coil sees of some slices: (slices, coils, rows, columns)."""
        return x[part, None]

    def _combined(self, images: Tensor, part: slice) -> Tensor:
        """The adjoint of :meth:`_seen`."""
        return images[:, 0]

    def _combine_conjugates(self, images: Tensor, part: slice, out: Tensor) -> None:
        """Put the conjugate of :meth:`_combined` into ``out``, from conjugates of images."""
        out.copy_(images[:, 0])

    def _spectrum(self, images: Tensor) -> Tensor:
        spectrum = torch.fft.fftn(images, dim=self._axes)
        torch.view_as_real(spectrum).mul_(self._sampling)
        return spectrum

    def _images(self, spectrum: Tensor) -> Tensor:
        return torch.fft.ifftn(spectrum, dim=self._axes, norm="ortho")


def _effective(mask: Tensor) -> tuple[tuple[int, ...], Tensor]:
    """(axes that need a transform, the mask with the lowest frequency in the corner, of extent 1 along the others)."""
    for axis in (0, 1):
        line = mask.narrow(axis, 0, 1)
        if bool((mask == line).all()):
            return (-1 - axis,), torch.fft.ifftshift(line, 1 - axis)
    return _PLANE, torch.fft.ifftshift(mask)


def _for_parts(factors: Tensor, sign: float, dtype: torch.dtype) -> Tensor:
    """Factors of the real and, with a sign, of the imaginary parts of a spectrum."""
    real = factors.to(torch.empty(0, dtype=dtype).real.dtype)
    return torch.stack((real, sign * real), -1)


class SenseFourier(CartesianFourier):
    """Sampled k-space through several coils: complex (slices, rows, columns) -> (slices, coils, rows, columns).

    maps: complex (slices or 1, coils, rows, columns) with sum |S|^2 <= 1, as :func:`unit_maps` makes them, on the
    device and in the type that the operator is to work in.
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
        self._mixing: Tensor | None = None

    def norm(self, *, tolerance: float = 1e-5, most: int = 300) -> float:
        """The largest singular value, by power iteration; at most 1."""
        return LinearOperator.norm(self, tolerance=tolerance, most=most)

    def unexplained(self, x: Tensor, y: Tensor) -> Tensor:
        """Root of the sum of squares over the coils of the images of A x - y, real.

        What coils saw and no image explains, since their maps are off, A^H takes out of it: where it is zero, a volume
        may be full of aliasing.
        """
        self.range.check(y, "y")
        out = torch.empty_like(x.real)
        for part in self._parts:
            off = self._samples(x, part).sub_(y[part])
            images = ifft2c(off) if self._centred else self._images(off)
            torch.sum(torch.view_as_real(images).square_(), (1, 4), out=out[part])
        return out.sqrt_()

    def _of(self, part: slice) -> Tensor:
        return self.maps if len(self.maps) == 1 else self.maps[part]

    def _seen(self, x: Tensor, part: slice) -> Tensor:
        return x[part, None] * self._of(part)

    def _combined(self, images: Tensor, part: slice) -> Tensor:
        return images.mul_(self._of(part).conj()).sum(1)

    def _combine_conjugates(self, images: Tensor, part: slice, out: Tensor) -> None:
        torch.sum(images.mul_(self._of(part)), 1, out=out)

    def reduced(self, y: Tensor, *, spill: float = 0.0) -> tuple[CartesianFourier, Tensor]:
        mixing = self._mixing_for(y, spill) if spill > 0 and len(self._axes) == 1 else None
        if mixing is None:
            return super().reduced(y)
        maps = torch.cat([mixed(mixing, part, self._positions) for part in self.maps.split(1)])
        twin = SenseFourier(self.mask, maps, slices=self.domain.shape[0]).in_slabs(self.domain.slabs)
        twin._mixing, twin._centred = mixing, False
        return twin, twin.carried_over(y)

    @property
    def _positions(self) -> int:
        """The axis of images along which all was sampled."""
        return -3 - self._axes[0]

    def _mixing_for(self, y: Tensor, spill: float) -> Tensor | None:
        mixing = local_coils(self.maps, self.adjoint(y), self._positions, spill, self.domain.slabs)
        return mixing if mixing.shape[1] < self.range.shape[1] else None

    @property
    def _coils_of_data(self) -> int:
        return self.range.shape[1] if self._mixing is None else self._mixing.shape[2]

    def _mixed(self, spectrum: Tensor) -> Tensor:
        return spectrum if self._mixing is None else mixed(self._mixing, spectrum, self._positions)
