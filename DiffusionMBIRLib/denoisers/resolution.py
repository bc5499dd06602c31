"""Pixel sizes: a prior told of them, and one of coarser pixels on finer slices, with the right statistics of noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..geometry import Grid
from ..priors.base import Prior

_SAME = 0.05  # relative difference of pixel sizes that counts as none: a prior has seen bodies of more unlike sizes


def at_pixel_size(prior: Any, grid: Grid, axes: Sequence[int] = (0,)) -> Any:
    """The prior for the planes of a grid that are stacked along some of its axes, slices by default: told of the
    pixels' size, the geometric mean of their sides, where it knows of sizes; else as it is.
    """
    tell = getattr(prior, "at_pixel_size", None)
    sides = [side for axis in axes for k, side in enumerate(grid.spacing_mm[::-1]) if k != axis]
    return tell(math.prod(sides) ** (1 / len(sides))) if tell else prior


class ResolutionPrior:
    """A prior shown the means of blocks of pixels, at the pixel size that it was trained at.

    P takes the means of blocks of a x b pixels, U spreads a block's value over its pixels, so that P U = 1 and U P is
    the orthogonal projection onto what is constant in each block.  Of x = x0 + sigma n with white noise n, P x is
    P x0 + sigma / sqrt(a b) n' with n' white again, and independent of the noise in the detail x - U P x.  If P x0
    follows the prior and the detail of x0 is Gaussian around zero, of standard deviation tau and independent of P x0,

        E[x0 | x] = U D(P x; sigma / sqrt(a b)) + tau^2 / (tau^2 + sigma^2) (x - U P x)

    exactly: the change of the coarse image is given back, and the detail is shrunk.  tau = inf knows nothing of the
    detail and leaves it, noise and all, to the data.

    Limits: detail finer than the prior's pixels is not denoised as anatomy, whose edges it depends on: choose tau from
    images of that pixel size.  Whole factors only, and slices that they divide: any other resampling makes the noise
    correlated, which no prior of white noise was trained for.  For the same reason a prior of finer pixels than the
    volume's cannot be used.

    factors: (a, b), pixels a block along rows and columns.  detail: tau, in the value scale.
    Raises InputError for factors or detail that are out of range.
    """

    def __init__(self, prior: Prior, factors: tuple[int, int], *, detail: float) -> None:
        if any(not isinstance(factor, int) or factor < 1 for factor in factors):
            raise InputError(f"factors {factors}: pixels a block must be whole numbers from 1 on")
        if not detail >= 0:
            raise InputError(f"detail {detail}: a standard deviation is 0 or more (inf: not known)")
        self.prior, self.factors, self.detail = prior, factors, detail
        self.card, self._gain = prior.card, math.sqrt(math.prod(factors))
        self.sigma_min, self.sigma_max = prior.sigma_min * self._gain, prior.sigma_max * self._gain

    @classmethod
    def between(
        cls, prior: Prior, prior_mm: tuple[float, float], volume_mm: tuple[float, float], *, detail: float
    ) -> ResolutionPrior:
        """For a prior of pixels of one size on a volume of another, both (rows, columns) in mm.

        Raises InputError unless the prior's are whole multiples of the volume's, within 5 percent.
        """
        ratios = [coarse / fine for coarse, fine in zip(prior_mm, volume_mm, strict=True)]
        rows, columns = (max(1, round(ratio)) for ratio in ratios)
        if any(abs(ratio / factor - 1) > _SAME for ratio, factor in zip(ratios, (rows, columns), strict=True)):
            raise InputError(
                f"prior {prior.card.id!r} has pixels of {prior_mm[0]:g} x {prior_mm[1]:g} mm, which is no whole "
                f"multiple of the volume's {volume_mm[0]:g} x {volume_mm[1]:g} mm; choose another grid"
            )
        return cls(prior, (rows, columns), detail=detail)

    def at_pixel_size(self, pixel_mm: float) -> ResolutionPrior:
        """The same on slices of pixels of this side, of which the inner prior is told the coarser ones'."""
        tell = getattr(self.prior, "at_pixel_size", None)
        if tell is None:
            return self
        return ResolutionPrior(tell(pixel_mm * self._gain), self.factors, detail=self.detail)

    @property
    def multiple(self) -> int:
        """Of the prior, in pixels of the volume; tiles that begin there cut no block."""
        of_prior: int = getattr(self.prior, "multiple", 1)
        return of_prior * math.lcm(*self.factors)

    @property
    def reach(self) -> int | None:
        """Of the prior, in pixels of the volume."""
        of_prior: int | None = getattr(self.prior, "reach", None)
        return None if of_prior is None else (of_prior + 1) * max(self.factors) - 1

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x] under the model above; x (slices, channels, rows, columns), whose sides the factors divide.

        Raises InputError for other sizes.
        """
        if any(side % factor for side, factor in zip(x.shape[-2:], self.factors, strict=True)):
            raise InputError(
                f"slices of {x.shape[-2]} x {x.shape[-1]} pixels cannot be cut into blocks of {self.factors[0]} x "
                f"{self.factors[1]}; choose a grid that they divide"
            )
        coarse = F.avg_pool2d(x, self.factors)
        clean = self._spread(self.prior.denoise(coarse, sigma / self._gain))
        if sigma == 0 or self.detail == math.inf:
            return clean + (x - self._spread(coarse))
        kept = self.detail**2 / (self.detail**2 + sigma**2)
        return clean + kept * (x - self._spread(coarse))

    def _spread(self, coarse: Tensor) -> Tensor:
        rows, columns = self.factors
        return coarse.repeat_interleave(rows, -2).repeat_interleave(columns, -1)
