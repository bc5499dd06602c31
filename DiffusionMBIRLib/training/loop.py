"""The training loop of the compact prior: pre-emptible, resumable, one process or torchrun."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import pickle
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..devices import arithmetic, choose_device, choose_precision, precision_name
from ..errors import Cancelled, EngineError, InputError
from ..models import ModelCard, ValueScale, find, read_card, sha256
from ..monitor import Monitor, Silent
from ..priors.compact import CompactConfig, CompactUNet, edm_denoise
from ..priors.published import read_safetensors
from .complex_images import for_real_and_imaginary
from .settings import TrainSettings
from .slices import (
    NoisySteps,
    SliceSampler,
    Stack,
    find_volumes,
    fixed_images,
    load_stacks,
    split_by_patient,
    step_seed,
)

__all__ = ["TrainSettings", "Trainer", "find_volumes", "load_stacks", "train"]

HELD_OUT_SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


def train(
    folders: Sequence[str | Path],
    output: str | Path,
    *,
    settings: TrainSettings | None = None,
    glob: str = "*",
    patient_regex: str | None = None,
    hold_out: Sequence[str] = (),
    network: CompactConfig | None = None,
    model_id: str = "my-prior",
    value: ValueScale | None = None,
    initial: str | Path | None = None,
    licence: str = "",
    data: Sequence[Mapping[str, str]] = (),
    device: str | torch.device = "auto",
    monitor: Monitor | None = None,
) -> Path:
    """Train a prior on all volumes below ``folders`` that fit ``glob``; returns the prior's safetensors file.

    output: a folder; where it holds a state of the same network, training goes on from there.  patient_regex: see
    :func:`.slices.patient_of`.  hold_out: patients for the held-out loss, by default the last 15 percent in sorted
    order.  value: how the prior sees the data; HU by default, ``models.MR_VALUE`` for MR.  initial: id or file of a
    prior of the same network whose weights training starts from; that of magnitudes may start one of complex images.
    licence, data: what the card says of the data.

    Under torchrun each process trains on its own batches, on the GPU of its local rank where there are GPUs, and the
    first one writes.

    Raises InputError, naming file or field, for data that cannot be used, and EngineError if training diverges.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", model_id):
        raise InputError(f"model_id {model_id!r} becomes a file name: use letters, digits, '.', '_' and '-'")
    rank, monitor = int(os.environ.get("RANK", 0)), monitor or Silent()
    value, target = value or ValueScale(), _device(device)
    files = find_volumes(folders, glob)
    stacks = []
    for number, path in enumerate(files, start=1):
        stacks += load_stacks(path, patient_regex, value)
        if rank == 0:
            monitor.tick("read volumes", number, len(files))
    Path(output).mkdir(parents=True, exist_ok=True)
    with _process_group(target):
        trainer = Trainer(
            stacks,
            Path(output),
            network=network or CompactConfig(),
            settings=settings or TrainSettings(),
            value=value,
            model_id=model_id,
            held_out=hold_out,
            initial=initial,
            licence=licence,
            data=data,
            device=target,
            monitor=monitor,
        )
        return trainer.run()


def _device(name: str | torch.device) -> torch.device:
    """The device to train on; 'auto' and 'cuda' mean the GPU of this process under torchrun."""
    device = choose_device(str(name))
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    return device


@contextlib.contextmanager
def _process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started, and leave them at the end."""
    join = int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized()
    if join:
        cuda = device.type == "cuda"
        dist.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    try:
        yield
    finally:
        if join:
            dist.destroy_process_group()


def edm_loss(network: nn.Module, clean: Tensor, sigma: Tensor, noise: Tensor, sigma_data: float) -> Tensor:
    """EDM's weighted denoising loss (Karras et al. 2022, Table 1): about 1 for an untrained network at every sigma."""
    s = sigma[:, None, None, None]
    weight = (s.square() + sigma_data**2) / (s * sigma_data).square()
    return (weight * (edm_denoise(network, clean + s * noise, sigma, sigma_data) - clean).square()).mean()


