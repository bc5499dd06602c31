"""Training images: axial slices of volumes, split by patient, cropped and mildly augmented."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import InputError
from ..geometry import Grid
from ..hounsfield import doubt_of
from ..io.volumes import has_volume_suffix, read_volume
from ..models import MR_PERCENTILE, MR_VALUE, ValueScale
from ..monitor import Monitor
from .complex_images import with_phase
from .settings import TrainSettings

AIR_HU, CLIP_HU = -1000.0, (-1024.0, 3071.0)
LEAST_SIDE_PX = 16  # of a slice: below this there is nothing to learn from
LOG_GAIN = (-0.3, 0.25)  # of images without a fixed unit
ISOTROPIC = 1.25  # largest ratio of spacings at which a volume is cut in all three planes


@dataclass
class Stack:
    """Slices of one volume at full and at half size, (slices, rows, columns) float16 in the value scale."""

    patient: str
    name: str
    spacing_mm: float
    levels: list[Tensor] = field(default_factory=list)


def patient_of(path: Path, pattern: str | None) -> str:
    """The patient of a file or DICOM folder: its name without extension, or what ``pattern`` finds.

    The pattern is searched in that name and, failing that, in the whole path; its first group counts if it has one.
    """
    stem = path.name if path.is_dir() else path.name.split(".")[0]
    if pattern is None:
        return stem
    try:
        match = re.search(pattern, stem) or re.search(pattern, path.as_posix())
    except re.error as error:
        raise InputError(f"--patient-regex {pattern!r} is no regular expression ({error})") from None
    if match is None:
        raise InputError(f"{path}: --patient-regex {pattern!r} does not match this name")
    return match.group(1) if match.groups() else match.group(0)


def _is_dicom(path: Path) -> bool:
    """True for a file with a DICOM suffix or, since many exports have none, with the DICM mark."""
    if path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() in (".dcm", ".ima", ".dicom"):
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def find_volumes(folders: Sequence[str | Path], glob: str) -> list[Path]:
    """Volume files below the folders whose names fit the glob, and folders that hold such DICOM files directly.

    Each is listed once; the order depends on names alone.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        if folder.is_file():
            found.append(folder)
            continue
        if not folder.is_dir():
            raise InputError(f"{folder}: no such file or folder")
        files = [p for p in sorted(folder.rglob(glob)) if p.is_file() and not p.name.startswith(".")]
        found += [p for p in files if has_volume_suffix(p)]
        found += sorted({p.parent for p in files if not has_volume_suffix(p) and _is_dicom(p)})
    if not found:
        raise InputError(f"no volume found that fits {glob!r} in: {', '.join(map(str, folders))}")
    return list(dict.fromkeys(found))


def background(value: ValueScale) -> float:
    """What lies outside the body, in the value scale: air for CT, no signal otherwise."""
    return ((AIR_HU if value.unit == "HU" else 0.0) - value.offset) / value.scale


def load_stacks(path: Path, pattern: str | None, value: ValueScale) -> list[Stack]:
    """Read one volume as stacks of slices in the value scale.

    CT: one stack in axial order; what lies outside the field of view (below -1024 HU) becomes air, metal is clipped.
    MR ('p99.5'): the planes that were acquired, all three of a nearly isotropic volume, in multiples of its percentile.
    """
    volume, doubt = read_volume(path), ""
    if value.unit == "HU":
        doubt = doubt_of(volume)
        volume, _ = volume.axial()
        array = volume.array.astype(np.float32)
        array = np.minimum(np.where(array < CLIP_HU[0], np.float32(AIR_HU), array), np.float32(CLIP_HU[1]))
        planes = [array]
    else:
        array = volume.array.astype(np.float32)
        if value.unit == MR_VALUE.unit:
            array = _by_percentile(array, path)
        planes = _planes(array, volume.grid)
    if min(planes[0].shape[1:]) < LEAST_SIDE_PX:
        rows, columns = planes[0].shape[1:]
        raise InputError(f"{path}: slices of {rows} x {columns} are too small to learn from; leave this volume out")
    if doubt:
        raise InputError(f"{path}: {doubt}; leave this volume out, or bring it in HU")
    patient = patient_of(path, pattern)
    scaled = [(plane - np.float32(value.offset)) / np.float32(value.scale) for plane in planes]
    return [_stack(patient, path.name, min(volume.grid.spacing_mm), plane) for plane in scaled]


