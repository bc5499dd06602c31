"""Training pairs: simulated scans of training slices, their FBP images and the truth.

Scans come from ``simulate``, which projects an object of twice the resolution to a finer detector, so that no network
learns from data that the reconstructing operator made.  They are kept in blocks of one geometry, each in a file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import ReconSettings
from ..errors import EngineError, InputError, one_line
from ..geometry import Grid, ParallelBeam
from ..models import ValueScale
from ..problems import Problem, build_problem
from ..scans import Measurement
from ..schema import Mapped, Number, OneOf, Plain, Schema, checked, json_object
from ..simulation import simulate, truth_for
from ..tasks import CT_TASKS, SPARSE_VIEW
from ..training.stacks import Stack, background
from ..volume import Volume
from .networks import condition

VALUE = ValueScale()
VIEWS = (2, 4, 8, 12, 24, 36)  # over 180 degrees
RANGES_DEG = (60, 75, 90, 105, 120, 130)  # one view a degree
PHOTONS = (1e5, 1e6)
FIELD_MM = (280.0, 480.0)  # of view, which sets how many photons come through
NOISY_SHARE = 0.4
FINE_SHARE = 0.2  # of blocks with twice as many pixels, and a quarter of the images
_ZOOM = (0.9, 1.25)  # of the field of view
_TURN_DEG = 8.0
_SCAN: Schema = {
    "geometry": Mapped(Plain()),
    "grid": Mapped(Plain()),
    "task": OneOf(tuple(CT_TASKS)),
    "photons": Number(0, 1e30),
}


@dataclass(frozen=True)
class PairSettings:
    """How many pairs are made: blocks of ``images`` slices of ``size`` x ``size`` pixels each."""

    blocks: int = 96
    images: int = 64
    size: int = 128
    seed: int = 0


@dataclass(frozen=True)
class Protocol:
    """How the scans of a block are taken.  coarsen: of the drawn slices, as in ``simulate``; 1 gives finer images."""

    views: int
    range_deg: float
    photons: float = 0.0
    field_mm: float = 380.0
    coarsen: int = 2

    @staticmethod
    def draw(task: str, generator: np.random.Generator) -> Protocol:
        photons = math.exp(generator.uniform(*np.log(PHOTONS))) if generator.random() < NOISY_SHARE else 0.0
        field, coarsen = generator.uniform(*FIELD_MM), 1 if generator.random() < FINE_SHARE else 2
        views, range_deg = _geometry(task, int(generator.integers(6)))
        return Protocol(views, range_deg, photons, field, coarsen)


def _geometry(task: str, number: int) -> tuple[int, float]:
    return (VIEWS[number], 180.0) if task == SPARSE_VIEW else (RANGES_DEG[number], float(RANGES_DEG[number]))


@dataclass(frozen=True)
class Block:
    """Scans of one protocol: measurement, FBP images and truths (images, rows, columns) in float16 and value scale."""

    measurement: Measurement
    fbp: Tensor
    truth: Tensor

    @property
    def condition(self) -> float:
        return condition(self.measurement.geometry.angles_deg, self.measurement.task)

    @property
    def error(self) -> float:
        """Mean squared error of FBP: what a network's own is judged against, so that all geometries count alike."""
        return float((self.fbp.float() - self.truth.float()).square().mean())


