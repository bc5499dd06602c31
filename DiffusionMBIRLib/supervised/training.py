"""Training of the supervised baselines: stage by stage on simulated scans, resumable, in one process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..devices import arithmetic
from ..errors import InputError
from ..models import MR_VALUE, check_id
from ..monitor import Monitor, Silent
from ..tasks import MR_TASK, SPARSE_VIEW
from ..training.base import Losses
from ..training.settings import TrainSettings
from ..training.stacks import Stack, read_stacks
from .about import network_name
from .consistency import data_consistency
from .kspace_training import KSpaceTrainer
from .loop import BaselineLoop
from .networks import StagedNetwork, SupervisedConfig
from .pairs import VALUE, Block, Pairs, PairSettings, problem_of

HELD_OUT_IMAGES = 16  # of each geometry


def train_supervised(
    folders: Sequence[str | Path],
    output: str | Path,
    *,
    network: SupervisedConfig,
    settings: TrainSettings | None = None,
    pairs: PairSettings | None = None,
    pairs_folder: str | Path | None = None,
    glob: str = "*",
    patient_regex: str | None = None,
    hold_out: Sequence[str] = (),
    model_id: str = "",
    device: torch.device | None = None,
    monitor: Monitor | None = None,
) -> Path:
    """Train a baseline on all volumes below ``folders`` that fit ``glob``; returns its safetensors file.

    output: a folder; where it holds a state of the same network, training goes on from there.  pairs_folder: of the
    simulated scans of CT, which networks of one task can share; by default inside ``output``.  hold_out: see
    :func:`DiffusionMBIRLib.training.loop.train`.  Of the settings those that concern noise levels do not count.

    Raises InputError, naming file or field, for data that cannot be used, and EngineError if training diverges.
    """
    monitor, folder = monitor or Silent(), Path(output)
    settings = settings or TrainSettings()
    of_mr = network.task == MR_TASK
    stacks = read_stacks(folders, glob, patient_regex, MR_VALUE if of_mr else VALUE, monitor)
    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {
        "network": network,
        "settings": settings,
        "model_id": check_id(model_id or network_name(network.kind, network.task)),
        "held_out": hold_out,
        "device": device or torch.device("cpu"),
        "monitor": monitor,
    }
    if of_mr:
        return KSpaceTrainer(stacks, folder, **options).run()
    scans = pairs or PairSettings(size=settings.size, seed=settings.seed)
    kept = Path(pairs_folder) if pairs_folder else folder / "pairs"
    return SupervisedTrainer(stacks, folder, pairs=scans, pairs_folder=kept, **options).run()


class SupervisedTrainer(BaselineLoop):
    """Trains a baseline.  ``run`` trains the stages one after the other, each on its share of ``settings.images``; the
    inputs of a later stage are what the earlier ones make of the scans.
    """

    modality, value = "CT", VALUE

    def __init__(
        self,
        stacks: Sequence[Stack],
        folder: Path,
        *,
        network: SupervisedConfig,
        settings: TrainSettings,
        pairs: PairSettings,
        pairs_folder: Path,
        **options: Any,
    ) -> None:
        """options: of :class:`.loop.BaselineLoop`."""
        if pairs.size % network.multiple:
            raise InputError(f"setting size: {pairs.size} must be a multiple of {network.multiple} for this network")
        of_a_stage = replace(settings, images=max(settings.batch, settings.images // network.stages))
        super().__init__(stacks, folder, network=network, settings=of_a_stage, **options)
        (train, rest), self.pair_settings = self.split, pairs
        self.pairs = Pairs(train, pairs_folder, network.task, pairs, "training")
        self.held_out_pairs = Pairs(rest, pairs_folder, network.task, pairs, "held out")
        self.earlier = 0  # images of the stages before; a resumed run may have been given another length
        self.resume()

    def trained(self, network: StagedNetwork) -> nn.Module:
        return network.stages[self.stage]

    # --- the run

    def run(self) -> Path:
        """Train to the end; returns the network's file.  A monitor that cancels leaves a state to go on from."""
        blocks, held_out = self._blocks()
        for stage in range(self.stage, self.config.stages):
            if stage > self.stage:
                self.stage, self.seen, self.earlier = stage, 0, self.earlier + self.seen
                self.optimizer = self.new_optimizer()
            inputs = self._inputs(blocks, "training")
            self._drawn = _Batches(blocks, inputs, self.pair_settings.size, self.settings)
            self._checked = held_out, self._inputs(held_out, "held-out")
            self.train_stage(f"train stage {stage + 1}")
        return self.network_file

    def _blocks(self) -> tuple[list[Block], list[Block]]:
        blocks = []
        for number in range(self.pair_settings.blocks):
            blocks.append(self.pairs.block(number))
            self.monitor.tick("simulate scans", number + 1, self.pair_settings.blocks)
        return blocks, self.held_out_pairs.fixed(min(HELD_OUT_IMAGES, self.pair_settings.images))

    @torch.inference_mode()
    def _inputs(self, blocks: Sequence[Block], what: str) -> list[Tensor]:
        """What the present stage sees of each block: FBP, or the data-consistent result of the stages before."""
        out = []
        for number, block in enumerate(blocks, start=1):
            x = block.fbp
            for stage in range(self.stage):
                problem = problem_of(block.measurement)
                x = self._apply(block, x, stage)
                penalty, steps = self.config.penalty, self.config.cg_steps
                x = data_consistency(problem.A, problem.y, x, penalty=penalty, steps=steps).contiguous().half()
                self.monitor.tick(f"{what} images of stage {self.stage + 1}", number, len(blocks))
            out.append(x)
        return out

    def _apply(self, block: Block, x: Tensor, stage: int) -> Tensor:
        """What a stage of the averaged network makes of a block's images."""
        told = torch.full((16,), block.condition, device=self.device)
        parts = []
        for part in x.split(16):
            with arithmetic(self.device, self.precision):
                image = _channels_last(part[:, None].float().to(self.device))
                parts.append(self.ema(image, told[: len(part)], stage)[:, 0].float().cpu())
        return torch.cat(parts)

    def batches(self, steps: range) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        return self._drawn.of(steps)

    def loss(self, step: int, *batch: Tensor) -> Tensor:
        x, truth, told, weight = batch
        with arithmetic(self.device, self.precision):
            restored = self.network(_channels_last(x), told, self.stage)
        return ((restored.float() - truth).square().mean(dim=(1, 2, 3)) * weight).mean()

    # --- judging and keeping

    def evaluate(self) -> Losses:
        return {"per_geometry": self.error_left(*self._checked)}

    @torch.inference_mode()
    def error_left(self, blocks: Sequence[Block], inputs: Sequence[Tensor]) -> dict[str, float]:
        """Error energy that the averaged network leaves of FBP's, for each geometry."""
        left = {}
        for block, x in zip(blocks, inputs, strict=True):
            restored = self._apply(block, x, self.stage)
            error = float((restored - block.truth.float()).square().mean())
            left[str(block.measurement.geometry.views)] = round(error / block.error, 5)
        return left

    def progress(self) -> dict[str, Any]:
        return {"stage": self.stage + 1} | super().progress()

    def own_state(self) -> dict[str, Any]:
        return {"stage": self.stage, "total": self.earlier + self.seen} | super().own_state()

    def take_own_state(self, state: Mapping[str, Any]) -> None:
        super().take_own_state(state)
        self.stage, self.earlier = state["stage"], state["total"] - state["seen"]

    def keep(self, held_out: float, losses: Losses) -> None:
        told = {"stage": self.stage + 1, "images_seen": self.earlier + self.seen}
        self.export_told(told | {"error_left_of_fbp": losses["per_geometry"], "pairs": asdict(self.pair_settings)})


