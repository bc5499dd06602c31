"""The training loop of the compact prior: pre-emptible, resumable, one process or torchrun."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
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
from ..priors.checkpoints import write_weights
from ..priors.compact import CompactConfig, CompactUNet
from ..priors.published import read_safetensors
from .averages import RunningAverages, average_of, snapshots
from .base import Losses, TrainingLoop, mean_loss, seeded
from .held_out import HeldOut, edm_losses
from .initial import fitted
from .memorisation import LIKE_PIXELS, PATCH_PX, check_patches
from .samples import draw_samples, save_sample_grid
from .settings import TrainSettings
from .slices import NoisySteps, SliceSampler, pixel_range, step_seed
from .stacks import Stack, read_stacks, split_by_patient

__all__ = ["TrainSettings", "Trainer", "train"]

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
    """Train a prior on all volumes below ``folders`` that fit ``glob``, or on shapes alone where there are no folders
    and ``settings.shapes`` is 1; returns the prior's safetensors file.

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
    stacks = list[Stack]()
    if not folders and settings.shapes < 1:
        raise InputError("no folder with volumes to train on; give one, or --shapes 1 for a prior of synthetic shapes")
    if folders:
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
        train, rest = split_by_patient(stacks, held_out, held_out_fraction) if stacks else ([], [])
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
        drawn: dict[str, Any] = {"seed": s.seed, "shares": shares, "across": s.across, **shape}
        drawn |= {"shapes": s.shapes, "discs": s.discs}
        sampler = SliceSampler(train, rank=rank, **drawn)
        self.steps = NoisySteps(sampler, s, network.multiple)
        count = s.held_out_images
        self.held_out = HeldOut.of(rest, count=count, **shape) if rest else HeldOut.of_shapes(sampler, count)
        # Of one and the same sample on every rank: all must agree on the preconditioning.
        sample = SliceSampler(train, **drawn).batch(2**31, 128)[0]
        self.sigma_data = max(round(float(sample.std()), 3), 0.001)
        self.spacings_mm = pixel_range(train) if train else ()

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
            self._judge()
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
            told = pixel_mm if self.network.config.knows_pixels else None
            return edm_losses(self.parallel, clean, sigma, noise, self.sigma_data, told, teacher).mean()

    def stepped(self, step: int) -> None:
        if self.averages is None:
            return
        self.averages.update(self.network, step)
        every = self.settings.snapshot_images
        if self.rank == 0 and self.seen // every > (self.seen - self.settings.batch * self.world) // every:
            self.averages.keep(self.folder / SNAPSHOTS, step)

    def evaluate(self) -> Losses:
        """Of the EMA network on the held-out images; see :meth:`.held_out.HeldOut.losses`."""
        told = self.network.config.knows_pixels
        where: dict[str, Any] = {"device": self.device, "precision": self.precision}
        return self.held_out.losses(self.ema, self.sigma_data, told=told, **where)

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

    def _judge(self) -> None:
        """Draw from the prior that is kept: a picture of what it has learnt, and on its card whether it repeats what it
        was shown.
        """
        card = read_card(self.network_file)
        best, weights = copy.deepcopy(self.ema), read_safetensors(self.network_file)
        best.load_state_dict(weights)
        pixel_mm = float(self.held_out.pixel_mm.max())  # the fewest pixels to search through
        high, size, where = self.settings.noise_range()[1], self.settings.size, (self.device, self.precision)
        samples = draw_samples(best, self.sigma_data, high, size, *where, pixel_mm=pixel_mm)
        save_sample_grid(samples, self.folder / "samples.png")
        if card.channels > 1 or size < PATCH_PX or not self.steps.sampler.stacks:
            return  # training slices are magnitudes, and shapes are made anew each time
        unseen = self.held_out.images[(self.held_out.pixel_mm / pixel_mm).log().abs() < math.log(LIKE_PIXELS)]
        found = check_patches(samples, unseen, self.steps.sampler.stacks, pixel_mm)
        if found is None:
            return
        training = card.training | {"memorisation": asdict(found) | {"pixel_mm": pixel_mm}}
        write_weights(weights, replace(card, training=training), self.network_file)

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
        }
        if self.spacings_mm:
            training["pixel_spacings_mm"] = list(self.spacings_mm)
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
