"""How large errors are, voxel by voxel, read off the signals of a run: a log-linear model for each kind of tissue, of
MRI one for scans by one coil and one for those by many, which a small network corrects.

log |error| is regressed on logarithms of the signals' sizes, at each voxel and in two windows around it, by least
squares (Harvey 1976, doi 10.2307/1913974).  Sums over people are all that it needs, so that a model without one of them
is another solution of a small system.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .conformal import Classes
from .refine import Refinement, inputs_of
from .signals import NAMES

SHARES = (0.9, 0.95)  # of the errors that lie within half-widths, once the scale is multiplied for each
WINDOWS = (5, 13)  # pixels across
TEXTURES = (5, 13, 25)  # likewise, of the spread of values: grain, edges, how busy a place is
_POINT, _AREA = 2e-3, 1e-5  # below them sizes and mean energies count as nothing, in the value scale: 4 and 6 HU
_LEVELS, _NARROW = (0.0, 0.5), 0.03  # of air and water, which errors depend on beside them
_LEAST, _MOST = -9.0, 0.0  # of the logarithm of an error
_RIDGE = 1.5e-4  # relative to the weight of all people
_FIELDS = len(NAMES)  # the signals without the value, and its gradient
FEATURES = _FIELDS * (1 + len(WINDOWS)) + len(TEXTURES) + 2 + len(WINDOWS) + len(_LEVELS) + len(NAMES) - 1 + 1


def features_at(maps: Tensor) -> Tensor:
    """Features (slices, FEATURES, rows, columns) of signals (slices, len(NAMES), rows, columns), all of order 1."""
    value = maps[:, :1]
    gradient = torch.zeros_like(value)
    gradient[:, :, 1:-1, 1:-1] = torch.hypot(
        value[:, :, 2:, 1:-1] - value[:, :, :-2, 1:-1], value[:, :, 1:-1, 2:] - value[:, :, 1:-1, :-2]
    )
    fields = torch.cat([maps[:, 1:], gradient], dim=1)
    energies = fields.square()
    sizes = (maps[:, 1:].square().mean(dim=(2, 3), keepdim=True).sqrt() + 1e-4).log()  # few views from many
    return torch.cat(
        [
            (fields.abs() + _POINT).log(),
            *((_mean(energies, window) + _AREA).log() / 2 for window in WINDOWS),
            *((_mean((value - _mean(value, n)).square(), n) + _AREA).log() / 2 for n in TEXTURES),
            value,
            value.square(),
            *(_mean(value, window) for window in WINDOWS),
            *(torch.exp(-(((value - level) / _NARROW) ** 2)) for level in _LEVELS),
            sizes.expand(-1, -1, *value.shape[2:]),
            torch.ones_like(value),
        ],
        dim=1,
    )


def _mean(x: Tensor, window: int) -> Tensor:
    padded = F.pad(x, [window // 2] * 4, mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, (window, 1), 1), (1, window), 1)  # far fewer sums than in squares


@dataclass(frozen=True)
class Sums:
    """Of known runs, for each class: features by features, and features by log errors, in float64."""

    squares: Tensor
    products: Tensor

    @classmethod
    def of(cls, maps: Tensor, error: Tensor, kinds: Tensor, classes: Classes) -> Sums:
        """Of one run, whose voxels weigh 1 in all.  error: absolute, (slices, rows, columns); kinds: of the voxels."""
        features = features_at(maps).double().movedim(1, -1).reshape(-1, FEATURES)
        log_error, index = (error.double() + _POINT).log().reshape(-1), kinds.reshape(-1)
        squares, products = [], []
        for kind in range(len(classes.names)):
            mine = features[index == kind]
            squares.append(mine.T @ mine)
            products.append(mine.T @ log_error[index == kind])
        return cls(torch.stack(squares) / len(features), torch.stack(products) / len(features))

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.squares + other.squares, self.products + other.products)

    def __sub__(self, other: Sums) -> Sums:
        return Sums(self.squares - other.squares, self.products - other.products)

    def times(self, factor: float) -> Sums:
        return Sums(self.squares * factor, self.products * factor)

    def solved(self) -> ErrorScale:
        """The model with the least squared misfit; a class that nobody has gets that of all voxels."""
        whole = self.squares.sum(dim=0)
        ridge = _RIDGE * whole[-1, -1] * torch.eye(FEATURES, dtype=whole.dtype)  # the last feature is 1
        of_all = torch.linalg.solve(whole + ridge, self.products.sum(dim=0))
        centred = self.products - self.squares @ of_all  # what a class has of its own is drawn to what all have
        own = torch.linalg.solve(self.squares + ridge, centred)
        return ErrorScale((of_all + own).float()[None])


@dataclass(frozen=True)
class ErrorScale:
    """coefficients: (1 or 2, classes, FEATURES), the second ones of many coils, whose maps are estimated: their errors
    come from other causes.  refinement: what corrects it.
    """

    coefficients: Tensor
    refinement: Refinement | None = None

    def __call__(self, maps: Tensor, kinds: Tensor, coils: int = 1, amount: float = 1.0) -> Tensor:
        """Sizes of errors (slices, rows, columns) in the value scale, up to a factor for each class and share.

        coils and amount: of the kind of scan, how little was measured.
        """
        scales = []
        for one, kind in zip(maps, kinds.to(maps.device), strict=True):  # slice by slice: features take memory
            features = features_at(one[None])[0].movedim(0, -1).reshape(-1, FEATURES)
            scales.append(self.logs(features, kind.reshape(-1), coils, amount).exp().reshape(kind.shape))
        return torch.stack(scales)

    def logs(self, features: Tensor, kinds: Tensor, coils: int, amount: float) -> Tensor:
        """Their logarithms, of features (voxels, FEATURES) and classes of voxels."""
        weights = self.coefficients[min(coils, len(self.coefficients)) - 1].to(features.device)
        told = (features @ weights.T).gather(1, kinds[:, None])[:, 0]
        if self.refinement:
            told = told + self.refinement(inputs_of(features, kinds, len(weights), amount, coils))
        return told.clamp(_LEAST, _MOST)
