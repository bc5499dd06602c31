"""MRI along any trajectory: the Fourier transform of each slice at its points, through one coil or several.

Products A x and A^H y go by Kaiser-Bessel gridding, A^H A x, which the steps of conjugate gradient are made of, by its
convolution.  Both stand for the transform itself to within the rounding of their type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .base import LinearOperator
from .gridding import Gridding
from .space import Space
from .toeplitz import IMAGES_AT_ONCE, Toeplitz, point_spread


class NonCartesianFourier(LinearOperator):
    """W^(1/2) F S: complex (slices, rows, columns) -> (slices, coils, readouts, samples).

    points: (readouts, samples, 2) in cycles per field of view, x (columns) first.  maps: complex (slices or 1, coils,
    rows, columns), on the device and in the type that the operator is to work in.  weights: real (readouts, samples),
    >= 0; data are then to be multiplied by their root (:meth:`weighted`).  None: all 1.

    A sample counts as one of the orthonormal transform does on a grid, so that noise and strengths mean the same; where
    samples lie more densely than on a grid, as in the middle of radial scans, the norm is above 1.
    """

    def __init__(
        self, points: np.ndarray, maps: Tensor, *, slices: int | None = None, weights: Tensor | None = None
    ) -> None:
        if maps.ndim != 4 or not maps.is_complex():
            raise InputError(f"maps must be complex (slices, coils, rows, columns), not of shape {tuple(maps.shape)}")
        held, coils, rows, columns = maps.shape
        slices = slices or held
        if held not in (1, slices):
            raise InputError(f"maps are for {held} slices, the volume has {slices}")
        volumes = Space((slices, rows, columns), maps.dtype, maps.device)
        super().__init__(volumes, replace(volumes, shape=(slices, coils, *points.shape[:2])))
        self.points, self.maps = points, maps
        self._gridding = Gridding(points, (rows, columns), device=maps.device, dtype=maps.dtype)
        self._weigh(weights)

    def _weigh(self, weights: Tensor | None) -> None:
        if weights is not None and tuple(weights.shape) != self.points.shape[:2]:
            raise InputError(f"weights have the shape {tuple(weights.shape)}, samples {self.points.shape[:2]}")
        self.weights = None if weights is None else weights.to(self.device, self.domain.real)
        self._roots = None if self.weights is None else self.weights.sqrt()
        exact = self.dtype == torch.complex128
        self.kernel = point_spread(self.points, self.weights, self._in_plane, exact=exact)
        self._convolution = Toeplitz(self.kernel, device=self.device, dtype=self.dtype)
        self._known_norm = 0.0

    @property
    def _in_plane(self) -> tuple[int, int]:
        return self.domain.shape[1], self.domain.shape[2]

    def reweighted(self, weights: Tensor | None) -> NonCartesianFourier:
        """The same transform with other weights."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._weigh(weights)
        return twin

    def weighted(self, y: Tensor) -> Tensor:
        """Measured data as this operator gives them."""
        return y if self._roots is None else y * self._roots

    def forward(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        out = self.range.empty()
        for k, maps in self._slices():
            samples = self._gridding.forward(x[k] * maps).unflatten(1, self.range.shape[2:])
            out[k] = samples if self._roots is None else samples * self._roots
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        self.range.check(y, "y")
        out = self.domain.empty()
        for k, maps in self._slices():
            images = self._gridding.adjoint(self.weighted(y[k]).flatten(1))
            out[k] = images.mul_(maps.conj()).sum(0)
        return out

    def gram(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        out, coils = torch.empty_like(x), self.range.shape[1]
        at_once = IMAGES_AT_ONCE.get(self.device.type, 8)
        for k, maps in self._slices():
            total = torch.zeros_like(x[k])
            for at in range(0, coils, at_once):
                some = maps[at : at + at_once]
                total += (self._convolution.few(x[k] * some) * some.conj()).sum(0)
            out[k] = total
        return out

    def gradients(self, y: Tensor) -> Callable[[Tensor], Tensor]:
        """x -> A^H (A x - y), with A^H y kept and A^H A x by its convolution."""
        back_projection = self.adjoint(y)
        return lambda x: self.gram(x).sub_(back_projection)

    def norm(self, *, tolerance: float = 1e-4, most: int = 60) -> float:
        """The largest singular value, found once."""
        self._known_norm = self._known_norm or super().norm(tolerance=tolerance, most=most)
        return self._known_norm

    def _slices(self) -> Iterator[tuple[int, Tensor]]:
        return ((k, self.maps[k if len(self.maps) > 1 else 0]) for k in range(self.domain.shape[0]))
