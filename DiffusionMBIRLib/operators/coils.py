"""Fewer coils at each position along a fully sampled axis.

Coils that differ across the whole slice are much alike along one line of it: of eight, five tell all that is above the
noise.  Any unitary mixing of the coils of a line keeps the problem as it is, and white noise white; the best one puts
most of the signal into few (geometric-decomposition coil compression, Zhang et al. 2013, doi 10.1002/mrm.24267).  Here
the maps are mixed along with the data, so that the mixings of neighbouring lines need not agree.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .slabs import WHOLE, Slabs


def local_coils(maps: Tensor, image: Tensor, axis: int, spill: float, slabs: Slabs = WHOLE) -> Tensor:
    """Mixing (positions, virtual coils, coils): at each position the combinations with most signal first.

    maps: (slices or 1, coils, rows, columns).  image: (slices, rows, columns), of which the magnitude counts.  axis: -2
    or -1, the positions.  As few coils are kept, the same number everywhere, as leave out a signal of ``spill`` at
    most: the mean over the pixels that any coil sees of |what the left-out coils see|^2.
    slabs: who holds the other slices, which count as well.
    """
    energy, seen = None, torch.zeros((), dtype=torch.int64, device=maps.device)
    for k, magnitude in enumerate(image.abs()):
        own = maps[k % len(maps)].movedim(axis, 0)  # (positions, coils, others)
        weighted = own * magnitude.movedim(axis, 0)[:, None]
        products = weighted @ weighted.mH
        energy = products if energy is None else energy.add_(products)
        seen += (own != 0).any(1).sum()
    assert energy is not None
    energy, seen = slabs.total(energy), slabs.total(seen)
    values, vectors = torch.linalg.eigh(energy.to(torch.complex128))  # rising
    left_out = values.clamp_min(0).sum(0).cumsum(0) / seen.clamp_min(1)
    kept = max(1, len(left_out) - int((left_out <= spill).sum()))
    return vectors.flip(-1)[..., :kept].mH.to(maps.dtype).contiguous()


def mixed(mixing: Tensor, data: Tensor, axis: int) -> Tensor:
    """Coils of data or maps (slices, coils, rows, columns) combined at each position along ``axis``."""
    if axis == -1:
        return mixed(mixing, data.transpose(-2, -1), -2).transpose(-2, -1).contiguous()
    return torch.einsum("pkc,scpn->skpn", mixing, data).contiguous()