def read_stacks(
    folders: Sequence[str | Path], glob: str, pattern: str | None, value: ValueScale, monitor: Monitor
) -> list[Stack]:
    """The stacks of all volumes below the folders, as :func:`find_volumes` and :func:`load_stacks` take them."""
    files, stacks = find_volumes(folders, glob), []
    for number, path in enumerate(files, start=1):
        stacks += load_stacks(path, pattern, value)
        monitor.tick("read volumes", number, len(files))
    return stacks


def _by_percentile(array: np.ndarray, path: Path) -> np.ndarray:
    top = float(np.percentile(np.abs(array), MR_PERCENTILE))
    if not top > 0:
        raise InputError(f"{path}: nearly all voxels are zero; leave this volume out")
    return array / np.float32(top)


def _planes(array: np.ndarray, grid: Grid) -> list[np.ndarray]:
    """Slices across the longest spacing, or in all three planes of a nearly isotropic volume."""
    spacing = np.asarray(grid.spacing_mm)[::-1]
    isotropic = spacing.max() <= ISOTROPIC * spacing.min() and min(array.shape) >= LEAST_SIDE_PX
    axes = (0, 1, 2) if isotropic else (int(np.argmax(spacing)),)
    return [np.ascontiguousarray(np.moveaxis(array, axis, 0)) for axis in axes]


def _stack(patient: str, name: str, spacing_mm: float, slices: np.ndarray) -> Stack:
    full = torch.from_numpy(slices)
    rows, columns = full.shape[1] // 2 * 2, full.shape[2] // 2 * 2
    half = F.avg_pool2d(full[:, None, :rows, :columns], 2)[:, 0]
    return Stack(patient, name, spacing_mm, [full.half(), half.half()])


def split_by_patient(
    stacks: Sequence[Stack], held_out: Sequence[str], fraction: float
) -> tuple[list[Stack], list[Stack]]:
    """(train, held-out) stacks; no patient is in both.  Named patients, or the last ``fraction`` in sorted order."""
    patients = sorted({s.patient for s in stacks})
    unknown = [p for p in held_out if p not in patients]
    if unknown:
        raise InputError(f"--hold-out {unknown[0]!r} is not a patient; patients: {', '.join(patients)}")
    chosen = set(held_out) or set(patients[len(patients) - max(1, round(fraction * len(patients))) :])
    if len(chosen) >= len(patients):
        raise InputError(f"{len(patients)} patient(s) cannot be split into training and held-out data; bring more")
    return [s for s in stacks if s.patient not in chosen], [s for s in stacks if s.patient in chosen]


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


