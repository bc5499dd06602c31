"""The Fourier transform of images at any points of k-space: by the definition, and fast by Kaiser-Bessel gridding.

y(k) = 1/sqrt(rows columns) sum of f[r, c] exp(-2 pi i (kx (c - columns // 2) / columns + ky (r - rows // 2) / rows)):
at the points of the grid it is the orthonormal, centred transform.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

# Oversampling of the grid and width of the kernel (Beatty et al. 2005, doi 10.1109/TMI.2005.848376): errors of 2e-6 and
# of 1e-13, each a little below the rounding that its type brings.
_ACCURACY = {torch.complex64: (1.5, 8), torch.complex128: (2.0, 16)}
IMAGES_AT_ONCE = {"cpu": 8, "cuda": 64}
_POINTS_AT_ONCE = 2**14


class DirectTransform:
    """By the definition, in double precision: slow and exact, for simulation and tests.

    points: (points, 2) cycles per field of view, x (columns) first.  shape: (rows, columns).
    """

    def __init__(self, points: np.ndarray, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._points = torch.as_tensor(np.array(points), dtype=torch.float64).reshape(-1, 2)
        self._scale = 1 / math.sqrt(shape[0] * shape[1])

    def forward(self, images: Tensor) -> Tensor:
        """(images, rows, columns) of any real or complex type -> complex128 (images, points)."""
        wide = images.to(torch.complex128)
        out = wide.new_empty(len(wide), len(self._points))
        for some, (down, across) in self._waves():
            for k, image in enumerate(wide):
                out[k, some] = ((across @ image.T) * down).sum(1)
        return out.mul_(self._scale)

    def adjoint(self, y: Tensor) -> Tensor:
        """complex (images, points) -> complex128 (images, rows, columns)."""
        wide = y.to(torch.complex128)
        out = wide.new_zeros(len(wide), *self.shape)
        for some, (down, across) in self._waves():
            for k, samples in enumerate(wide[:, some]):
                out[k] += (down.conj() * samples[:, None]).T @ across.conj()
        return out.mul_(self._scale)

    def _waves(self) -> list[tuple[slice, tuple[Tensor, Tensor]]]:
        parts = [slice(at, at + _POINTS_AT_ONCE) for at in range(0, len(self._points), _POINTS_AT_ONCE)]
        return [(part, waves(self._points[part], self.shape)) for part in parts]


def waves(points: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """exp(-2 pi i k n / size) of each point along rows and along columns: (points, rows), (points, columns)."""
    made = []
    for axis, size in ((1, shape[0]), (0, shape[1])):
        places = (torch.arange(size, dtype=torch.float64) - size // 2) * (-2 * math.pi / size)
        made.append(torch.polar(torch.ones(()).double(), points[:, axis, None] * places))
    return made[0], made[1]


class Gridding:
    """The same by interpolation on an oversampled grid; forward and adjoint are exact transposes of each other.

    points: (points, 2) as above.  dtype: complex64 or complex128, whose accuracy follows unless it is given:
    oversampling of the grid and width of the kernel.
    """

    def __init__(
        self, points: np.ndarray, shape: tuple[int, int], *, device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.complex64, accuracy: tuple[float, int] | None = None,
    ) -> None:  # fmt: skip
        self.shape, self.device, self.dtype = shape, torch.device(device), dtype
        oversampling, self._width = accuracy or _ACCURACY[dtype]
        self._beta = math.pi * math.sqrt((self._width / oversampling * (oversampling - 0.5)) ** 2 - 0.8)
        self._grid = _even(oversampling * shape[0]), _even(oversampling * shape[1])
        self._first = tuple(g // 2 - n // 2 for g, n in zip(self._grid, shape, strict=True))
        self._interpolate, self._spread = self._matrices(np.asarray(points, np.float64).reshape(-1, 2))
        down, across = (self._correction(n, g) for n, g in zip(shape, self._grid, strict=True))
        scale = 1 / math.sqrt(shape[0] * shape[1])
        self._correct = (down[:, None] * across * scale).to(self.device, dtype.to_real())
        self._at_once = IMAGES_AT_ONCE.get(self.device.type, 4)

    @property
    def points(self) -> int:
        """How many there are."""
        return int(self._interpolate.shape[0])

    def forward(self, images: Tensor) -> Tensor:
        """(images, rows, columns) -> (images, points)."""
        (top, left), (rows, columns) = self._first, self.shape
        out = images.new_empty(len(images), self.points)
        for at in range(0, len(images), self._at_once):
            some = images[at : at + self._at_once]
            padded = some.new_zeros(len(some), *self._grid)
            padded[:, top : top + rows, left : left + columns] = some * self._correct
            out[at : at + len(some)] = self._product(self._interpolate, torch.fft.fft2(padded).flatten(1))
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        """(images, points) -> (images, rows, columns)."""
        (top, left), (rows, columns) = self._first, self.shape
        out = y.new_empty(len(y), rows, columns)
        for at in range(0, len(y), self._at_once):
            some = y[at : at + self._at_once]
            spread = self._product(self._spread, some).unflatten(1, self._grid)
            padded = torch.fft.ifft2(spread, norm="forward")
            out[at : at + len(some)] = padded[:, top : top + rows, left : left + columns] * self._correct
        return out

    def smoothed(self, weights: Tensor) -> Tensor:
        """Real (points): what each point sees of all through the kernel twice, which is how densely they lie."""
        column = weights.to(self.device, self.dtype.to_real())[:, None]
        return (self._interpolate.abs() @ (self._spread.abs() @ column))[:, 0]

    @staticmethod
    def _product(matrix: Tensor, values: Tensor) -> Tensor:
        """A real sparse matrix times complex columns that lie in rows."""
        columns = torch.view_as_real(values.T.contiguous()).flatten(1)
        return torch.view_as_complex((matrix @ columns).unflatten(1, (-1, 2))).T.contiguous()

    def _matrices(self, points: np.ndarray) -> tuple[Tensor, Tensor]:
        """The interpolation as a sparse matrix, and its transpose.

        The image lies in the middle of the padded one, so that its spectrum has the sign (-1)^(row + column).
        """
        rows, weights = [], []
        for axis, size, wide in ((1, self.shape[0], self._grid[0]), (0, self.shape[1], self._grid[1])):
            place = points[:, axis] * (wide / size)
            first = np.ceil(place - self._width / 2).astype(np.int64)
            index = first[:, None] + np.arange(self._width)
            inside = np.clip(1 - (2 * (place[:, None] - index) / self._width) ** 2, 0, None)
            weight = np.i0(self._beta * np.sqrt(inside)) * np.where(index % 2, -1.0, 1.0)
            rows.append(index % wide)
            weights.append(weight)
        places = (rows[0][:, :, None] * self._grid[1] + rows[1][:, None, :]).reshape(len(points), -1)
        values = (weights[0][:, :, None] * weights[1][:, None, :]).reshape(len(points), -1)
        each, many = places.shape[1], self._grid[0] * self._grid[1]
        starts = torch.arange(len(points) + 1, dtype=torch.int64) * each
        order = np.argsort(places, axis=1)
        columns = torch.from_numpy(np.take_along_axis(places, order, 1).reshape(-1))
        numbers = torch.from_numpy(np.take_along_axis(values, order, 1).reshape(-1)).to(self.dtype.to_real())
        interpolate = torch.sparse_csr_tensor(starts, columns, numbers, (len(points), many), check_invariants=False)
        by_place = torch.argsort(columns, stable=True)
        counted = torch.bincount(columns, minlength=many)
        begins = torch.cat([torch.zeros(1, dtype=torch.int64), counted.cumsum(0)])
        owners = torch.div(by_place, each, rounding_mode="floor")
        spread = torch.sparse_csr_tensor(begins, owners, numbers[by_place], (many, len(points)), check_invariants=False)
        return interpolate.to(self.device), spread.to(self.device)

    def _correction(self, size: int, wide: int) -> Tensor:
        """One over the Fourier transform of the kernel at each pixel."""
        place = (torch.arange(size, dtype=torch.float64) - size // 2) / wide
        root = (self._beta**2 - (math.pi * self._width * place) ** 2).sqrt()  # the kernel is wide enough: positive
        return root / (self._width * root.sinh())


def exact_samples(points: np.ndarray, shape: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """complex128 (images, rows, columns) -> (images, points): what :class:`DirectTransform` gives, to 1e-9, faster."""
    places = np.asarray(points, np.float64).reshape(-1, 2)
    parts = [places[at : at + _POINTS_AT_ONCE] for at in range(0, len(places), _POINTS_AT_ONCE)]
    made = [Gridding(part, shape, dtype=torch.complex128, accuracy=(2.0, 10)) for part in parts]
    return lambda images: torch.cat([part.forward(images) for part in made], 1)


def _even(least: float) -> int:
    """The next even size whose transform is quick: of factors 2, 3 and 5."""
    size = 2 * math.ceil(least / 2)
    while _left_over(size) > 1:
        size += 2
    return size


def _left_over(size: int) -> int:
    for factor in (2, 3, 5):
        while size % factor == 0:
            size //= factor
    return size
