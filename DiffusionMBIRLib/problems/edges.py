"""What line integrals lose where neighbouring detector rows see unlike things.

A detector cell adds up photons, so that it reports -log of the mean of exp(-p) over its rays, and that lies below the
mean of p by about half the variance of p within the cell: the exponential edge-gradient effect (Joseph and Spital 1981,
Phys Med Biol 26, 473).  Along a slope from row to row that is a 24th of its square, and can be given back.  It is
largest where the ends of a volume cut cells in two, and there the slope is not known: half a cell of 5 reads as 0.7.
No voxel explains that, but a solver that is to fit it finds some that do, along the whole way of the ray.
"""

from __future__ import annotations

import torch
from torch import Tensor

_OF_A_SLOPE = 1 / 24  # half the variance within a cell, of a slope of 1 from cell to cell
_AT_ONCE = 1 << 22  # line integrals whose differences are held at a time


def lost_at_edges(measured: Tensor) -> tuple[Tensor, Tensor]:
    """By how much line integrals (rows, views, columns) lie below their cells' means, and how far that may be off.

    A cell has the smaller of the slopes to its two neighbours, and none where they have not one sign: a whole cell
    beside one that is cut loses nothing.  How unlike the two slopes are says how far that may be off.  Beyond the first
    and the last row the slope goes on.
    """
    if measured.shape[0] < 2:
        return torch.zeros_like(measured), torch.zeros_like(measured)
    slopes = measured.diff(dim=0)
    before, after = torch.cat([slopes[:1], slopes]), torch.cat([slopes, slopes[-1:]])
    alike = before * after > 0
    before.abs_(), after.abs_()
    smaller = torch.minimum(before, after)
    unsure = torch.maximum(before, after).sub_(smaller).mul_(smaller).mul_(_OF_A_SLOPE)
    return smaller.square_().mul_(_OF_A_SLOPE).mul_(alike), unsure


def give_back(measured: Tensor, variance: Tensor | None = None) -> None:
    """Raise line integrals, in place, by what they have lost, and their variance by how unsure that is, squared."""
    rows, views, columns = measured.shape
    step = max(1, _AT_ONCE // (rows * columns))
    for first in range(0, views, step):
        some = measured[:, first : first + step]
        lost, unsure = lost_at_edges(some)
        some += lost
        if variance is not None:
            variance[:, first : first + step] += unsure.square_()
