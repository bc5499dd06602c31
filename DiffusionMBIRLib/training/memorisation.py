"""Does a prior repeat its training images?  Nearest neighbours of what it drew or of what was reconstructed with it,
compared with those of people never seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .stacks import Stack

PATCH_PX = 32
LIKE_PIXELS = 1.5  # patches are looked for in slices whose pixels are at most that many times larger or smaller
LEAST_IN_IT = 0.25  # of what parts of slices of people never seen have in them; below it a sample is as good as empty


@dataclass(frozen=True)
class Memorisation:
    """Median distances to the most alike part of a training slice, root mean square, over the standard deviation of the
    part that is looked for: 0 is a copy, 1 has nothing in common.

    ratio: samples / held_out.  About 1 or more: samples are as new as the slices of patients never seen; far below 1:
    the prior repeats its training data.  copies: share of the samples nearer than 99 of 100 held-out images.  empty:
    share of the samples that have next to nothing in them, which the other figures leave aside.
    """

    samples: float
    held_out: float
    copies: float
    empty: float

    @property
    def ratio(self) -> float:
        return self.samples / self.held_out


def check_patches(samples: Tensor, held_out: Tensor, train: Sequence[Stack], pixel_mm: float) -> Memorisation | None:
    """Compare images of any part of a slice, samples or reconstructions, with those of people never seen: both (images,
    1, rows, columns) in the value scale, with pixels of one size.  None where all samples are as good as empty.
    """
    if not len(samples) or not len(held_out):
        raise InputError("memorisation: give at least one sample and one held-out image")
    within, usual = _within(samples), _within(held_out)
    told = within >= LEAST_IN_IT * usual.median()
    if not told.any():
        return None
    drawn = nearest_patches(samples[told.to(samples.device)], train, pixel_mm) / within[told]
    unseen = nearest_patches(held_out, train, pixel_mm) / usual.clamp_min(1e-6)
    copies = (drawn < torch.quantile(unseen, 0.01)).float().mean()
    return Memorisation(float(drawn.median()), float(unseen.median()), float(copies), float((~told).float().mean()))


def nearest_patches(
    images: Sequence[Tensor] | Tensor, stacks: Sequence[Stack], pixel_mm: float, *, images_per_batch: int = 16
) -> Tensor:
    """Root-mean-square distance (images,) of a patch of each image (1, rows, columns) to the most alike place in any
    training slice or its mirror.

    The patch, 32 x 32 pixels, is the one with the most in it, since air is like air everywhere.  pixel_mm: of the
    images; slices with like pixels are searched, at every place.  Raises InputError where there are none.
    """
    patches = torch.stack([_fullest(image[0].float().cpu()) for image in images])
    kernels = torch.cat([patches, patches.flip(-1)])[:, None]
    energies = kernels.square().sum(dim=(1, 2, 3))
    nearest = torch.full((len(kernels),), float("inf"))
    for slices in _like(stacks, pixel_mm):
        for part in slices.split(images_per_batch):
            known = part[:, None].float()
            # |patch - place|^2, with the place's own energy as a sum over a box.
            place = PATCH_PX**2 * F.avg_pool2d(known.square(), PATCH_PX, stride=1)
            squares = place - 2 * F.conv2d(known, kernels) + energies[:, None, None]
            nearest = torch.minimum(nearest, squares.amin(dim=(0, 2, 3)))
    if not nearest.isfinite().all():
        raise InputError(f"memorisation: there is no training slice with pixels of about {pixel_mm:g} mm")
    return torch.minimum(*nearest.clamp_min(0).sqrt().chunk(2)) / PATCH_PX


def _like(stacks: Sequence[Stack], pixel_mm: float) -> list[Tensor]:
    return [
        slices
        for stack in stacks
        for level, slices in enumerate(stack.levels)
        if 1 / LIKE_PIXELS <= stack.spacing_mm * 2**level / pixel_mm <= LIKE_PIXELS
        and min(slices.shape[1:]) >= PATCH_PX
    ]


def _within(images: Tensor) -> Tensor:
    """Standard deviation (images,) of the fullest part of each."""
    return torch.stack([_fullest(image[0].float().cpu()).std(correction=0) for image in images])


def _fullest(image: Tensor) -> Tensor:
    """The patch of an image (rows, columns) whose values vary most."""
    patches = image.unfold(0, PATCH_PX, PATCH_PX // 4).unfold(1, PATCH_PX, PATCH_PX // 4).flatten(0, 1)
    return patches[int(patches.flatten(1).var(dim=1).argmax())]
