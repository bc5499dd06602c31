"""Training images: windows of slices at many pixel sizes, mildly augmented, and the noise that goes with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import InputError
from ..models import ValueScale
from .complex_images import with_phase
from .discs import holed_disc
from .settings import TrainSettings
from .shapes import random_shapes
from .stacks import Stack, background

LOG_GAIN = (-0.3, 0.25)  # of images without a fixed unit
PIXELS_MM = (0.5, 6.0)  # of resampled images
FINER = 0.85  # times a slice's own pixels: the finest that it is resampled to
LEAST_ACROSS = 64  # pixels across the shorter side of a slice that is resampled to coarse pixels
AS_THEY_ARE = 0.65  # share of images that are not resampled, which would remove their noise texture
# Shares among these of slices at full, half and quarter size, each times how much of a window a slice fills.  With
# 0.5, 0.42 and 0.08, and three tenths of the images from scans with pixels of 0.6 to 1 mm, 52,000 images from the
# weights of ct-compact-v1 brought the held-out loss down at 0.5 to 1.4 mm (5 %) and up at 2 mm and more (5 %), and cost
# 0.2 to 0.6 dB at 8 views of a chest and an abdomen on 128 x 128.
LEVELS = (0.4, 0.35, 0.25)
FILLED = 0.1  # above the background: of CT more than -800 HU
UNKNOWN = 0.1  # share of images whose pixel size the network is not told
SIDES = {0.75: 0.4, 1.0: 0.4, 1.5: 0.2}  # of images, in multiples of the nominal side, and their shares of the steps
LOW_NOISE = 0.15  # times the median: the median of the levels that are drawn low


def _crop(image: Tensor, size: int, generator: np.random.Generator, air: float) -> Tensor:
    """A random size x size window of (rows, columns); smaller images are set into air."""
    rows, columns = image.shape
    if rows < size or columns < size:
        top, left = max(0, size - rows) // 2, max(0, size - columns) // 2
        canvas = image.new_full((max(rows, size), max(columns, size)), air)
        canvas[top : top + rows, left : left + columns] = image
        image, (rows, columns) = canvas, canvas.shape
    r, c = int(generator.integers(rows - size + 1)), int(generator.integers(columns - size + 1))
    return image[r : r + size, c : c + size]


def stack_weights(stacks: Sequence[Stack], shares: Mapping[str, float], across: float) -> np.ndarray:
    """How often each stack is drawn, with sum 1.

    Neighbouring slices say much the same: a long series counts by the root of its length.  shares: of the images, for
    the volumes whose names hold a text (the first that fits); across: for stacks across the acquired slices.
    Raises InputError for a text that no name holds, and for shares of more than 1 in all.
    """
    weights = np.sqrt([float(s.levels[0].shape[0]) for s in stacks])
    left = 1 - sum(shares.values())
    if left < 0 or min(shares.values(), default=0) < 0:
        raise InputError("--share: shares are 0 or more, and at most 1 in all")
    kinds = np.array([next((text for text in shares if text in s.name), "") for s in stacks])
    for text, share in {**shares, "": left}.items():
        chosen = kinds == text
        if text and not chosen.any():
            raise InputError(f"--share: no volume to train on has {text!r} in its name")
        weights[chosen] *= share / max(weights[chosen].sum(), 1e-9)
    turned = np.array([s.across for s in stacks])
    if turned.any() and not turned.all():
        weights[turned] *= across / max(weights[turned].sum(), 1e-9)
        weights[~turned] *= (1 - across) / max(weights[~turned].sum(), 1e-9)
    return np.asarray(weights / weights.sum())


class SliceSampler:
    """Endless images (batch, channels, size, size) float32 with the size of their pixels in mm (batch,), 0 where it is
    not told.  Step k's batch depends on (seed, rank, k) alone, so a resumed run sees what an unbroken one would have.

    Most are windows of slices as they are, at full, half or quarter size; the rest are turned by up to 10 degrees and
    resampled to pixels from 0.5 to 6 mm.  Every image may be mirrored left-right.  Images other than CT, which come in
    any orientation and without a fixed unit, are brightened or darkened a little, and half of them turned by quarters.
    A share may be synthetic shapes.  Two channels are real and imaginary part under a random phase, drawn last.
    """

    def __init__(
        self,
        stacks: Sequence[Stack],
        *,
        size: int,
        value: ValueScale,
        augment: bool = True,
        seed: int = 0,
        rank: int = 0,
        channels: int = 1,
        shares: Mapping[str, float] | None = None,
        across: float = 0.0,
        shapes: float = 0.0,
        discs: float = 0.0,
    ) -> None:
        """stacks: may be none where shapes is 1.  shares, across: see :func:`stack_weights`.  shapes: share of
        synthetic images.  discs: of these, share of discs with holes, whose pixels have no size that is told.
        """
        self.stacks, self.size, self.augment, self.channels = list(stacks), size, augment, channels
        self.seed, self.rank, self.shapes, self.discs = seed, rank, shapes, discs
        self.air, self.in_hu = background(value), value.unit == "HU"
        self.weights = stack_weights(self.stacks, shares or {}, across)

    def batch(self, step: int, count: int, size: int | None = None) -> tuple[Tensor, Tensor]:
        """Images of another size where one is given."""
        generator = np.random.default_rng((self.seed, self.rank, step))
        images, pixels = [], []
        for _ in range(count):
            image, pixel_mm = self._image(size or self.size, generator)
            images.append(with_phase(image, generator) if self.channels == 2 else image[None])
            pixels.append(pixel_mm)
        return torch.stack(images), torch.tensor(pixels, dtype=torch.float32)

    def _image(self, size: int, generator: np.random.Generator) -> tuple[Tensor, float]:
        if self.shapes and generator.random() < self.shapes:
            if self.discs and generator.random() < self.discs:
                return holed_disc(size, generator), 0.0
            return random_shapes(size, generator, metal=self.in_hu), _between(*PIXELS_MM, generator)
        stack = self.stacks[generator.choice(len(self.stacks), p=self.weights)]
        index = int(generator.integers(stack.levels[0].shape[0]))
        square = abs(math.log(stack.aspect)) < 0.03
        if (square and generator.random() < AS_THEY_ARE) or not self.augment:
            level = self._level(stack, generator) if self.augment else 0
            image = self._window(stack.levels[level][index], size, generator)
            pixel_mm = stack.spacing_mm * 2**level
        else:
            image, pixel_mm = self._resampled(stack, index, size, generator)
        if not self.augment:
            return image, pixel_mm
        if not self.in_hu:
            image = image * math.exp(generator.uniform(*LOG_GAIN))
            image = torch.rot90(image, int(generator.integers(4))) if generator.random() < 0.5 else image
        image = image.flip(1) if generator.random() < 0.5 else image
        return image, 0.0 if generator.random() < UNKNOWN else pixel_mm

    def _window(self, image: Tensor, size: int, generator: np.random.Generator) -> Tensor:
        """The better filled one of two random windows: there is less to learn from air."""
        count = 2 if self.augment else 1
        windows = [_crop(image, size, generator, self.air).float() for _ in range(count)]
        return max(windows, key=lambda window: float((window > self.air + FILLED).float().mean()))

    def _level(self, stack: Stack, generator: np.random.Generator) -> int:
        fill = [min(1.0, level.shape[-2] * level.shape[-1] / self.size**2) for level in stack.levels]
        shares = np.array(LEVELS[: len(stack.levels)]) * fill[: len(LEVELS)]
        return int(generator.choice(len(shares), p=shares / shares.sum()))

    def _resampled(self, stack: Stack, index: int, size: int, generator: np.random.Generator) -> tuple[Tensor, float]:
        pixel_mm = _between(*_resampled_range(stack), generator)
        level = max(0, min(len(stack.levels) - 1, math.floor(math.log2(pixel_mm / stack.spacing_mm))))
        source = stack.levels[level][index].float()
        zoom = pixel_mm / (stack.spacing_mm * 2**level)  # source pixels per output pixel
        samples = 2 if zoom > 1.1 else 1  # a side of each pixel, whose mean it is
        angle = math.radians(generator.uniform(-10, 10))
        zooms, lengths = (zoom / math.sqrt(stack.aspect), zoom * math.sqrt(stack.aspect)), source.shape
        r0, c0 = (
            (n - 1) / 2 + generator.uniform(-0.5, 0.5) * max(0.0, n - size * z)
            for n, z in zip(lengths, zooms, strict=True)
        )
        axis = (torch.arange(size * samples) - (size * samples - 1) / 2) / samples
        r = r0 + zooms[0] * (axis[:, None] * math.cos(angle) + axis[None, :] * math.sin(angle))
        c = c0 + zooms[1] * (axis[None, :] * math.cos(angle) - axis[:, None] * math.sin(angle))
        grid = torch.stack([2 * c / (lengths[1] - 1) - 1, 2 * r / (lengths[0] - 1) - 1], dim=-1)[None]
        fine = F.grid_sample(source[None, None] - self.air, grid, align_corners=True)
        return F.avg_pool2d(fine, samples)[0, 0] + self.air, pixel_mm


def _resampled_range(stack: Stack) -> tuple[float, float]:
    """The finest and the coarsest pixels, in mm, that slices are resampled to."""
    finest = max(FINER * stack.spacing_mm, PIXELS_MM[0])
    side = min(stack.levels[0].shape[1:])
    return finest, max(finest, min(PIXELS_MM[1], stack.spacing_mm * side / LEAST_ACROSS))


def pixel_range(stacks: Sequence[Stack]) -> tuple[float, float]:
    """The finest and the coarsest pixels, in mm, of augmented images of volumes."""
    ranges = [_resampled_range(stack) for stack in stacks]
    ranges += [(stack.spacing_mm, stack.spacing_mm * 2 ** (len(stack.levels) - 1)) for stack in stacks]
    return round(min(low for low, _ in ranges), 3), round(max(high for _, high in ranges), 3)


def _between(low: float, high: float, generator: np.random.Generator) -> float:
    """A number whose logarithm is uniform."""
    return math.exp(generator.uniform(math.log(low), math.log(high)))


def step_seed(seed: int, rank: int, step: int) -> int:
    """A seed for torch that depends on all three and on nothing else."""
    return int(np.random.SeedSequence((seed, rank, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))


class NoisySteps(Dataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """Clean images (batch, channels, size, size), noise levels (batch,), unit noise and pixel sizes in mm (batch,) of
    step k, whoever makes it.

    Levels are drawn from strata of equal probability, so that each step sees low and high ones.  Where the size varies,
    it does so from step to step with about as many pixels in each.  multiple: of sizes.
    """

    def __init__(self, sampler: SliceSampler, settings: TrainSettings, multiple: int = 1) -> None:
        self.sampler, self.settings, self.multiple = sampler, settings, multiple

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        size = self.size_of(step)
        count = max(1, round(self.settings.batch * (self.settings.size / size) ** 2))
        clean, pixel_mm = self.sampler.batch(step, count, size)
        generator = torch.Generator().manual_seed(step_seed(self.settings.seed, self.sampler.rank, step))
        sigma = self._levels(count, generator)
        noise = torch.randn(clean.shape, generator=generator)
        return clean, sigma, noise, pixel_mm

    def size_of(self, step: int) -> int:
        """The same for all processes, which wait for each other."""
        s = self.settings
        if not s.vary_size:
            return s.size
        share = np.random.default_rng((s.seed, step)).choice(list(SIDES), p=list(SIDES.values()))
        return max(self.multiple, round(share * s.size / self.multiple) * self.multiple)

    def _levels(self, count: int, generator: torch.Generator) -> Tensor:
        s = self.settings
        strata = torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)
        levels = s.noise_spread * torch.special.ndtri((strata / count).clamp(1e-6, 1 - 1e-6))
        low = torch.rand(count, generator=generator) < s.low_noise
        return (math.log(s.noise_median) + torch.where(low, levels / 2 + math.log(LOW_NOISE), levels)).exp()


def fixed_images(
    stacks: Sequence[Stack], *, size: int, value: ValueScale, count: int, channels: int = 1
) -> tuple[Tensor, Tensor]:
    """At most ``count`` fixed held-out images (images, channels, size, size): centre windows of slices at full and half
    size; and the sizes of their pixels in mm (images,).

    Two channels: under phases of their own, the same in every run.
    """
    each = max(1, count // (2 * len(stacks)))
    places = [
        (stack, level, index)
        for level in (1, 0)
        for stack in stacks
        for index in _spread(len(stack.levels[level]), each)
    ]
    chosen = [places[k] for k in _spread(len(places), count)]
    windows = [_centre(stack.levels[level][index], size, background(value)) for stack, level, index in chosen]
    pixel_mm = torch.tensor([stack.spacing_mm * 2**level for stack, level, _ in chosen])
    if channels == 1:
        return torch.stack(windows)[:, None], pixel_mm
    phased = [with_phase(image, np.random.default_rng((0, k))) for k, image in enumerate(windows)]
    return torch.stack(phased), pixel_mm


def _spread(length: int, count: int) -> list[int]:
    """At most ``count`` different indices from end to end; a single one lies in the middle."""
    if count == 1:
        return [length // 2]
    return sorted({round(k * (length - 1) / (count - 1)) for k in range(count)})


def _centre(image: Tensor, size: int, air: float) -> Tensor:
    top, left = (max(0, n - size) // 2 for n in image.shape)
    window = image[top : top + size, left : left + size]
    return _crop(window, size, np.random.default_rng(0), air).float()
