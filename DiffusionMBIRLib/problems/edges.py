"""How far off line integrals are where neighbouring detector rows see unlike things.

A detector cell adds up photons, so that it reports -log of the mean of exp(-p) over its rays, and that lies below the
mean of p by about half the variance of p within the cell: the exponential edge-gradient effect (Joseph and Spital 1981,
Phys Med Biol 26, 473).  It is largest where the ends of a volume cut cells in two: half a cell of 5 reads as 0.7.  No
voxel explains that, but a solver that is to fit it finds some that do, along the whole way of the ray.
"""

from __future__ import annotations

import torch
from torch import Tensor

_OF_A_SLOPE = 1 / 24  # half the variance within a cell, of a slope of 1 from cell to cell


def lost_at_edges(measured: Tensor) -> Tensor:
    """About how far line integrals (rows, views, columns) lie below the mean over their cells' height, as large.

    It is read off the differences to both neighbours, and is 0 where one of them is: a cell that is not cut beside one
    that is counts in full.  Beyond the first and the last row the slope goes on.
    """
    if measured.shape[0] < 2:
        return torch.zeros_like(measured)
    slopes = measured.diff(dim=0)
    lost = torch.empty_like(measured)
    torch.mul(slopes[1:], slopes[:-1], out=lost[1:-1])
    torch.mul(slopes[0], slopes[0], out=lost[0])
    torch.mul(slopes[-1], slopes[-1], out=lost[-1])
    return lost.abs_().mul_(_OF_A_SLOPE)
