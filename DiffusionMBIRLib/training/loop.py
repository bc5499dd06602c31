"""The training loop of the compact prior: pre-emptible, resumable, one process or torchrun."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models import ModelCard, ValueScale
from ..monitor import Monitor, Silent
from ..priors.compact import CompactConfig, CompactUNet, edm_denoise
from .slices import SliceSampler, Stack, fixed_images, split_by_patient

HELD_OUT_SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one training run; ``schedule`` is 'constant' (with a linear decay over the last part) or 'cosine'."""

    images: int = 300_000
    batch: int = 16
    size: int = 128
    learning_rate: float = 6e-4
    schedule: str = "constant"
    decay_fraction: float = 0.2
    warmup_images: int = 4_000
    ema: float = 0.999
    noise_median: float = 0.12
    noise_spread: float = 1.4
    seed: int = 0
    save_minutes: float = 5.0
    held_out_images: int = 48

    def rate(self, seen: int) -> float:
        """Learning rate after ``seen`` images; a pure function, so that a resumed run may be given another length."""
        ramp = min(1.0, (seen + 1) / max(1, self.warmup_images))
        done = min(1.0, seen / self.images)
        if self.schedule == "cosine":
            return self.learning_rate * ramp * 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * ramp * min(1.0, (1 - done) / max(self.decay_fraction, 1e-9))


def edm_loss(network: nn.Module, clean: Tensor, sigma: Tensor, noise: Tensor, sigma_data: float) -> Tensor:
    """EDM's weighted denoising loss (Karras et al. 2022, Table 1): about 1 for an untrained network at every sigma."""
    s = sigma[:, None, None, None]
    weight = (s.square() + sigma_data**2) / (s * sigma_data).square()
    return (weight * (edm_denoise(network, clean + s * noise, sigma, sigma_data) - clean).square()).mean()


class Trainer:
    """Holds network, EMA, optimiser and data of one process; ``run`` trains until ``settings.images`` were seen."""

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
        device: torch.device,
        monitor: Monitor | None = None,
    ) -> None:
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.settings, self.folder, self.device, self.value = settings, folder, device, value
        self.model_id, self.monitor = model_id, monitor or Silent()
        if settings.schedule not in ("constant", "cosine"):
            raise InputError(f"schedule {settings.schedule!r} is not known; use constant or cosine")
        train, rest = split_by_patient(stacks, held_out, held_out_fraction)
        self.patients = sorted({s.patient for s in train}), sorted({s.patient for s in rest})
        self.spacings_mm = sorted({round(s.spacing_mm * k, 3) for s in train for k in (1, 2)})
        self.sampler = SliceSampler(train, size=settings.size, value=value, seed=settings.seed, rank=self.rank)
        self.held_out = fixed_images(rest, size=settings.size, value=value, count=settings.held_out_images)
        sample = self.sampler.batch(2**31, 128)
        self.sigma_data = round(float(sample.std()), 3)
        torch.manual_seed(settings.seed)
        self.network = CompactUNet(network).to(device, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4, betas=(0.9, 0.98), fused=True)
        self.seen, self.best, self.seconds = 0, math.inf, 0.0
        self._resume()
        self.parallel: nn.Module = self.network
        if self.world > 1:
            self.parallel = nn.parallel.DistributedDataParallel(self.network)

    @property
    def state_file(self) -> Path:
        return self.folder / "training-state.pt"

    def _resume(self) -> None:
        if not self.state_file.is_file():
            return
        state = torch.load(self.state_file, map_location=self.device, weights_only=True)
        try:
            self.network.load_state_dict(state["network"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError):
            raise InputError(f"{self.state_file}: holds another network; choose another output folder") from None
        self.seen, self.best, self.seconds = state["seen"], state["best"], state["seconds"]
        self.sigma_data = state["sigma_data"]

    def run(self) -> Path:
        """Train to the end; returns the file of the prior with the lowest held-out loss."""
        s = self.settings
        per_step = s.batch * self.world
        saved = started = time.monotonic()
        before, running = self.seconds, []
        while self.seen < s.images:
            step = self.seen // per_step
            running.append(self._step(step, s.batch))
            self.seen += per_step
            self.seconds = before + time.monotonic() - started
            if step % 20 == 0:
                loss = float(torch.stack(running[-100:]).mean())
                self.monitor.tick("train", self.seen, s.images, loss=loss)
            if time.monotonic() - saved > 60 * s.save_minutes or self.seen >= s.images:
                self._checkpoint(float(torch.stack(running).mean()))
                saved, running = time.monotonic(), []
        return self.folder / f"{self.model_id}.safetensors"

    def _step(self, step: int, batch: int) -> Tensor:
        s = self.settings
        clean = self.sampler.batch(step, batch).to(self.device)
        generator = torch.Generator().manual_seed(hash((s.seed, self.rank, step)) % 2**63)
        draws = torch.randn(batch, generator=generator)
        sigma = (math.log(s.noise_median) + s.noise_spread * draws).exp().to(self.device)
        noise = torch.randn(clean.shape, generator=generator).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = s.rate(self.seen)
        with torch.autocast(self.device.type, torch.bfloat16):
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
                with torch.autocast(self.device.type, torch.bfloat16):
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
        line = {"images": self.seen, "seconds": round(self.seconds), "rate": self.settings.rate(self.seen)}
        line |= {"train": round(train_loss, 5), "held_out": round(mean, 5), "per_sigma": losses}
        with (self.folder / "stats.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        if mean < self.best:
            self.best = mean
            self._export(losses)
        save_sample_grid(self.ema, self.sigma_data, self.settings.size, self.folder / "samples.png", self.device)
        state: dict[str, Any] = {"network": self.network.state_dict(), "ema": self.ema.state_dict()}
        state |= {"optimizer": self.optimizer.state_dict(), "seen": self.seen, "best": self.best}
        state |= {"seconds": self.seconds, "sigma_data": self.sigma_data}
        temporary = self.state_file.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.state_file)

    def _export(self, losses: dict[str, float]) -> None:
        from ..priors.checkpoints import save_prior

        training = {
            "images_seen": self.seen,
            "steps": self.seen // (self.settings.batch * self.world),
            "seconds": round(self.seconds),
            "held_out_loss": losses,
            "train_patients": self.patients[0],
            "held_out_patients": self.patients[1],
            "pixel_spacings_mm": [self.spacings_mm[0], self.spacings_mm[-1]],
            "settings": asdict(self.settings),
        }
        card = ModelCard(
            id=self.model_id,
            modality="CT" if self.value.unit == "HU" else "MR",
            title="Compact 2D U-Net with EDM preconditioning",
            value=self.value,
            sigma_data=self.sigma_data,
            network=self.network.config.to_dict(),
            training=training,
        )
        save_prior(self.ema, card, self.folder / f"{self.model_id}.safetensors")
