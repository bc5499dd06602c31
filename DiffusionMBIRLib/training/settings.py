"""Settings of a training run; needs no torch, so that a command line can show them at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ..config import setting
from ..errors import InputError

SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one training run.  ``batch`` counts the images of one process, ``images`` those of all."""

    images: int = setting(300_000, "Images", "Images to see before training ends.", range=(1, 10**10))
    batch: int = setting(16, "Batch", "Images a step and process.", range=(1, 4096))
    size: int = setting(128, "Crop size", "Rows and columns of a training image.", unit="px", range=(8, 1024))
    learning_rate: float = setting(6e-4, "Learning rate", "Highest rate of AdamW.", range=(0.0, 1.0))
    schedule: str = setting("constant", "Schedule", "Rate: constant with a linear end, or cosine.", choices=SCHEDULES)
    decay_fraction: float = setting(0.2, "Decay", "Share of the run in which a constant rate falls.", range=(0.0, 1.0))
    warmup_images: int = setting(4_000, "Warm-up", "Images during which the rate rises.", range=(0, 10**9))
    ema: float = setting(0.999, "Averaging", "Decay of the averaged weights a step.", range=(0.0, 1.0))
    noise_median: float = setting(0.12, "Median noise", "Of the levels drawn, in the value scale.", range=(1e-4, 100.0))
    noise_spread: float = setting(1.4, "Noise spread", "Standard deviation of ln(sigma).", range=(0.0, 10.0))
    low_noise: float = setting(
        0.0, "Low noise", "Share of the levels drawn around 0.15 times the median, for detail.", range=(0.0, 1.0)
    )
    vary_size: bool = setting(
        True, "Vary size", "Steps of a prior take crops of 3/4, 1 and 3/2 times the side, as many pixels in each."
    )
    across: float = setting(
        0.1, "Across slices", "Share of images cut across the slices of nearly isotropic volumes.", range=(0.0, 1.0)
    )
    shapes: float = setting(
        0.03, "Shapes", "Share of synthetic shapes, of CT some of metal; 1: no volumes are needed.", range=(0.0, 1.0)
    )
    discs: float = setting(
        0.0, "Discs", "Of the shapes, share of discs of one material with holes that fill the image.", range=(0.0, 1.0)
    )
    teacher_images: int = setting(
        0,
        "Teacher",
        "Images at the start from which the prior that training starts from is imitated, which a network with fewer "
        "blocks soon can.",
        range=(0, 10**9),
    )
    snapshot_images: int = setting(
        25_000,
        "Snapshots",
        "Images between snapshots of averaged weights, whose best width is chosen in the end; 0: none.",
        range=(0, 10**9),
    )
    seed: int = setting(0, "Seed", "Seed of weights, crops and noise.", range=(0, 2**63 - 1))
    save_minutes: float = setting(5.0, "Save every", "Time between checkpoints.", unit="min", range=(0.0, 1440.0))
    held_out_images: int = setting(48, "Held-out images", "Images that the held-out loss is taken of.", range=(1, 4096))
    workers: int = setting(0, "Workers", "Processes that prepare batches; 0: the training process.", range=(0, 256))
    compile: bool = setting(False, "Compile", "Compile the network with torch.compile (pays on GPUs).")

    def __post_init__(self) -> None:
        for item in fields(self):
            value, limits, choices = getattr(self, item.name), item.metadata["range"], item.metadata["choices"]
            if limits and not (isinstance(value, int | float) and limits[0] <= value <= limits[1]):
                raise InputError(f"setting {item.name}: {value!r} is no number from {limits[0]:g} to {limits[1]:g}")
            if choices and value not in choices:
                raise InputError(f"{item.name} {value!r} is not known; use one of {', '.join(choices)}")

    def rate(self, seen: int) -> float:
        """Learning rate after ``seen`` images; a pure function, so that a resumed run may be given another length."""
        ramp = min(1.0, (seen + 1) / max(1, self.warmup_images))
        done = min(1.0, seen / self.images)
        if self.schedule == "cosine":
            return self.learning_rate * ramp * 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * ramp * min(1.0, (1 - done) / max(self.decay_fraction, 1e-9))

    def noise_range(self) -> tuple[float, float]:
        """The levels between which all but one in a thousand of the drawn ones lie (3.29 standard deviations)."""
        reach = math.exp(3.29 * self.noise_spread)
        return self.noise_median / reach, self.noise_median * reach