class Pairs:
    """Blocks by number, made when first asked for and then read from ``folder``."""

    def __init__(self, stacks: Sequence[Stack], folder: Path, task: str, settings: PairSettings, name: str) -> None:
        self.stacks, self.folder, self.task, self.settings, self.name = list(stacks), folder, task, settings, name
        weights = np.sqrt([s.levels[0].shape[0] for s in self.stacks])
        self._weights = weights / weights.sum()
        # Another choice of volumes or settings must not find these files; more blocks of the same kind may.
        kind = {k: v for k, v in asdict(settings).items() if k != "blocks"}
        what = [sorted((s.name, *s.levels[0].shape) for s in self.stacks), task, kind, name]
        self._key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]
        folder.mkdir(parents=True, exist_ok=True)

    def block(self, number: int) -> Block:
        generator = np.random.default_rng((self.settings.seed, int(self._key[:8], 16), number))
        return self._kept(number, Protocol.draw(self.task, generator), generator)

    def fixed(self, count: int) -> list[Block]:
        """One noise-free block of ``count`` images for each geometry, to compare networks by."""
        blocks = []
        for number in range(6):
            generator = np.random.default_rng((self.settings.seed, 1, number))
            blocks.append(self._kept(10_000 + number, Protocol(*_geometry(self.task, number)), generator, count))
        return blocks

    def _kept(self, number: int, protocol: Protocol, generator: np.random.Generator, count: int = 0) -> Block:
        path = self.folder / f"{self._key}-{number}.safetensors"
        if path.is_file():
            return _read(path)
        count = count or max(1, self.settings.images // (4 if protocol.coarsen == 1 else 1))
        side = 2 * self.settings.size
        images = torch.stack([self._slice(side, generator) for _ in range(count)])
        block = scan(images, protocol, self.task, seed=int(generator.integers(2**31)))
        _write(block, path)
        return block

    def _slice(self, side: int, generator: np.random.Generator) -> Tensor:
        stack = self.stacks[generator.choice(len(self.stacks), p=self._weights)]
        return whole_slice(stack, int(generator.integers(len(stack.levels[0]))), side, generator)


def whole_slice(
    stack: Stack,
    index: int,
    side: int,
    generator: np.random.Generator,
    value: ValueScale = VALUE,
    field: float = 0,
) -> Tensor:
    """A slice on side x side pixels, slightly turned, scaled and perhaps mirrored.

    field: what these span before they are scaled, in pixels of the slice; 0: the longer of its sides.
    """
    zoom = math.exp(generator.uniform(*np.log(_ZOOM))) * (field or max(stack.levels[0].shape[1:])) / side
    level = 0 if zoom < 1.5 else 1
    source = stack.levels[level][index].float()
    zoom = zoom / 2**level
    angle = math.radians(generator.uniform(-_TURN_DEG, _TURN_DEG))
    rows, columns = source.shape
    axis = (torch.arange(side) - (side - 1) / 2) * zoom
    r = (rows - 1) / 2 + axis[:, None] * math.cos(angle) + axis[None, :] * math.sin(angle)
    c = (columns - 1) / 2 - axis[:, None] * math.sin(angle) + axis[None, :] * math.cos(angle)
    places = torch.stack([2 * c / (columns - 1) - 1, 2 * r / (rows - 1) - 1], dim=-1)[None]
    air = background(value)
    image = F.grid_sample(source[None, None] - air, places, align_corners=True)[0, 0] + air
    return image.flip(1) if generator.random() < 0.5 else image


def scan(images: Tensor, protocol: Protocol, task: str, *, seed: int) -> Block:
    """Simulate scans of images (images, rows, columns) in the value scale, and reconstruct them by FBP."""
    count, rows, columns = images.shape
    pixel = protocol.field_mm / max(rows, columns)
    hu = images.numpy().astype(np.float32) * np.float32(VALUE.scale) + np.float32(VALUE.offset)
    volume = Volume(hu, Grid((count, rows, columns), (pixel, pixel, 1.0)), name="training slices")
    measurement = simulate(
        volume,
        task=task,
        views=protocol.views,
        angle_range_deg=protocol.range_deg,
        coarsen=protocol.coarsen,
        photons=protocol.photons,
        seed=seed,
    )
    assert isinstance(measurement, Measurement)
    truth = (torch.from_numpy(truth_for(volume, protocol.coarsen).array) - VALUE.offset) / VALUE.scale
    fbp = problem_of(measurement).analytic("ramp")
    return Block(measurement, fbp.contiguous().half(), truth.half())


def problem_of(measurement: Measurement) -> Problem:
    """Operator and data as a reconstruction has them."""
    return build_problem(measurement, ReconSettings(method="fbp"), None, torch.device("cpu"))


def _write(block: Block, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    m = block.measurement
    entries = {"geometry": m.geometry.to_dict(), "grid": m.grid.to_dict(), "task": m.task, "photons": m.photons}
    tensors = {"data": torch.from_numpy(np.ascontiguousarray(m.data)), "fbp": block.fbp, "truth": block.truth}
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        save_file(tensors, str(temporary), metadata={"scan": json.dumps(entries)})
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise EngineError(f"{path}: could not be written; is the disk full or read-only? ({error})") from None
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> Block:
    """Raises InputError that names a damaged file: it is a copy of what can be made again."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as stored:
            entries = json_object((stored.metadata() or {}).get("scan", ""), "scan")
            data, fbp, truth = (stored.get_tensor(name) for name in ("data", "fbp", "truth"))
        checked(entries, _SCAN, "scan", needed=tuple(_SCAN))
        geometry, grid = ParallelBeam.of_dict(entries["geometry"]), Grid.from_dict(entries["grid"])
        scan = Measurement(
            data.numpy(), geometry, grid, task=entries["task"], photons=entries["photons"], name=path.name
        )
        _require_images(grid, fbp, truth)
    except (OSError, SafetensorError, InputError) as error:
        reason = one_line(error, 200)
        raise InputError(f"{path}: is damaged ({reason}); delete it, and it is made again") from None
    return Block(scan, fbp, truth)


def _require_images(grid: Grid, *images: Tensor) -> None:
    for image in images:
        if tuple(image.shape) != grid.shape or image.dtype != torch.float16 or not image.isfinite().all():
            raise InputError(f"its images are no {grid.shape} finite values of float16")
