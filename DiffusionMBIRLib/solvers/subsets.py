"""Ordered subsets: a step onto each group of views in turn, where SIRT takes one onto all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial, reduce

import numpy as np
import torch
from torch import Tensor

from ..checkpoints import fitting, form_of
from ..monitor import Checkpoint, Monitor, NoCheckpoint, Silent
from ..operators.base import LinearOperator
from ..operators.space import Space

_TURN = (math.sqrt(5) - 1) / 2  # of all groups from one to the next: far apart, and all are met


def ordered_subsets(
    parts: Sequence[tuple[LinearOperator, Tensor]],
    *,
    passes: int,
    floor: float | Tensor | None = 0.0,
    ceiling: Tensor | None = None,
    stage: str = "OS-SART",
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """x += C A_s^T R_s (y_s - A_s x) for one part (A_s, y_s) of the scan after the other, from zero, kept above
    ``floor`` and below ``ceiling``: a block-iterative SART (Wang and Jiang 2004); of one part SIRT (Gilbert 1972).

    parts: non-negative operators of one domain.  R_s: one over the sums of their rows.  C: one over the largest sum of
    a column among them, so that no step overshoots and all are projections in one norm: data that agree with each
    other lead to that of their solutions which is smallest in it; others to a cycle, as wide as they disagree.
    """
    monitor, checkpoint = monitor or Silent(), checkpoint or NoCheckpoint()
    rows = [_inverse(A.forward(A.domain.ones()), A.range) for A, _ in parts]
    seen = reduce(torch.maximum, (A.adjoint(torch.ones_like(y)) for A, y in parts))
    columns = _inverse(seen, parts[0][0].domain)
    kept = checkpoint.load(stage) or {"x": torch.zeros_like(columns), "done": torch.tensor(0)}
    x = fitting(kept, {"x": form_of(columns)}, passes)["x"]
    for k in range(int(kept["done"]), passes):
        for s in spread(len(parts)):
            monitor.poll()
            A, y = parts[s]
            x = x + A.adjoint(A.forward(x).neg_().add_(y).mul_(rows[s])).mul_(columns)
            x = x if floor is None else x.clamp_(min=floor)
            x = x if ceiling is None else torch.minimum(x, ceiling, out=x)
        checkpoint.save(stage, {"x": x, "done": torch.tensor(k + 1)})
        monitor.preview(partial(torch.clone, x), k + 1)
        monitor.tick(stage, k + 1, passes)
    return x


def _inverse(sums: Tensor, space: Space) -> Tensor:
    """One over them; 0 where next to nothing is seen."""
    return torch.where(sums > 1e-6 * space.slabs.largest(sums.max()), 1 / sums, 0.0)


def spread(number: int) -> list[int]:
    """0 to number - 1, each far from the one before."""
    step = next(s for s in range(max(1, round(_TURN * number)), 0, -1) if math.gcd(s, number) == 1)
    return [k * step % number for k in range(number)]


def interleaved(angles_deg: Sequence[float], number: int) -> list[list[int]]:
    """Views by their place in the scan, in so many groups that each go around as the whole scan does."""
    order = np.argsort(angles_deg, kind="stable")
    return [sorted(order[k::number].tolist()) for k in range(min(number, len(order)))]