class _Batches:
    """Windows of pairs drawn over all blocks.  Step k's batch depends on (seed, k) alone."""

    def __init__(self, blocks: Sequence[Block], inputs: Sequence[Tensor], size: int, settings: TrainSettings) -> None:
        self.blocks, self.inputs, self.size, self.settings = blocks, inputs, size, settings
        self.conditions = [block.condition for block in blocks]
        self.weights = [1 / block.error for block in blocks]

    def of(self, steps: range) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Input and truth (batch, 1, size, size), condition and weight (batch,) of each step."""
        for step in steps:
            generator = np.random.default_rng((self.settings.seed, step))
            drawn = [self._draw(generator) for _ in range(self.settings.batch)]
            inputs, truths, chosen = zip(*drawn, strict=True)
            x, truth = (torch.stack(images)[:, None].float() for images in (inputs, truths))
            told, weight = (torch.tensor([v[n] for n in chosen]) for v in (self.conditions, self.weights))
            yield x, truth, told, weight

    def _draw(self, generator: np.random.Generator) -> tuple[Tensor, Tensor, int]:
        number = int(generator.integers(len(self.blocks)))
        x, truth = self.inputs[number], self.blocks[number].truth
        index = int(generator.integers(len(x)))
        top, left = (int(generator.integers(n - self.size + 1)) for n in x.shape[1:])
        mirrored = self.blocks[number].measurement.task == SPARSE_VIEW and generator.random() < 0.5
        window = np.s_[index, top : top + self.size, left : left + self.size]
        # Mirrored views over the half circle are the same views, so that FBP of a mirrored slice is the mirrored FBP.
        pair = [image[window].flip(1) if mirrored else image[window] for image in (x, truth)]
        return pair[0], pair[1], number


def _channels_last(x: Tensor) -> Tensor:
    return x.to(memory_format=torch.channels_last, copy=True)
