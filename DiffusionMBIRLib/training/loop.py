"""The training loop of the compact prior: pre-emptible, resumable, one process or torchrun."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..devices import arithmetic, choose_device
from ..errors import InputError
from ..models import ModelCard, ValueScale, find, read_card, sha256
from ..monitor import Monitor, Silent
from ..priors.compact import CompactConfig, CompactUNet, edm_denoise
from ..priors.published import read_safetensors
from .averages import RunningAverages, average_of, snapshots
from .base import Losses, TrainingLoop, mean_loss, seeded
from .initial import fitted
from .settings import TrainSettings
from .slices import NoisySteps, SliceSampler, fixed_images, step_seed
from .stacks import Stack, read_stacks, split_by_patient

__all__ = ["TrainSettings", "Trainer", "train"]

HELD_OUT_SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SNAPSHOTS = "snapshots"  # a folder beside the state
TRIED_WIDTHS = (0.03, 0.06, 0.12, 0.2)  # of averages over the whole training, relative


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
    shares: Mapping[str, float] | None = None,
    licence: str = "",
    data: Sequence[Mapping[str, str]] = (),
    device: str | torch.device = "auto",
    monitor: Monitor | None = None,
) -> Path:
    """Train a prior on all volumes below ``folders`` that fit ``glob``; returns the prior's safetensors file.

    output: a folder; where it holds a state of the same network, training goes on from there.  patient_regex: see
    :func:`.slices.patient_of`.  hold_out: patients for the held-out loss, by default the last 15 percent in sorted
    order.  value: how the prior sees the data; HU by default, ``models.MR_VALUE`` for MR.  initial: id or file of a
    prior whose weights training starts from, as :func:`.initial.fitted` brings them into this network.  shares: of the
    images, for volumes whose names hold a text.  licence, data: what the card says of the data.

    Under torchrun each process trains on its own batches, on the GPU of its local rank where there are GPUs, and the
    first one writes.

    Raises InputError, naming file or field, for data that cannot be used, and EngineError if training diverges.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", model_id):
        raise InputError(f"model_id {model_id!r} becomes a file name: use letters, digits, '.', '_' and '-'")
    rank, monitor = int(os.environ.get("RANK", 0)), monitor or Silent()
    value, target = value or ValueScale(), _device(device)
    settings = settings or TrainSettings()
    told = monitor if rank == 0 else Silent()
    stacks = read_stacks(folders, glob, patient_regex, value, told, across=settings.across > 0)
    Path(output).mkdir(parents=True, exist_ok=True)
    with _process_group(target):
        trainer = Trainer(
            stacks,
            Path(output),
            network=network or CompactConfig(knows_pixels=True),
            settings=settings,
            value=value,
            model_id=model_id,
            held_out=hold_out,
            initial=initial,
            shares=shares,
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


def edm_losses(
    network: nn.Module,
    clean: Tensor,
    sigma: Tensor,
    noise: Tensor,
    sigma_data: float,
    pixel_mm: Tensor | None = None,
    teacher: nn.Module | None = None,
) -> Tensor:
    """EDM's weighted denoising loss (batch,) (Karras et al. 2022, Table 1): about 1 for an untrained network at every
    sigma.  With a teacher, from what that one makes of the same noisy images in place of the clean ones.
    """
    s = sigma[:, None, None, None]
    weight = (s.square() + sigma_data**2) / (s * sigma_data).square()
    noisy, target = clean + s * noise, clean
    if teacher is not None:
        with torch.no_grad():
            target = edm_denoise(teacher, noisy, sigma, sigma_data)
    error = edm_denoise(network, noisy, sigma, sigma_data, pixel_mm) - target
    return (weight * error.square()).mean(dim=(1, 2, 3))


class Trainer(TrainingLoop[CompactUNet]):
    """Trains a prior; ``run`` goes on until ``settings.images`` were seen.

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
        shares: Mapping[str, float] | None = None,
        licence: str = "",
        data: Sequence[Mapping[str, str]] = (),
        device: torch.device,
        monitor: Monitor | None = None,
    ) -> None:
        if settings.size % network.multiple:
            raise InputError(f"setting size: {settings.size} must be a multiple of {network.multiple} for this network")
        if network.image_channels == 2 and value.unit == "HU":
            raise InputError("--channels 2 (real and imaginary part) is for MR; add --modality MR")
        grouped = dist.is_available() and dist.is_initialized()
        rank, world = (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)
        train, rest = split_by_patient(stacks, held_out, held_out_fraction)
        self._take_data(train, rest, settings, value, network, rank, shares or {})
        self.value, self.licence, self.data = value, licence, [dict(entry) for entry in data]
        self.teacher: CompactUNet | None = None
        first = seeded(lambda: CompactUNet(network), settings.seed)  # the same weights on every rank
        self.initial = self._start_from(initial, first, settings, device) if initial else {}
        super().__init__(
            first,
            folder,
            settings=settings,
            model_id=model_id,
            stacks=(train, rest),
            device=device,
            monitor=monitor,
            rank=rank,
            world=world,
        )
        self.best = math.inf
        self.averages = RunningAverages(self.network) if settings.snapshot_images else None
        self.resume()
        self.parallel: nn.Module = nn.parallel.DistributedDataParallel(self.network) if world > 1 else self.network
        if settings.compile:
            self.parallel = torch.compile(self.parallel)  # type: ignore[assignment]

    def _take_data(
        self,
        train: list[Stack],
        rest: list[Stack],
        s: TrainSettings,
        value: ValueScale,
        network: CompactConfig,
        rank: int,
        shares: Mapping[str, float],
    ) -> None:
        shape: dict[str, Any] = {"size": s.size, "value": value, "channels": network.image_channels}
        drawn: dict[str, Any] = {"seed": s.seed, "shares": shares, "across": s.across, "shapes": s.shapes, **shape}
        self.steps = NoisySteps(SliceSampler(train, rank=rank, **drawn), s, network.multiple)
        acquired = [stack for stack in rest if not stack.across]
        self.held_out, self.held_out_mm = fixed_images(acquired, count=s.held_out_images, **shape)
        # Of one and the same sample on every rank: all must agree on the preconditioning.
        sample = SliceSampler(train, **drawn).batch(2**31, 128)[0]
        self.sigma_data = max(round(float(sample.std()), 3), 0.001)
        self.spacings_mm = sorted({round(stack.spacing_mm * k, 3) for stack in train for k in (1, 2)})

    def _start_from(
        self, initial: str | Path, network: CompactUNet, settings: TrainSettings, device: torch.device
    ) -> dict[str, str]:
        """Give the network another prior's weights; returns what the card says of it."""
        path = find(initial)
        card, weights = read_card(path), read_safetensors(path)
        try:
            network.load_state_dict(fitted(weights, network.config))
        except RuntimeError:
            raise InputError(f"{path}: its network is another than the one to train; give the same sizes") from None
        if settings.teacher_images and network.config.image_channels == card.channels:
            self.teacher = CompactUNet(CompactConfig.from_dict(card.network)).requires_grad_(False).to(device)
            self.teacher.load_state_dict(weights)
            self.teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.sigma_data = card.sigma_data  # of the inputs that these weights expect
        return {"id": card.id, "sha256": sha256(path)}

    def run(self) -> Path:
        """Train to the end; returns the file of the prior with the lowest held-out loss.

        A monitor that cancels leaves a state from which the same run goes on.
        """
        self.train_stage("train")
        if self.rank == 0:
            self._choose_average()
            self._picture()
        if self.world > 1:
            dist.barrier()  # rank 0 may still be writing
        return self.network_file

    def batches(self, steps: range) -> Iterable[Sequence[Tensor]]:
        return DataLoader(
            self.steps,
            batch_size=None,
            sampler=steps,
            num_workers=self.settings.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # its own, or it would draw from the global one
        )

    def loss(self, step: int, *batch: Tensor) -> Tensor:
        clean, sigma, noise, pixel_mm = batch
        if self.network.config.dropout:  # masks come from torch's global generator, which no state file holds
            torch.manual_seed(step_seed(self.settings.seed, self.rank, step))
        with arithmetic(self.device, self.precision):
            teacher = self.teacher if self.seen < self.settings.teacher_images else None
            told = self._told(pixel_mm)
            return edm_losses(self.parallel, clean, sigma, noise, self.sigma_data, told, teacher).mean()

    def _told(self, pixel_mm: Tensor) -> Tensor | None:
        return pixel_mm if self.network.config.knows_pixels else None

    def stepped(self, step: int) -> None:
        if self.averages is None:
            return
        self.averages.update(self.network, step)
        every = self.settings.snapshot_images
        if self.rank == 0 and self.seen // every > (self.seen - self.settings.batch * self.world) // every:
            self.averages.keep(self.folder / SNAPSHOTS, step)

    @torch.inference_mode()
    def evaluate(self) -> Losses:
        """Weighted loss of the EMA network on the held-out images with fixed noise: for each noise level, and for
        pixels from so many mm to twice that, the mean over the levels.
        """
        losses = torch.stack([self._losses_at(sigma) for sigma in HELD_OUT_SIGMAS])
        octaves = self.held_out_mm.log2().floor()
        per_pixel = {f"{2.0**k:g}": losses[:, octaves == k].mean() for k in sorted(set(octaves.tolist()))}
        per_sigma = {f"{sigma:g}": row.mean() for sigma, row in zip(HELD_OUT_SIGMAS, losses, strict=True)}
        tables = {"per_sigma": per_sigma, "per_pixel_mm": per_pixel}
        return {name: {k: round(float(v), 5) for k, v in table.items()} for name, table in tables.items()}

    def _losses_at(self, sigma: float) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        parts = []
        for clean, pixel_mm in zip(self.held_out.split(16), self.held_out_mm.split(16), strict=True):
            noise = torch.randn(clean.shape, generator=generator).to(self.device)
            level = torch.full((len(clean),), sigma, device=self.device)
            told = self._told(pixel_mm.to(self.device))
            with arithmetic(self.device, self.precision):
                parts.append(edm_losses(self.ema, clean.to(self.device), level, noise, self.sigma_data, told).cpu())
        return torch.cat(parts)

    def _choose_average(self) -> None:
        """Of averages over more or less of the training, keep the one that does best on held-out images, if any is
        better than the networks before.
        """
        per_step = self.settings.batch * self.world
        files = snapshots(self.folder / SNAPSHOTS, until=math.ceil(self.seen / per_step))
        usual = self.ema.state_dict()
        for width in TRIED_WIDTHS if files else ():
            self.ema.load_state_dict(average_of(files, width))
            losses = self.evaluate()
            if mean_loss(losses) < self.best:
                self.best = mean_loss(losses)
                self.export(self._card(losses, width))
        self.ema.load_state_dict(usual)

    def _picture(self) -> None:
        """Samples of the averaged network: what it has learnt."""
        from .samples import save_sample_grid

        high = self.settings.noise_range()[1]
        picture, size = self.folder / "samples.png", self.settings.size
        save_sample_grid(self.ema, self.sigma_data, high, size, picture, self.device, self.precision)

    def progress(self) -> dict[str, Any]:
        return super().progress() | {"rate": self.settings.rate(self.seen)}

    def keep(self, held_out: float, losses: Losses) -> None:
        """The best prior so far."""
        if held_out < self.best:
            self.best = held_out
            self.export(self._card(losses))

    def own_state(self) -> dict[str, Any]:
        averages = {"averages": self.averages.state()} if self.averages else {}
        return {"best": self.best, "sigma_data": self.sigma_data, **averages}

    def take_own_state(self, state: Mapping[str, Any]) -> None:
        self.best, self.sigma_data = state["best"], state["sigma_data"]
        if self.averages:
            self.averages.load(state["averages"])

    def _card(self, losses: Losses, width: float | None = None) -> ModelCard:
        """width: of an average over the training; None for the usual one."""
        training = self.training_entries() | {
            "images_seen": self.seen,
            "steps": self.seen // (self.settings.batch * self.world),
            "held_out_loss": losses["per_sigma"],
            "held_out_loss_per_pixel_mm": losses["per_pixel_mm"],
            "pixel_spacings_mm": [self.spacings_mm[0], self.spacings_mm[-1]],
        }
        if width:
            training["average_width"] = width
        if self.initial:
            training["initial"] = self.initial
        low, high = self.settings.noise_range()
        return ModelCard(
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
