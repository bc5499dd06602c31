"""Resampling by two with a finite impulse response filter, in place of pooling and nearest neighbours.

The filter is separable and suppresses aliases; zeros lie beyond the border.  Source: Karras et al. 2020 (StyleGAN2,
arXiv 1912.04958, appendix B) after Zhang 2019 (arXiv 1904.11486); NCSN++ uses the taps 1, 3, 3, 1 (Song et al. 2021,
arXiv 2011.13456, appendix H.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError


def fir_kernel(taps: Sequence[float]) -> Tensor:
    """The (n, n) outer product of n symmetric taps, n even, with sum 1; InputError for other taps."""
    total = sum(taps)
    if len(taps) % 2 or list(taps) != list(taps)[::-1] or not total:
        raise InputError(f"a FIR filter needs an even number of symmetric taps, such as 1, 3, 3, 1; not {tuple(taps)}")
    line = torch.tensor([tap / total for tap in taps], dtype=torch.float32)
    return torch.outer(line, line)


def _per_channel(x: Tensor, kernel: Tensor) -> Tensor:
    return kernel.to(x.dtype).expand(x.shape[1], 1, *kernel.shape)


def fir_down(x: Tensor, kernel: Tensor) -> Tensor:
    """Filter and keep every second pixel: (batch, channels, 2 rows, 2 columns) -> (batch, channels, rows, columns)."""
    return F.conv2d(x, _per_channel(x, kernel), stride=2, padding=len(kernel) // 2 - 1, groups=x.shape[1])


def fir_up(x: Tensor, kernel: Tensor) -> Tensor:
    """Insert zeros and filter with gain 4: (batch, channels, rows, columns) -> (batch, channels, 2 rows, 2 columns).

    The transpose of filtering and decimating, but for the gain, which keeps the mean.
    """
    return F.conv_transpose2d(x, _per_channel(x, 4 * kernel), stride=2, padding=len(kernel) // 2 - 1, groups=x.shape[1])


def fir_convolve_down(x: Tensor, kernel: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Filter at full resolution, then convolve with weight (out, in, 3, 3) at stride 2; sides are halved."""
    # The border grows so that the two centres fall together: n - 2 for the filter and 2 for the convolution.
    smooth = F.conv2d(x, _per_channel(x, kernel), padding=len(kernel) // 2, groups=x.shape[1])
    return F.conv2d(smooth, weight, bias, stride=2)
