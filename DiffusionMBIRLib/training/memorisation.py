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

DESCRIPTOR_PX = 32
PATCH_PX = 32
LIKE_PIXELS = 1.5  # patches are looked for in slices whose pixels are at most that many times larger or smaller


@dataclass(frozen=True)
class Memorisation:
    """Median distances to the nearest training image, root mean square in the value scale, and the share of copies.

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

    @classmethod
    def of(cls, drawn: Tensor, unseen: Tensor) -> Memorisation:
        """From the distances of samples (samples,) and of held-out images (images,)."""
        copies = (drawn < torch.quantile(unseen, 0.01)).float().mean()
        return cls(float(drawn.median()), float(unseen.median()), float(copies))


def check_memorisation(samples: Tensor, held_out: Sequence[Stack], train: Sequence[Stack]) -> Memorisation:
    """Compare samples (images, 1, rows, columns) of whole slices, in the value scale, with held-out slices."""
    if not len(samples) or not held_out:
        raise InputError("memorisation: give at least one sample and one held-out volume")
    unseen = torch.cat([nearest_distances(stack.levels[1][:, None].float(), train) for stack in held_out])
    return Memorisation.of(nearest_distances(samples, train), unseen)


def check_patches(samples: Tensor, held_out: Tensor, train: Sequence[Stack], pixel_mm: float) -> Memorisation:
    """Compare images of any part of a slice, samples or reconstructions, with those of people never seen: both (images,
    1, rows, columns) in the value scale, with pixels of one size.
    """
    if not len(samples) or not len(held_out):
        raise InputError("memorisation: give at least one sample and one held-out image")
    distances = nearest_patches([*samples, *held_out], train, pixel_mm)
    return Memorisation.of(distances[: len(samples)], distances[len(samples) :])


def nearest_distances(images: Tensor, stacks: Sequence[Stack], *, images_per_batch: int = 256) -> Tensor:
    """Root-mean-square distance (images,) of each image (images, 1, rows, columns) to the nearest slice or its mirror.

    Whole slices are compared at 32 x 32 pixels, with means over blocks, so that noise and small shifts weigh little.
    """
    if not stacks:
        raise InputError("memorisation: there is no training slice to compare with")
    wanted = _descriptors(images)
    nearest = torch.full((len(images),), float("inf"))
    for stack in stacks:
        for part in stack.levels[1].split(images_per_batch):
            known = part[:, None].float()
            for version in (known, known.flip(-1)):
                nearest = torch.minimum(nearest, torch.cdist(wanted, _descriptors(version)).amin(dim=1))
    return nearest / DESCRIPTOR_PX


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


def _fullest(image: Tensor) -> Tensor:
    """The patch of an image (rows, columns) whose values vary most."""
    patches = image.unfold(0, PATCH_PX, PATCH_PX // 4).unfold(1, PATCH_PX, PATCH_PX // 4).flatten(0, 1)
    return patches[int(patches.flatten(1).var(dim=1).argmax())]


def _descriptors(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images.float().cpu(), DESCRIPTOR_PX).flatten(1)
