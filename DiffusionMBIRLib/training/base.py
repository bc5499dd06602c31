"""What the training of every network shares: steps, averaged weights, checkpoints, and going on after a kill."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import pickle
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ..devices import choose_precision, precision_name
from ..errors import Cancelled, EngineError, InputError
from ..models import ModelCard
from ..monitor import Monitor, Silent
from ..priors.checkpoints import save_prior
from .settings import TrainSettings
from .stacks import Stack

Network = TypeVar("Network", bound=nn.Module)
Losses = dict[str, dict[str, float]]


@dataclass(frozen=True)
class StateFile:
    """Holds what a run needs to go on: replaced as a whole, so that a kill leaves the state before."""

    path: Path

    def load(self, device: torch.device) -> Mapping[str, Any] | None:
        """The state; None where there is none yet.  Raises InputError for a file that cannot be read."""
        if not self.path.is_file():
            return None
        try:
            return torch.load(self.path, map_location=device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError):
            raise InputError(f"{self.path}: is damaged; delete it to train from the start") from None

    def save(self, state: Mapping[str, Any]) -> None:
        """Raises EngineError where the state cannot be written."""
        temporary = self.path.with_suffix(".tmp")
        try:
            torch.save(state, temporary)
            os.replace(temporary, self.path)
        except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
            raise EngineError(f"{self.path}: could not be written; is the disk full? ({error})") from None


@dataclass(frozen=True)
class Statistics:
    """One JSON object a line, each of a checkpoint."""

    path: Path

    def append(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def trim(self, done: tuple[int, int]) -> None:
        """Drop lines from after ``done`` (stage, images), and a half-written one: the run was killed before its state
        was saved.
        """
        if not self.path.is_file():
            return
        kept = []
        for text in self.path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if (line.get("stage", 1), line["images"]) <= done:
                    kept.append(text + "\n")
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(kept), encoding="utf-8")
        os.replace(temporary, self.path)


def seeded(build: Callable[[], Network], seed: int) -> Network:
    """A network whose first weights depend on the seed alone; torch's global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def mean_loss(losses: Losses) -> float:
    """The mean of the first table."""
    first = next(iter(losses.values()))
    return sum(first.values()) / len(first)


