"""The one place where slices are split into sub-batches: a 2D prior denoises a volume."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import EngineError
from ..priors.base import Prior, is_out_of_memory


@dataclass
class Counter:
    """Network evaluations of the whole stack so far (NFE), and the seconds of wall clock inside them."""

    evaluations: int = 0
    seconds: float = 0.0


class Denoiser(Protocol):
    """What samplers need of a prior: whole volumes denoised, and a count of what that took."""

    @property
    def prior(self) -> Prior: ...

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """x: (slices, rows, columns).  Returns E[x0 | x], which the caller may write into."""
        ...


class SubBatches:
    """Takes a volume through a 2D network, slice by slice in sub-batches, and counts what that took.

    The result does not depend on the sub-batch size beyond rounding.  When memory runs out the sub-batch is halved and
    the work that was done is kept; at one slice a time the error is passed on as EngineError.
    """

    def __init__(
        self,
        slices_per_batch: int,
        *,
        counter: Counter | None = None,
        poll: Callable[[], None] = lambda: None,
    ) -> None:
        """counter: what calls are added to.  poll: called between sub-batches; may wait, or raise to end the run."""
        self.slices_per_batch = max(1, int(slices_per_batch))
        self.counter, self._poll = counter or Counter(), poll

    def of_volume(self, x: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
        """``part`` of each sub-batch of x (slices, rows, columns), any strides; same shape and strides."""
        out = torch.empty_like(x)
        start, total = 0, x.shape[0]
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)  # the clock is to miss what was asked for before
        while start < total:
            stop = min(total, start + self.slices_per_batch)
            self._poll()
            started = time.perf_counter()
            try:
                out[start:stop] = part(x[start:stop])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.slices_per_batch == 1:
                    raise EngineError(
                        f"no memory for one slice of {x.shape[1]} x {x.shape[2]} on {x.device}; "
                        "use another device, a coarser grid or, with a diffusion prior, smaller tiles (setting tile)"
                    ) from error
                self.slices_per_batch = max(1, (stop - start) // 2)
                if x.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            start = stop
            if start == total and x.device.type == "cuda":
                torch.cuda.synchronize(x.device)  # once a volume: between sub-batches the device would run dry
            self.counter.seconds += time.perf_counter() - started
        self.counter.evaluations += 1
        return out


class SliceDenoiser(SubBatches):
    """Denoises a volume with a 2D prior.

    axes: of the volume, along which planes are stacked that the prior sees, one axis a call in turn: (0,) of slices;
    (1, 2) of coronal and sagittal planes.  Whose turn it is follows from the counter, which a resumed run takes up.

    Complex volumes need a prior with two channels, the real and the imaginary part.
    """

    def __init__(
        self,
        prior: Prior,
        slices_per_batch: int,
        *,
        counter: Counter | None = None,
        poll: Callable[[], None] = lambda: None,
        axes: Sequence[int] = (0,),
    ) -> None:
        super().__init__(slices_per_batch, counter=counter, poll=poll)
        self.prior, self.axes = prior, tuple(axes)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """x: (slices, rows, columns), any strides.  Returns E[x0 | x] with the same shape and strides."""
        axis = self.axes[self.counter.evaluations % len(self.axes)]
        return self.of_volume(x.movedim(axis, 0), lambda part: self._denoise(part, sigma)).movedim(0, axis)

    def _denoise(self, x: Tensor, sigma: float) -> Tensor:
        if x.is_complex():
            parts = self.prior.denoise(torch.stack((x.real, x.imag), 1), sigma)
            return torch.complex(parts[:, 0], parts[:, 1])
        return self.prior.denoise(x[:, None], sigma)[:, 0]
