"""The data step of slice-wise diffusion: a gradient step onto the data, without coupling between slices.

For MRI x + A^H (y - A x), for CT divided by how much each pixel was measured, A^T A 1, as in algebraic reconstruction.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..operators.base import LinearOperator
from .consistency import DataFit


class Projection(DataFit):
    """x + A^H (y - A x) / reach, ``steps`` times.

    For one coil of MRI, with reach 1, it puts the measured samples in their places.  normalised: reach = A^T A 1, for
    operators that sum many pixels into a value; pixels that nothing has measured stay.
    """

    def __init__(self, A: LinearOperator, y: Tensor, *, normalised: bool = False, steps: int = 1) -> None:
        super().__init__(A, y)
        self.steps = steps
        self._share: Tensor | None = None
        if normalised:
            reach = A.gram(A.domain.ones())
            self._share = torch.where(reach > 1e-6 * A.domain.slabs.largest(reach.max()), 1 / reach, 0.0)

    def __call__(self, x: Tensor, sigma: float | None = None) -> Tensor:
        """x: (slices, rows, columns).  Returns the updated volume."""
        for _ in range(self.steps):
            step = self.gradient(x).neg_()
            x = step.add_(x) if self._share is None else torch.addcmul(x, step, self._share)
        return x