class TrainingLoop(ABC, Generic[Network]):
    """Holds a network, its averaged weights and its optimiser, and trains it for ``settings.images`` images.

    Of several processes (``rank`` of ``world``) each takes its own batches and the first one writes.  A subclass says
    what the batches are, their loss, how well the averaged network does on held-out images, and what the card tells.
    """

    def __init__(
        self,
        network: Network,
        folder: Path,
        *,
        settings: TrainSettings,
        model_id: str,
        stacks: tuple[Sequence[Stack], Sequence[Stack]],
        device: torch.device,
        monitor: Monitor | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """stacks: to train on, and held out."""
        self.settings, self.folder, self.model_id, self.device = settings, folder, model_id, device
        self.rank, self.world = rank, world
        self.monitor: Monitor = monitor if monitor and not rank else Silent()
        self.precision = choose_precision("auto", device)
        self.patients = tuple(sorted({stack.patient for stack in part}) for part in stacks)
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema: Network = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.stage, self.seen, self.seconds = 0, 0, 0.0  # images seen in the present stage; seconds of all
        self.optimizer = self.new_optimizer()
        self.state_file = StateFile(folder / "training-state.pt")
        self.statistics = Statistics(folder / "stats.jsonl")

    # --- what a subclass says

    @abstractmethod
    def batches(self, steps: range) -> Iterable[Sequence[Tensor]]:
        """The arguments of ``loss`` for each step, on any device; they depend on the settings and the step alone."""

    @abstractmethod
    def loss(self, step: int, *batch: Tensor) -> Tensor:
        """The loss of the network on a batch that lies on the device."""

    @abstractmethod
    def evaluate(self) -> Losses:
        """The held-out loss of the averaged network, for each kind of input, as the statistics name them; the mean of
        the first table is what counts.
        """

    @abstractmethod
    def keep(self, held_out: float, losses: Losses) -> None:
        """At a checkpoint: export the averaged network, where it is worth it."""

    @abstractmethod
    def own_state(self) -> dict[str, Any]:
        """What a state holds beside weights, optimiser, images and seconds."""

    @abstractmethod
    def take_own_state(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError for the state of another network."""

    def stepped(self, step: int) -> None:
        """After each step, which count from 1."""

    def trained(self, network: Network) -> nn.Module:
        """The part of the network, or of its average, that is trained at present."""
        return network

    def progress(self) -> dict[str, Any]:
        """How a line of statistics begins."""
        return {"images": self.seen, "seconds": round(self.seconds)}

    # --- the run

    @property
    def network_file(self) -> Path:
        return self.folder / f"{self.model_id}.safetensors"

    def new_optimizer(self) -> torch.optim.Optimizer:
        parameters = self.trained(self.network).parameters()
        return torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.98), fused=True)

    def train_stage(self, name: str) -> None:
        """Train to the end of the present stage; a monitor that cancels leaves a state to go on from."""
        try:
            self._train(name)
        except Cancelled:
            if self.rank == 0:
                self._save_state()
            raise

    def _train(self, name: str) -> None:
        s, per_step = self.settings, self.settings.batch * self.world
        steps = range(self.seen // per_step, math.ceil(s.images / per_step))
        saved = started = time.monotonic()
        before = self.seconds
        recent: deque[Tensor] = deque(maxlen=100)
        total, count = torch.zeros((), device=self.device), 0
        for step, batch in zip(steps, self.batches(steps), strict=True):
            loss = self._step(step, *(part.to(self.device, non_blocking=True) for part in batch))
            recent.append(loss)
            total, count = total + loss, count + 1
            self.seen += per_step
            self.stepped(step + 1)
            self.seconds = before + time.monotonic() - started
            if time.monotonic() - saved > 60 * s.save_minutes or step == steps[-1]:
                self._checkpoint(float(total) / count)
                saved, total, count = time.monotonic(), torch.zeros_like(total), 0
            if step % 20 == 0 or step == steps[-1]:
                self.monitor.tick(name, self.seen, s.images, loss=float(torch.stack(list(recent)).mean()))

    def _step(self, step: int, *batch: Tensor) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(self.seen)
        loss = self.loss(step, *batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        weights = list[Tensor](self.trained(self.network).parameters())
        nn.utils.clip_grad_norm_(weights, 1.0)
        self.optimizer.step()
        decay = min(self.settings.ema, (step + 1) / (step + 10))  # else the first weights would count for long
        with torch.no_grad():
            torch._foreach_lerp_(list[Tensor](self.trained(self.ema).parameters()), weights, 1 - decay)
        return loss.detach()

    # --- judging and keeping

    def _checkpoint(self, train_loss: float) -> None:
        """Held-out loss, one line of statistics, the network's file and the state to resume from (first process)."""
        if self.rank:
            return
        losses = self.evaluate()
        held_out = mean_loss(losses)
        if not math.isfinite(held_out + train_loss):
            raise EngineError("training has diverged; the last checkpoint is kept: resume with a lower learning_rate")
        means = {"train": round(train_loss, 5), "held_out": round(held_out, 5)}
        self.statistics.append(self.progress() | means | losses)
        self.keep(held_out, losses)
        self._save_state()

    def _save_state(self) -> None:
        weights = {"network": self.network.state_dict(), "ema": self.ema.state_dict()}
        counts = {"optimizer": self.optimizer.state_dict(), "seen": self.seen, "seconds": self.seconds}
        self.state_file.save(weights | counts | self.own_state())

    def resume(self) -> None:
        """Go on from the folder's state, if there is one; raises InputError for that of another network."""
        state = self.state_file.load(self.device)
        if state is None:
            return
        try:
            self.take_own_state(state)
            self.network.load_state_dict(state["network"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer = self.new_optimizer()  # of the stage that the state is in
            self.optimizer.load_state_dict(state["optimizer"])
            self.seen, self.seconds = state["seen"], state["seconds"]
        except (KeyError, RuntimeError, ValueError, TypeError):
            raise InputError(f"{self.state_file.path}: holds another network; choose another output folder") from None
        if self.rank == 0:
            self.statistics.trim((self.stage + 1, self.seen))

    def export(self, card: ModelCard) -> None:
        """The averaged weights with their card, and who was held out in a file that stays here: names are private."""
        split = {"train_patients": self.patients[0], "held_out_patients": self.patients[1]}
        (self.folder / "split.json").write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")
        save_prior(self.ema, card, self.network_file)

    def training_entries(self) -> dict[str, Any]:
        """What the card of any network tells of its training."""
        return {
            "seconds": round(self.seconds),
            "train_patients": len(self.patients[0]),
            "held_out_patients": len(self.patients[1]),
            "precision": precision_name(self.precision),
            "settings": asdict(self.settings),
        }
