"""Does a prior repeat its training images?  Nearest neighbours of its samples, compared with those of unseen images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .slices import Stack

DESCRIPTOR_PX = 32


@dataclass(frozen=True)
class Memorisation:
    """Median distances to the nearest training slice, root mean square in the value scale, and the share of copies.

    ratio: samples / held_out.  About 1 or more: samples are as new as the slices of patients never seen; far below 1:
    the prior repeats its training data.  copies: share of the samples nearer to a training slice than 99 of 100
    held-out slices are.
    """

    samples: float
    held_out: float
    copies: float

    @property
    def ratio(self) -> float:
        return self.samples / self.held_out


def nearest_distances(images: Tensor, stacks: Sequence[Stack], *, images_per_batch: int = 256) -> Tensor:
    """Root-mean-square distance (images,) of each image (images, 1, rows, columns) to the nearest slice or its mirror.

    Whole slices are compared at 32 x 32 pixels, with means over blocks, so that noise and small shifts weigh little.
    """
    if not stacks:
        raise InputError("memorisation: there is no training slice to compare with")
    wanted = _descriptors(images)
    nearest = torch.full((len(images),), float("inf"))
    for stack in stacks:
        for part in stack.levels[-1].split(images_per_batch):
            known = part[:, None].float()
            for version in (known, known.flip(-1)):
                nearest = torch.minimum(nearest, torch.cdist(wanted, _descriptors(version)).amin(dim=1))
    return nearest / DESCRIPTOR_PX


def check_memorisation(samples: Tensor, held_out: Sequence[Stack], train: Sequence[Stack]) -> Memorisation:
    """Compare samples (images, 1, rows, columns) of whole slices, in the value scale, with held-out slices."""
    if not len(samples) or not held_out:
        raise InputError("memorisation: give at least one sample and one held-out volume")
    drawn = nearest_distances(samples, train)
    unseen = torch.cat([nearest_distances(stack.levels[-1][:, None].float(), train) for stack in held_out])
    copies = (drawn < torch.quantile(unseen, 0.01)).float().mean()
    return Memorisation(float(drawn.median()), float(unseen.median()), float(copies))


def _descriptors(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images.float().cpu(), DESCRIPTOR_PX).flatten(1)
