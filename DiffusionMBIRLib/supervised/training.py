"""Training of the supervised baselines: stage by stage on simulated scans, resumable, in one process."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..devices import arithmetic, choose_precision, precision_name
from ..errors import Cancelled, EngineError, InputError
from ..models import ModelCard, check_id
from ..monitor import Monitor, Silent
from ..tasks import SPARSE_VIEW
from ..training.settings import TrainSettings
from ..training.slices import Stack, find_volumes, load_stacks, split_by_patient
from .about import DEPARTURES, TITLES, network_name
from .consistency import data_consistency
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
    """Train a baseline on all CT volumes below ``folders`` that fit ``glob``; returns its safetensors file.

    output: a folder; where it holds a state of the same network, training goes on from there.  pairs_folder: of the
    simulated scans, which networks of one task can share; by default inside ``output``.  hold_out: see
    :func:`DiffusionMBIRLib.training.loop.train`.  Of the settings those that concern noise levels do not count.

    Raises InputError, naming file or field, for data that cannot be used, and EngineError if training diverges.
    """
    monitor, folder = monitor or Silent(), Path(output)
    settings = settings or TrainSettings()
    files, stacks = find_volumes(folders, glob), []
    for number, path in enumerate(files, start=1):
        stacks += load_stacks(path, patient_regex, VALUE)
        monitor.tick("read volumes", number, len(files))
    folder.mkdir(parents=True, exist_ok=True)
    trainer = SupervisedTrainer(
        stacks,
        folder,
        network=network,
        settings=settings,
        pairs=pairs or PairSettings(size=settings.size, seed=settings.seed),
        pairs_folder=Path(pairs_folder) if pairs_folder else folder / "pairs",
        model_id=check_id(model_id or network_name(network.kind, network.task)),
        held_out=hold_out,
        device=device or torch.device("cpu"),
        monitor=monitor,
    )
    return trainer.run()


class SupervisedTrainer:
    """Holds network, averaged weights, optimiser and pairs.  ``run`` trains the stages one after the other, each on its
    share of ``settings.images``; the inputs of a later stage are what the earlier ones make of the scans.
    """

    def __init__(
        self,
        stacks: Sequence[Stack],
        folder: Path,
        *,
        network: SupervisedConfig,
        settings: TrainSettings,
        pairs: PairSettings,
        pairs_folder: Path,
        model_id: str,
        held_out: Sequence[str] = (),
        held_out_fraction: float = 0.15,
        device: torch.device,
        monitor: Monitor | None = None,
    ) -> None:
        if pairs.size % network.multiple:
            raise InputError(f"setting size: {pairs.size} must be a multiple of {network.multiple} for this network")
        self.config, self.folder, self.device, self.model_id = network, folder, device, model_id
        self.precision = choose_precision("auto", device)
        self.settings = replace(settings, images=max(settings.batch, settings.images // network.stages))  # of a stage
        self.monitor, self.pair_settings = monitor or Silent(), pairs
        train, rest = split_by_patient(stacks, held_out, held_out_fraction)
        self.patients = sorted({s.patient for s in train}), sorted({s.patient for s in rest})
        self.pairs = Pairs(train, pairs_folder, network.task, pairs, "training")
        self.held_out_pairs = Pairs(rest, pairs_folder, network.task, pairs, "held out")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.network = StagedNetwork(network)
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.optimizer = self._optimizer(0)
        self.stage, self.seen, self.seconds = 0, 0, 0.0
        self.total = 0  # images of all stages; a resumed run may have been given another length
        self._resume()

    def _optimizer(self, stage: int) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.network.stages[stage].parameters(), lr=1e-4, betas=(0.9, 0.98), fused=True)

    @property
    def state_file(self) -> Path:
        return self.folder / "training-state.pt"

    @property
    def network_file(self) -> Path:
        return self.folder / f"{self.model_id}.safetensors"

    # --- the run

    def run(self) -> Path:
        """Train to the end; returns the network's file.  A monitor that cancels leaves a state to go on from."""
        blocks, held_out = self._blocks()
        for stage in range(self.stage, self.config.stages):
            if stage > self.stage:
                self.stage, self.seen, self.optimizer = stage, 0, self._optimizer(stage)
            inputs, checked = self._inputs(blocks, "training"), self._inputs(held_out, "held-out")
            try:
                self._train(_Batches(blocks, inputs, self.pair_settings.size, self.settings), held_out, checked)
            except Cancelled:
                self._save_state()
                raise
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
                x = self._apply(self.ema, block, x, stage)
                penalty, steps = self.config.penalty, self.config.cg_steps
                x = data_consistency(problem.A, problem.y, x, penalty=penalty, steps=steps).contiguous().half()
                self.monitor.tick(f"{what} images of stage {self.stage + 1}", number, len(blocks))
            out.append(x)
        return out

    def _apply(self, network: nn.Module, block: Block, x: Tensor, stage: int) -> Tensor:
        told = torch.full((16,), block.condition, device=self.device)
        parts = []
        for part in x.split(16):
            with arithmetic(self.device, self.precision):
                image = _channels_last(part[:, None].float().to(self.device))
                parts.append(network(image, told[: len(part)], stage)[:, 0].float().cpu())
        return torch.cat(parts)

    def _train(self, batches: _Batches, held_out: Sequence[Block], inputs: Sequence[Tensor]) -> None:
        s = self.settings
        steps = range(self.seen // s.batch, math.ceil(s.images / s.batch))
        saved = started = time.monotonic()
        before, recent = self.seconds, deque[Tensor](maxlen=100)
        for step, batch in zip(steps, batches.of(steps), strict=True):
            recent.append(self._step(step, *(part.to(self.device) for part in batch)))
            self.seen, self.total = self.seen + s.batch, self.total + s.batch
            self.seconds = before + time.monotonic() - started
            if time.monotonic() - saved > 60 * s.save_minutes or step == steps[-1]:
                self._checkpoint(float(torch.stack(list(recent)).mean()), held_out, inputs)
                saved = time.monotonic()
            if step % 20 == 0 or step == steps[-1]:
                loss = float(torch.stack(list(recent)).mean())
                self.monitor.tick(f"train stage {self.stage + 1}", self.seen, s.images, loss=loss)

    def _step(self, step: int, x: Tensor, truth: Tensor, told: Tensor, weight: Tensor) -> Tensor:
        s, stage = self.settings, self.network.stages[self.stage]
        for group in self.optimizer.param_groups:
            group["lr"] = s.rate(self.seen)
        with arithmetic(self.device, self.precision):
            restored = self.network(_channels_last(x), told, self.stage)
        loss = ((restored.float() - truth).square().mean(dim=(1, 2, 3)) * weight).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
        self.optimizer.step()
        decay = min(s.ema, (step + 1) / (step + 10))
        averaged: list[Tensor] = list(self.ema.stages[self.stage].parameters())
        with torch.no_grad():
            torch._foreach_lerp_(averaged, list[Tensor](stage.parameters()), 1 - decay)
        return loss.detach()

    # --- judging and keeping

    @torch.inference_mode()
    def evaluate(self, blocks: Sequence[Block], inputs: Sequence[Tensor]) -> dict[str, float]:
        """Error energy that the averaged network leaves of FBP's on held-out slices, for each geometry."""
        left = {}
        for block, x in zip(blocks, inputs, strict=True):
            restored = self._apply(self.ema, block, x, self.stage)
            error = float((restored - block.truth.float()).square().mean())
            left[str(block.measurement.geometry.views)] = round(error / block.error, 5)
        return left

    def _checkpoint(self, train_loss: float, held_out: Sequence[Block], inputs: Sequence[Tensor]) -> None:
        """Held-out loss, one line of statistics, the network's file and the state to resume from."""
        left = self.evaluate(held_out, inputs)
        mean = sum(left.values()) / len(left)
        if not math.isfinite(mean + train_loss):
            raise EngineError("training has diverged; the last checkpoint is kept: resume with a lower learning_rate")
        line: dict[str, Any] = {"stage": self.stage + 1, "images": self.seen, "seconds": round(self.seconds)}
        line |= {"train": round(train_loss, 5), "held_out": round(mean, 5), "per_geometry": left}
        with (self.folder / "stats.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self._export(left)
        self._save_state()

    def _save_state(self) -> None:
        state: dict[str, Any] = {"network": self.network.state_dict(), "ema": self.ema.state_dict()}
        state |= {"optimizer": self.optimizer.state_dict(), "stage": self.stage, "seen": self.seen, "total": self.total}
        state |= {"seconds": self.seconds, "config": json.dumps(self.config.to_dict(), sort_keys=True)}
        temporary = self.state_file.with_suffix(".tmp")
        try:
            torch.save(state, temporary)
            os.replace(temporary, self.state_file)
        except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
            raise EngineError(f"{self.state_file}: could not be written; is the disk full? ({error})") from None

    def _resume(self) -> None:
        if not self.state_file.is_file():
            return
        try:
            state = torch.load(self.state_file, map_location=self.device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError):
            raise InputError(f"{self.state_file}: is damaged; delete it to train from the start") from None
        if not isinstance(state, Mapping) or state.get("config") != json.dumps(self.config.to_dict(), sort_keys=True):
            raise InputError(f"{self.state_file}: holds another network; choose another output folder")
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        self.stage, self.seen, self.total = state["stage"], state["seen"], state["total"]
        self.seconds = state["seconds"]
        self.optimizer = self._optimizer(self.stage)
        self.optimizer.load_state_dict(state["optimizer"])

    def _export(self, left: Mapping[str, float]) -> None:
        """The averaged weights with their card, and who was held out in a file that stays here: names are private."""
        from ..priors.checkpoints import save_prior

        split = {"train_patients": self.patients[0], "held_out_patients": self.patients[1]}
        (self.folder / "split.json").write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")
        training = {
            "stage": self.stage + 1,
            "images_seen": self.total,
            "seconds": round(self.seconds),
            "error_left_of_fbp": dict(left),
            "train_patients": len(self.patients[0]),
            "held_out_patients": len(self.patients[1]),
            "precision": precision_name(self.precision),
            "settings": asdict(self.settings),
            "pairs": asdict(self.pair_settings),
        }
        card = ModelCard(
            id=self.model_id,
            modality="CT",
            title=f"{TITLES[self.config.kind]}, supervised",
            value=VALUE,
            network=self.config.to_dict(),
            training=training,
            limits=f"{DEPARTURES[self.config.kind]} Research use only, not for diagnosis.",
        )
        save_prior(self.ema, card, self.network_file)


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
