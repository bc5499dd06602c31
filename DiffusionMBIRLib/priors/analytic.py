"""A prior whose posterior mean is known in closed form: the ground truth that samplers are tested against."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InputError
from ..models import ModelCard, ValueScale


class GaussianPrior:
    """Images x0 ~ N(mean, C) with C stationary (periodic) or white, in the value scale of the card.

    mean: a number or (rows, columns).  spectrum: the eigenvalues of C, all >= 0: one number (independent pixels of that
    variance, images of any size) or (rows, columns), the power in the orthonormal 2D Fourier basis.  Computes in the
    type and on the device of what it is given, so that tests may use float64.
    """

    def __init__(
        self,
        mean: float | Tensor,
        spectrum: float | Tensor,
        *,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        value: ValueScale | None = None,
    ) -> None:
        self.mean = torch.as_tensor(mean, dtype=torch.float64)
        self.spectrum = torch.as_tensor(spectrum, dtype=torch.float64)
        if self.spectrum.ndim not in (0, 2) or self.mean.ndim not in (0, 2):
            raise InputError("mean and spectrum must be numbers or have two axes (rows, columns)")
        if not bool((self.spectrum >= 0).all()):
            raise InputError("spectrum holds negative or undefined power; a covariance has none")
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.card = ModelCard(
            id="gaussian",
            modality="any",
            title="Gaussian prior in closed form",
            value=value or ValueScale(),
            sigma_data=math.sqrt(max(float(self.spectrum.mean()), 1e-12)),
            sigma_min=sigma_min,
            sigma_max=sigma_max,
            limits="For tests of samplers only.",
        )

    @property
    def reach(self) -> int | None:
        """Pixels around a pixel that count for it: none where all are independent, else all of the image (None)."""
        return None if self.mean.ndim or self.spectrum.ndim else 0

    @classmethod
    def from_covariance(cls, mean: float | Tensor, covariance: Tensor) -> GaussianPrior:
        """From the covariance (rows, columns) of pixel (0, 0) with every pixel; periodic, so C is circulant."""
        spectrum = torch.fft.fft2(covariance.double()).real
        rounding = 1e-9 * float(spectrum.abs().max())
        return cls(mean, torch.where(spectrum.abs() < rounding, 0.0, spectrum))

    @classmethod
    def smooth(
        cls, shape: tuple[int, int], *, mean: float = 0.5, deviation: float = 0.2, length_px: float = 3.0
    ) -> GaussianPrior:
        """Smooth textures: standard deviation ``deviation``, Gaussian correlation of ``length_px`` pixels."""
        rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64) for n in shape)
        power = torch.exp(-2 * (math.pi * length_px) ** 2 * (rows[:, None] ** 2 + columns**2))
        return cls(mean, deviation**2 * power / power.mean())

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x0 + sigma n = x] = mean + C (C + sigma^2)^-1 (x - mean); x (slices, channels, rows, columns)."""
        mean, spectrum = self._like(x)
        return mean + self._filtered(x - mean, spectrum / (spectrum + sigma**2) if sigma else torch.ones_like(spectrum))

    def log_density(self, x: Tensor, sigma: float) -> Tensor:
        """ln p(x; sigma) of x = x0 + sigma n for each (slice, channel): N(mean, C + sigma^2), sigma > 0."""
        mean, spectrum = self._like(x)
        pixels = x.shape[-2] * x.shape[-1]
        variance = (spectrum + sigma**2).expand(x.shape[-2:])
        white = torch.fft.fft2(x - mean, norm="ortho").abs().square() / variance
        return -0.5 * (white.sum((-2, -1)) + variance.log().sum() + pixels * math.log(2 * math.pi))

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> Tensor:
        """Images (slices, channels, rows, columns) from the prior, float64 on the CPU."""
        white = torch.randn(shape, generator=generator, dtype=torch.float64)
        mean, spectrum = self._like(white)
        return mean + self._filtered(white, spectrum.sqrt())

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for name, values in (("mean", self.mean), ("spectrum", self.spectrum)):
            if values.ndim and values.shape != x.shape[-2:]:
                raise InputError(f"the prior's {name} is {tuple(values.shape)}, the images are {tuple(x.shape[-2:])}")
        return self.mean.to(x), self.spectrum.to(x)

    @staticmethod
    def _filtered(x: Tensor, gain: Tensor) -> Tensor:
        if gain.ndim == 0:
            return x * gain
        return torch.fft.ifft2(torch.fft.fft2(x) * gain).real
