"""The mean of posterior samples and how far they spread, one sample after another."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..checkpoints import fitting, form_of


class Moments:
    """Running mean and spread of volumes of one shape (Welford 1962, doi 10.1080/00401706.1962.10490022).

    mean: of the volumes.  Complex volumes are looked at as magnitudes, so that their spread is that of |x|, while their
    mean stays complex.
    """

    def __init__(self, like: Tensor, stored: Mapping[str, Tensor]) -> None:
        """like: gives shape, layout and type.  stored: what :meth:`state` gave, to go on from there, or nothing.

        Raises ValueError for what another volume left.
        """
        self._complex = like.is_complex()
        seen = like.real if self._complex else like
        if stored:
            forms = {"mean": form_of(like), "squares": form_of(seen)}
            stored = fitting(stored, forms | {"seen": form_of(seen)} if self._complex else forms)
        self.mean = stored.get("mean", torch.zeros_like(like))
        self._squares = stored.get("squares", torch.zeros_like(seen))
        self._seen = stored.get("seen", torch.zeros_like(seen)) if self._complex else self.mean

    def add(self, x: Tensor, number: int) -> None:
        """Take in the sample of this number, counted from 1."""
        seen = x.abs() if self._complex else x
        off = seen - self._seen
        if self._complex:
            self._seen += off / number
        self.mean += (x - self.mean) / number
        self._squares.addcmul_(off, seen - self._seen)

    def deviation(self, count: int) -> Tensor:
        """The standard deviation over ``count`` > 1 samples."""
        return (self._squares / (count - 1)).clamp_(min=0).sqrt_()

    def state(self) -> dict[str, Tensor]:
        """What must be kept to go on with further samples."""
        entries = {"mean": self.mean, "squares": self._squares}
        return entries | {"seen": self._seen} if self._complex else entries
