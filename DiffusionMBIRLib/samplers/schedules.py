"""Noise schedules: lists of sigma from high to low, without the final zero."""

from __future__ import annotations

import math

from ..errors import InputError


def _check(sigma_min: float, sigma_max: float, levels: int) -> None:
    if levels < 1:
        raise InputError(f"levels must be at least 1, not {levels}")
    if not 0 < sigma_min <= sigma_max:
        raise InputError(f"noise levels need 0 < sigma_min <= sigma_max, not {sigma_min} and {sigma_max}")


def karras_sigmas(sigma_min: float, sigma_max: float, levels: int, rho: float = 7.0) -> list[float]:
    """Spacing by the rho-th root (Karras et al. 2022, equation 5)."""
    _check(sigma_min, sigma_max, levels)
    if levels == 1:
        return [sigma_max]
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(high + (low - high) * k / (levels - 1)) ** rho for k in range(levels)]


def geometric_sigmas(sigma_min: float, sigma_max: float, levels: int) -> list[float]:
    """The variance-exploding schedule of Song et al. 2021: constant ratio from one level to the next."""
    _check(sigma_min, sigma_max, levels)
    if levels == 1:
        return [sigma_max]
    ratio = math.log(sigma_min / sigma_max) / (levels - 1)
    return [sigma_max * math.exp(ratio * k) for k in range(levels)]
