"""Networks behind the Prior contract, whatever they were trained to predict: clean images, scores or noise.

All of them are asked the same: E[x0 | x], where x = x0 + sigma n in the value scale of the card.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from ..devices import arithmetic
from ..errors import EngineError
from ..models import ModelCard
from .base import is_out_of_memory
from .compact import CompactUNet, edm_denoise, pad_to_multiple


class NetworkPrior(ABC):
    """What the priors with a network share: padding to the sizes that it takes, and precision.

    network: takes images whose sides are a multiple of ``multiple``, on its own device; images are brought there and
    results back.  precision: of the arithmetic inside the network; anything but float32 works through autocast.
    """

    def __init__(self, network: nn.Module, card: ModelCard, *, multiple: int, precision: torch.dtype) -> None:
        self.network = network.eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.card, self.multiple, self.precision = card, multiple, precision
        self.sigma_min, self.sigma_max = card.sigma_min, card.sigma_max

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters(), torch.empty(0)).device

    def compile(self) -> None:
        """Compile the network, for batches and images of any size; raises EngineError where torch cannot."""
        self.network.compile(dynamic=True)  # one code for all sizes: what it computes never depends on what came before
        trial = torch.zeros((2, self.card.channels, 8 * self.multiple, 9 * self.multiple), device=self.device)
        try:
            self.denoise(trial, self.sigma_max)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = str(error).strip().splitlines()[0]
            raise EngineError(f"setting compile: torch cannot compile here ({reason}); leave it off") from None

    @torch.inference_mode()
    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x]; x (slices, channels, rows, columns) of any size, padded to the network's multiple and cut back."""
        if sigma <= 0:  # the limit of D; its noise label would be infinite
            return x.float()
        padded, (rows, columns) = pad_to_multiple(x.to(self.device, torch.float32), self.multiple)
        with arithmetic(self.device, self.precision):
            clean = self._estimate(padded, float(sigma))
        return clean[..., :rows, :columns].to(x.device)

    @abstractmethod
    def _estimate(self, x: Tensor, sigma: float) -> Tensor:
        """The mean for a padded batch at sigma > 0."""


class CompactPrior(NetworkPrior):
    """A :class:`CompactUNet`.

    pixel_mm: what a network that knows of pixel sizes is told; None: nothing.
    """

    network: CompactUNet
    pixel_mm: float | None = None

    def __init__(
        self, network: CompactUNet, card: ModelCard, *, precision: torch.dtype = torch.float32, copied: bool = True
    ) -> None:
        """copied: the caller's network may go on training, and is left as it is."""
        own = copy.deepcopy(network) if copied else network
        super().__init__(own, card, multiple=network.config.multiple, precision=precision)
        self.reach = network.config.reach

    def at_pixel_size(self, pixel_mm: float) -> CompactPrior:
        """The same network for images of pixels of this side; the prior itself where it knows of no sizes."""
        if not self.network.config.knows_pixels:
            return self
        twin = copy.copy(self)
        twin.pixel_mm = pixel_mm
        return twin

    def _estimate(self, x: Tensor, sigma: float) -> Tensor:
        level = torch.full((1,), sigma, device=x.device)
        pixel_mm = None if self.pixel_mm is None else torch.full((1,), self.pixel_mm, device=x.device)
        return edm_denoise(self.network, x, level, self.card.sigma_data, pixel_mm)


class ScorePrior(NetworkPrior):
    """A network for the score of the variance-exploding process (Song et al. 2021): (x, sigma) -> grad ln p(x; sigma).

    Tweedie's formula gives the mean: D(x; sigma) = x + sigma^2 score(x, sigma).
    """

    def _estimate(self, x: Tensor, sigma: float) -> Tensor:
        level = torch.full((len(x),), sigma, device=x.device)
        return torch.add(x, self.network(x, level).float(), alpha=sigma**2)


def ddpm_sigmas(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> np.ndarray:
    """sigma = sqrt((1 - abar) / abar) of each step, rising, for linear beta (Ho et al. 2020); float64 (steps,)."""
    kept = np.cumprod(1.0 - np.linspace(first, last, steps))
    return np.sqrt((1.0 - kept) / kept)


class NoisePrior(NetworkPrior):
    """A network for the noise of the variance-preserving process: (sqrt(abar) x, step) -> n (Ho et al. 2020).

    With abar = 1 / (1 + sigma^2): D(x; sigma) = x - sigma eps(x / sqrt(1 + sigma^2), t).  The step t of a sigma lies
    between the integers of the training schedule, interpolated in ln sigma: the network takes its step through sines
    and cosines of a real number, and a rounded step would state a noise level up to a fifth away from the true one at
    the low end.  The sigma of a whole step gives that step.  Levels beyond the schedule count as its ends.
    """

    def __init__(self, network: nn.Module, card: ModelCard, *, multiple: int, precision: torch.dtype) -> None:
        super().__init__(network, card, multiple=multiple, precision=precision)
        self._ln_sigmas = np.log(ddpm_sigmas())

    def step_of(self, sigma: float) -> float:
        """The real-valued step whose noise level is sigma > 0."""
        return float(np.interp(np.log(sigma), self._ln_sigmas, np.arange(len(self._ln_sigmas))))

    def _estimate(self, x: Tensor, sigma: float) -> Tensor:
        step = torch.full((len(x),), self.step_of(sigma), device=x.device)
        # A network with learned variances gives them in the second half of its channels.
        noise = self.network(x / (1 + sigma**2) ** 0.5, step)[:, : x.shape[1]]
        return torch.sub(x, noise.float(), alpha=sigma)
