"""Conjugate gradient for least squares, on the data's side of the operator."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..checkpoints import fitting, form_of
from ..monitor import Checkpoint, Monitor, NoCheckpoint, Silent
from ..operators.base import LinearOperator
from ..operators.space import dot
from .cg import default_tolerance


def cgls(
    A: LinearOperator,
    y: Tensor,
    *,
    iterations: int = 20,
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """Steps of conjugate gradient on min |y - A x|^2 from zero (CGLS; Hestenes and Stiefel 1952).

    The residual is followed among the data, y - A x, which rounds less than among volumes; needs an exact adjoint.
    Components that the data tell little of come last: with noise the number of steps is what regularises.  x stays
    where it is once A^T (y - A x) has fallen to rounding.  y, result: of shape ``A.range``, ``A.domain``.
    """
    monitor, checkpoint = monitor or Silent(), checkpoint or NoCheckpoint()
    back_projection = A.adjoint(y)
    energy, tiny = dot(back_projection, back_projection), torch.finfo(y.dtype).tiny
    least = energy * default_tolerance(y.dtype) ** 2
    kept = checkpoint.load("CGLS")
    if kept:
        forms = {"x": form_of(back_projection), "direction": form_of(back_projection), "residual": form_of(y)}
        state = fitting(kept, {**forms, "energy": form_of(energy)}, iterations)
        x, direction, residual, energy = (state[name] for name in (*forms, "energy"))
    else:
        x, direction, residual = torch.zeros_like(back_projection), back_projection, y.clone()
    del back_projection
    for k in range(int(kept["done"]) if kept else 0, iterations):
        monitor.poll()
        image = A.forward(direction)
        length = dot(image, image)
        going = (energy > least) & (length > 0)  # else a step of 0, not 0 / 0
        alpha = torch.where(going, energy / length.clamp_min(tiny), 0.0)
        x = torch.addcmul(x, direction, alpha)
        residual.addcmul_(image, -alpha)
        del image
        slope = A.adjoint(residual)
        last, energy = energy, dot(slope, slope)
        direction = slope.addcmul_(direction, torch.where(going, energy / last.clamp_min(tiny), 0.0))
        state = {"x": x, "direction": direction, "residual": residual, "energy": energy, "done": torch.tensor(k + 1)}
        checkpoint.save("CGLS", state)
        monitor.preview(partial(torch.clone, x), k + 1)
        monitor.tick("CGLS", k + 1, iterations)
    return x