class Trainer:
    """Holds network, EMA, optimiser and data of one process; ``run`` trains until ``settings.images`` were seen.

    With more than one process (torch.distributed initialised) gradients are averaged and rank 0 writes.
    """

    def __init__(
        self,
        stacks: Sequence[Stack],
        folder: Path,
        *,
        network: CompactConfig,
        settings: TrainSettings,
        value: ValueScale,
        model_id: str,
        held_out: Sequence[str] = (),
        held_out_fraction: float = 0.15,
        initial: str | Path | None = None,
        licence: str = "",
        data: Sequence[Mapping[str, str]] = (),
        device: torch.device,
        monitor: Monitor | None = None,
    ) -> None:
        if settings.size % network.multiple:
            raise InputError(f"setting size: {settings.size} must be a multiple of {network.multiple} for this network")
        grouped = dist.is_available() and dist.is_initialized()
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)
        self.settings, self.folder, self.device, self.value = settings, folder, device, value
        self.precision = choose_precision("auto", device)
        self.model_id, self.monitor = model_id, (monitor if monitor and not self.rank else Silent())
        self.licence, self.data = licence, [dict(entry) for entry in data]
        if network.image_channels == 2 and value.unit == "HU":
            raise InputError("--channels 2 (real and imaginary part) is for MR; add --modality MR")
        self._take_data(stacks, held_out, held_out_fraction, network.image_channels)
        with torch.random.fork_rng(devices=[]):  # the same weights on every rank
            torch.manual_seed(settings.seed)
            self.network = CompactUNet(network)
        self.initial = self._take_weights(initial) if initial else {}
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4, betas=(0.9, 0.98), fused=True)
        self.seen, self.best, self.seconds = 0, math.inf, 0.0
        self._resume()
        self.parallel: nn.Module = nn.parallel.DistributedDataParallel(self.network) if self.world > 1 else self.network
        if settings.compile:
            self.parallel = torch.compile(self.parallel)  # type: ignore[assignment]

    def _take_data(self, stacks: Sequence[Stack], held_out: Sequence[str], fraction: float, channels: int) -> None:
        s = self.settings
        train, rest = split_by_patient(stacks, held_out, fraction)
        self.patients = sorted({stack.patient for stack in train}), sorted({stack.patient for stack in rest})
        self.spacings_mm = sorted({round(stack.spacing_mm * k, 3) for stack in train for k in (1, 2)})
        shape: dict[str, Any] = {"size": s.size, "value": self.value, "channels": channels}
        self.sampler = SliceSampler(train, seed=s.seed, rank=self.rank, **shape)
        self.held_out = fixed_images(rest, count=s.held_out_images, **shape)
        # Of one and the same sample on every rank: all must agree on the preconditioning.
        sample = SliceSampler(train, seed=s.seed, **shape).batch(2**31, 128)
        self.sigma_data = max(round(float(sample.std()), 3), 0.001)

    def _take_weights(self, initial: str | Path) -> dict[str, str]:
        """Start from another prior's weights; returns what the card says of it."""
        path = find(initial)
        card, weights = read_card(path), read_safetensors(path)
        if self.network.config.image_channels == 2 and card.channels == 1:
            weights = for_real_and_imaginary(weights)
            self.sigma_data = card.sigma_data  # of the inputs that these weights expect
        try:
            self.network.load_state_dict(weights)
        except RuntimeError:
            raise InputError(f"{path}: its network is another than the one to train; give the same sizes") from None
        return {"id": card.id, "sha256": sha256(path)}

    @property
    def state_file(self) -> Path:
        return self.folder / "training-state.pt"

    @property
    def prior_file(self) -> Path:
        return self.folder / f"{self.model_id}.safetensors"

    def _resume(self) -> None:
        if not self.state_file.is_file():
            return
        try:
            state = torch.load(self.state_file, map_location=self.device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError):
            raise InputError(f"{self.state_file}: is damaged; delete it to train from the start") from None
        try:
            self.network.load_state_dict(state["network"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.seen, self.best, self.seconds = state["seen"], state["best"], state["seconds"]
            self.sigma_data = state["sigma_data"]
        except (KeyError, RuntimeError, ValueError, TypeError):
            raise InputError(f"{self.state_file}: holds another network; choose another output folder") from None
        if self.rank == 0:
            self._trim_statistics()

    def run(self) -> Path:
        """Train to the end; returns the file of the prior with the lowest held-out loss.

        A monitor that cancels leaves a state from which the same run goes on.
        """
        try:
            self._run()
        except Cancelled:
            if self.rank == 0:
                self._save_state()
            raise
        if self.world > 1:
            dist.barrier()  # rank 0 may still be writing
        return self.prior_file

    def _run(self) -> None:
        s, per_step = self.settings, self.settings.batch * self.world
        steps = range(self.seen // per_step, math.ceil(s.images / per_step))
        loader = DataLoader(
            NoisySteps(self.sampler, s),
            batch_size=None,
            sampler=steps,
            num_workers=s.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # its own, or it would draw from the global one
        )
        saved = started = time.monotonic()
        before = self.seconds
        recent: deque[Tensor] = deque(maxlen=100)
        total, count = torch.zeros((), device=self.device), 0
        for step, batch in zip(steps, loader, strict=True):
            loss = self._step(step, *(part.to(self.device, non_blocking=True) for part in batch))
            recent.append(loss)
            total, count = total + loss, count + 1
            self.seen += per_step
            self.seconds = before + time.monotonic() - started
            if time.monotonic() - saved > 60 * s.save_minutes or step == steps[-1]:
                self._checkpoint(float(total) / count)
                saved, total, count = time.monotonic(), torch.zeros_like(total), 0
            if step % 20 == 0 or step == steps[-1]:
                self.monitor.tick("train", self.seen, s.images, loss=float(torch.stack(list(recent)).mean()))

    def _step(self, step: int, clean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        s = self.settings
        if self.network.config.dropout:  # masks come from torch's global generator, which no state file holds
            torch.manual_seed(step_seed(s.seed, self.rank, step))
        for group in self.optimizer.param_groups:
            group["lr"] = s.rate(self.seen)
        with arithmetic(self.device, self.precision):
            loss = edm_loss(self.parallel, clean, sigma, noise, self.sigma_data)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        decay = min(s.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.network.parameters()), 1 - decay)
        return loss.detach()

    @torch.inference_mode()
    def evaluate(self) -> dict[str, float]:
        """Weighted loss of the EMA network on the held-out images for each noise level, with fixed noise."""
        losses = {}
        for sigma in HELD_OUT_SIGMAS:
            generator = torch.Generator().manual_seed(1)
            parts = []
            for clean in self.held_out.split(16):
                noise = torch.randn(clean.shape, generator=generator).to(self.device)
                level = torch.full((len(clean),), sigma, device=self.device)
                with arithmetic(self.device, self.precision):
                    loss = edm_loss(self.ema, clean.to(self.device), level, noise, self.sigma_data)
                parts.append(float(loss) * len(clean))
            losses[f"{sigma:g}"] = round(sum(parts) / len(self.held_out), 5)
        return losses

    def _checkpoint(self, train_loss: float) -> None:
        """Held-out loss, one line of statistics, the best prior so far and the state to resume from (rank 0)."""
        if self.rank:
            return
        from .samples import save_sample_grid

        losses = self.evaluate()
        mean = sum(losses.values()) / len(losses)
        if not math.isfinite(mean + train_loss):
            raise EngineError("training has diverged; the last checkpoint is kept: resume with a lower learning_rate")
        line: dict[str, Any] = {
            "images": self.seen,
            "seconds": round(self.seconds),
            "rate": self.settings.rate(self.seen),
        }
        line |= {"train": round(train_loss, 5), "held_out": round(mean, 5), "per_sigma": losses}
        with self._statistics_file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        if mean < self.best:
            self.best = mean
            self._export(losses)
        high = self.settings.noise_range()[1]
        picture, size = self.folder / "samples.png", self.settings.size
        save_sample_grid(self.ema, self.sigma_data, high, size, picture, self.device, self.precision)
        self._save_state()

    def _save_state(self) -> None:
        state: dict[str, Any] = {"network": self.network.state_dict(), "ema": self.ema.state_dict()}
        state |= {"optimizer": self.optimizer.state_dict(), "seen": self.seen, "best": self.best}
        state |= {"seconds": self.seconds, "sigma_data": self.sigma_data}
        temporary = self.state_file.with_suffix(".tmp")
        try:
            torch.save(state, temporary)
            os.replace(temporary, self.state_file)
        except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
            raise EngineError(f"{self.state_file}: could not be written; is the disk full? ({error})") from None

    @property
    def _statistics_file(self) -> Path:
        return self.folder / "stats.jsonl"

    def _trim_statistics(self) -> None:
        """Drop lines from after the state (and a half-written one): the run was killed before it was saved."""
        if not self._statistics_file.is_file():
            return
        kept = []
        for line in self._statistics_file.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                if json.loads(line)["images"] <= self.seen:
                    kept.append(line + "\n")
        temporary = self._statistics_file.with_suffix(".tmp")
        temporary.write_text("".join(kept), encoding="utf-8")
        os.replace(temporary, self._statistics_file)

    def _export(self, losses: dict[str, float]) -> None:
        """The averaged weights with their card, and who was held out in a file that stays here: names are private."""
        from ..priors.checkpoints import save_prior

        split = {"train_patients": self.patients[0], "held_out_patients": self.patients[1]}
        (self.folder / "split.json").write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")
        training = {
            "images_seen": self.seen,
            "steps": self.seen // (self.settings.batch * self.world),
            "seconds": round(self.seconds),
            "held_out_loss": losses,
            "train_patients": len(self.patients[0]),
            "held_out_patients": len(self.patients[1]),
            "pixel_spacings_mm": [self.spacings_mm[0], self.spacings_mm[-1]],
            "precision": precision_name(self.precision),
            "settings": asdict(self.settings),
        }
        if self.initial:
            training["initial"] = self.initial
        low, high = self.settings.noise_range()
        card = ModelCard(
            id=self.model_id,
            modality="CT" if self.value.unit == "HU" else "MR",
            title="Compact 2D U-Net with EDM preconditioning",
            value=self.value,
            channels=self.network.config.image_channels,
            sigma_data=self.sigma_data,
            sigma_min=round(low, 5),
            sigma_max=round(high, 3),
            network=self.network.config.to_dict(),
            training=training,
            licence=self.licence,
            data=self.data,
        )
        save_prior(self.ema, card, self.prior_file)
