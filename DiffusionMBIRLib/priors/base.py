"""The contract of a prior and the one place where slices are split into sub-batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import EngineError
from ..models import ModelCard


@runtime_checkable
class Prior(Protocol):
    """A Gaussian denoiser with a card.  One sigma convention: x = x0 + sigma n, in the card's value scale."""

    sigma_min: float
    sigma_max: float
    card: ModelCard

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x0 + sigma n = x] for x (slices, channels, rows, columns) of any size; same shape, float32."""
        ...


def is_out_of_memory(error: BaseException) -> bool:
    """True for what torch raises when memory runs out, on CUDA (its own type) and on the CPU (a RuntimeError)."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


class Denoiser(Protocol):
    """What samplers need of a prior: whole volumes denoised, and a count of what that took."""

    @property
    def prior(self) -> Prior: ...

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """x: (slices, rows, columns).  Returns E[x0 | x], which the caller may write into."""
        ...


class SliceDenoiser:
    """Denoises a volume with a 2D prior, slice by slice in sub-batches.

    Complex volumes need a prior with two channels, the real and the imaginary part.  The result does not depend on the
    sub-batch size beyond rounding.  When memory runs out the sub-batch is halved and the work that was done is kept; at
    one slice a time the error is passed on as EngineError.
    """

    def __init__(self, prior: Prior, slices_per_batch: int) -> None:
        self.prior = prior
        self.slices_per_batch = max(1, int(slices_per_batch))
        self.evaluations = 0  # network evaluations of the whole stack so far (NFE)
        self.seconds = 0.0  # wall-clock time spent in them
        self.poll: Callable[[], None] = lambda: None  # called between sub-batches; may wait, or raise to end the run

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """x: (slices, rows, columns), any strides.  Returns E[x0 | x] with the same shape and strides."""
        out = torch.empty_like(x)
        start, total = 0, x.shape[0]
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)  # the clock is to miss what was asked for before
        while start < total:
            stop = min(total, start + self.slices_per_batch)
            self.poll()
            started = time.perf_counter()
            try:
                out[start:stop] = self._denoise(x[start:stop], sigma)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.slices_per_batch == 1:
                    raise EngineError(
                        f"no memory for one slice of {x.shape[1]} x {x.shape[2]} on {x.device}; "
                        "use another device or a coarser grid"
                    ) from error
                self.slices_per_batch = max(1, (stop - start) // 2)
                if x.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            start = stop
            if start == total and x.device.type == "cuda":
                torch.cuda.synchronize(x.device)  # once a volume: between sub-batches the device would run dry
            self.seconds += time.perf_counter() - started
        self.evaluations += 1
        return out

    def _denoise(self, x: Tensor, sigma: float) -> Tensor:
        if x.is_complex():
            parts = self.prior.denoise(torch.stack((x.real, x.imag), 1), sigma)
            return torch.complex(parts[:, 0], parts[:, 1])
        return self.prior.denoise(x[:, None], sigma)[:, 0]
