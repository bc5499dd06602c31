"""What filtered back-projections share: the ramp, and how much each view counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import InputError

_EDGE = 3  # columns at a side of the detector
_CUT_OFF = 0.05  # of the largest value: an edge that sees more is one of a row that is cut off


def angular_weights(angles_deg: Sequence[float], period_deg: float = 180.0) -> Tensor:
    """The share in radians of the half circle, or of another period, that each view stands for: half the gap to each
    neighbour.

    Gaps wider than three times the median (the missing wedge of a limited-angle scan) count as the median.  Views of
    the same line of parallel beams from its two ends, as in a scan over 360 degrees, share its weight.
    """
    angle = torch.tensor(angles_deg, dtype=torch.float64).remainder(period_deg)
    order = torch.argsort(angle)
    gaps = torch.diff(angle[order], append=angle[order][:1] + period_deg)
    usual = gaps[gaps > 1e-6].median()
    gaps = torch.where(gaps > 3 * usual, usual, gaps)
    weights = torch.empty_like(angle)
    weights[order] = (gaps + gaps.roll(1)) / 2
    return weights * math.pi / 180.0


def ramp_filter(y: Tensor, pitch_mm: float, window: str, *, turn: float = 0.0) -> Tensor:
    """Convolve detector rows (last axis) with the band-limited ramp (Kak and Slaney 1988, equation 3.61).

    Rows that are cut off - their edges see the object in most views - go on beyond them, falling to zero over half of
    their width; else the ramp makes a bright rim of each edge.
    window: 'ramp' or 'hann', which damps high frequencies.  turn: of an arc about the source, the angle in radians from
    one column to the next, which curves the ramp (equation 3.115).
    """
    if window not in ("ramp", "hann"):
        raise InputError(f"filter {window!r} is not known; use ramp or hann")
    y, first, kept = *_extended(y), y.shape[-1]
    columns = y.shape[-1]
    length = max(64, 2 ** math.ceil(math.log2(2 * columns)))
    n = torch.arange(length, device=y.device)
    n = torch.minimum(n, length - n).to(torch.float64)
    kernel = torch.where(n % 2 == 1, -1.0 / (math.pi * n * pitch_mm).clamp_min(1e-30).square(), 0.0)
    if turn:
        kernel *= (n * turn / torch.sin(n * turn).clamp_min(1e-30)).square() * (n < columns)
    kernel[0] = 1.0 / (4 * pitch_mm**2)
    response = torch.fft.rfft(kernel).real * pitch_mm
    if window == "hann":
        response = response * (0.5 + 0.5 * torch.cos(torch.linspace(0, math.pi, len(response), device=y.device)))
    spectrum = torch.fft.rfft(y.contiguous(), length) * response.to(y.dtype)
    return torch.fft.irfft(spectrum, length)[..., first : first + kept]


def _extended(y: Tensor) -> tuple[Tensor, int]:
    """Rows with what they lack at the sides that are cut off, and where the first column lies now."""
    columns, most = y.shape[-1], float(y.abs().max())
    sides = [y[..., :_EDGE].mean(-1, keepdim=True), y[..., -_EDGE:].mean(-1, keepdim=True)]
    cut = [columns > 2 * _EDGE and float(side.abs().median()) > _CUT_OFF * most for side in sides]
    if not any(cut):
        return y, 0
    fall = torch.linspace(0, math.pi / 2, columns // 2 + 1, device=y.device, dtype=y.dtype)[1:].cos().square()
    parts = [sides[0] * fall.flip(0)] * cut[0] + [y] + [sides[1] * fall] * cut[1]
    return torch.cat(parts, dim=-1), len(fall) * cut[0]