class SliceSampler:
    """Endless batches (batch, channels, size, size) float32.  Step k's batch depends on (seed, rank, k) alone, so a
    resumed run sees what an unbroken one would have.

    40 % half-size slices and 25 % full-size crops as they are (resampling would remove their noise texture); the rest
    turned by up to 10 degrees and scaled.  Every image may be mirrored left-right.  Images other than CT, which come in
    any orientation and without a fixed unit, are brightened or darkened a little, and half of them turned by quarters.
    Two channels are real and imaginary part under a random phase, which is drawn last.
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
    ) -> None:
        self.stacks, self.size, self.augment, self.channels = list(stacks), size, augment, channels
        self.seed, self.rank = seed, rank
        self.air, self.any_way_up = background(value), value.unit != "HU"
        # Neighbouring slices say much the same: a long series counts by the root of its length.
        weights = np.sqrt([s.levels[0].shape[0] for s in self.stacks])
        self.weights = weights / weights.sum()

    def batch(self, step: int, count: int) -> Tensor:
        generator = np.random.default_rng((self.seed, self.rank, step))
        return torch.stack([self._channels(self._image(generator), generator) for _ in range(count)])

    def _channels(self, image: Tensor, generator: np.random.Generator) -> Tensor:
        return with_phase(image, generator) if self.channels == 2 else image[None]

    def _image(self, generator: np.random.Generator) -> Tensor:
        stack = self.stacks[generator.choice(len(self.stacks), p=self.weights)]
        index = int(generator.integers(stack.levels[0].shape[0]))
        kind = generator.random()
        if kind < 0.65 or not self.augment:
            image = _crop(stack.levels[0 if kind >= 0.4 else 1][index], self.size, generator, self.air).float()
        else:
            image = self._warped(stack, index, generator)
        if not self.augment:
            return image
        if self.any_way_up:
            image = image * math.exp(generator.uniform(*LOG_GAIN))
            image = torch.rot90(image, int(generator.integers(4))) if generator.random() < 0.5 else image
        return image.flip(1) if generator.random() < 0.5 else image

    def _warped(self, stack: Stack, index: int, generator: np.random.Generator) -> Tensor:
        zoom = math.exp(generator.uniform(math.log(0.85), math.log(2.2)))  # source pixels per output pixel
        source = stack.levels[0 if zoom < 1.5 else 1][index].float()
        zoom = zoom if zoom < 1.5 else zoom / 2
        angle = math.radians(generator.uniform(-10, 10))
        rows, columns = source.shape
        span = self.size * zoom
        centre = [(n - 1) / 2 + generator.uniform(-0.5, 0.5) * max(0.0, n - span) for n in (rows, columns)]
        axis = (torch.arange(self.size) - (self.size - 1) / 2) * zoom
        r = centre[0] + axis[:, None] * math.cos(angle) + axis[None, :] * math.sin(angle)
        c = centre[1] - axis[:, None] * math.sin(angle) + axis[None, :] * math.cos(angle)
        grid = torch.stack([2 * c / (columns - 1) - 1, 2 * r / (rows - 1) - 1], dim=-1)[None]
        return F.grid_sample(source[None, None] - self.air, grid, align_corners=True)[0, 0] + self.air


def step_seed(seed: int, rank: int, step: int) -> int:
    """A seed for torch that depends on all three and on nothing else."""
    return int(np.random.SeedSequence((seed, rank, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))


class NoisySteps(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Clean images (batch, channels, size, size), noise levels (batch,) and unit noise of step k, whoever makes it."""

    def __init__(self, sampler: SliceSampler, settings: TrainSettings) -> None:
        self.sampler, self.settings = sampler, settings

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        s = self.settings
        clean = self.sampler.batch(step, s.batch)
        generator = torch.Generator().manual_seed(step_seed(s.seed, self.sampler.rank, step))
        draws = torch.randn(s.batch, generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        return clean, (math.log(s.noise_median) + s.noise_spread * draws).exp(), noise


def fixed_images(stacks: Sequence[Stack], *, size: int, value: ValueScale, count: int, channels: int = 1) -> Tensor:
    """At most ``count`` fixed held-out images (images, channels, size, size): centre windows of slices at both sizes.

    Two channels: under phases of their own, the same in every run.
    """
    each = max(1, count // (2 * len(stacks)))
    places = [
        (stack.levels[level], index)
        for level in (1, 0)
        for stack in stacks
        for index in _spread(len(stack.levels[level]), each)
    ]
    chosen = [places[k] for k in _spread(len(places), count)]
    windows = [_centre(images[index], size, background(value)) for images, index in chosen]
    if channels == 1:
        return torch.stack(windows)[:, None]
    return torch.stack([with_phase(image, np.random.default_rng((0, k))) for k, image in enumerate(windows)])


def _spread(length: int, count: int) -> list[int]:
    """At most ``count`` different indices from end to end; a single one lies in the middle."""
    if count == 1:
        return [length // 2]
    return sorted({round(k * (length - 1) / (count - 1)) for k in range(count)})


def _centre(image: Tensor, size: int, air: float) -> Tensor:
    top, left = (max(0, n - size) // 2 for n in image.shape)
    window = image[top : top + size, left : left + size]
    return _crop(window, size, np.random.default_rng(0), air).float()
