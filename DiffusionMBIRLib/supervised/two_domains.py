"""Complex images of Cartesian k-space restored by a network, and by turns in the image and in k-space (DuDoRNet)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..monitor import Monitor
from ..operators.base import LinearOperator
from ..operators.fourier import fft2c, ifft2c
from .methods import SliceRestorer

Step = Callable[[Tensor], Tensor]


def condition_of(sampled: float) -> float:
    """What a network is told of a scan: ln of the acceleration, from the share of k-space that was sampled."""
    return -math.log(sampled)


def recurrences(image: Step, kspace: Step, onto_data: Step, x: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each recurrent block the image after the network in the image, and after that in k-space; both fit the data.

    x: complex (..., rows, columns), as all steps take and give it.
    """
    for _ in range(count):
        first = onto_data(image(x))
        x = onto_data(ifft2c(kspace(fft2c(first))))
        yield first, x


def onto_data(A: LinearOperator, y: Tensor) -> Step:
    """x -> x + A^H (y - A x): samples of one coil are replaced by what was measured; those of several coils in the
    images of these, which the maps combine again.  A: of a mask, with norm 1.
    """
    gradient = A.gradients(y)
    return lambda x: x - gradient(x)


def restore_images(
    restorer: SliceRestorer, A: LinearOperator, y: Tensor, *, sampled: float, monitor: Monitor
) -> Tensor:
    """The complex volume (slices, rows, columns) from A^H y.  sampled: share of k-space."""
    config, told, x = restorer.network.config, condition_of(sampled), A.adjoint(y)

    def by(stage: int) -> Step:
        def restore(images: Tensor) -> Tensor:
            restorer.stage = stage
            return restorer(images.contiguous(), told)

        return restore

    if config.recurrences == 0:
        x = by(0)(x)
        monitor.tick(config.kind, 1, 1)
        return x
    blocks = recurrences(by(0), by(1), onto_data(A, y), x, config.recurrences)
    for number, (_, x) in enumerate(blocks, start=1):  # noqa: B007 - the last one is returned
        monitor.tick(config.kind, number, config.recurrences)
    return x


def parts(x: Tensor) -> Tensor:
    """Real and imaginary part (batch, 2, rows, columns) of complex images."""
    return torch.stack((x.real, x.imag), 1)


def whole(x: Tensor) -> Tensor:
    """The inverse of :func:`parts`."""
    return torch.complex(x[:, 0], x[:, 1])
