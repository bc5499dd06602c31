"""Training of the supervised baselines of MRI: all networks together, on scans that are simulated on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..devices import arithmetic
from ..errors import InputError
from ..models import MR_VALUE
from ..operators.fourier import fft2c
from ..training.base import Losses
from ..training.settings import TrainSettings
from ..training.stacks import Stack
from .kspace_scans import COILS, MIDDLE, KSpaceProtocol, KSpaceScans, drawn_slice, scanned, scans_of, shares_of
from .loop import BaselineLoop
from .networks import StagedNetwork, SupervisedConfig
from .two_domains import Step, parts, recurrences, whole

SIDES = (0.75, 1.0, 1.5)  # of training images, times the setting
WINDOW_SHARE = 0.5  # of the steps that take windows of rows, as many pixels, of images so many times as wide:
WIDTHS = (1.5, 2.0, 2.5)
FEW_RECURRENCES = 2  # in the first part of a training: blocks share their weights, and fewer cost less
FEW_SHARE = 0.5  # of the images
HELD_OUT_IMAGES = 8  # of each kind of scan
HELD_OUT_WIDTH = 2  # times the setting
HELD_OUT = {  # kinds that the networks are compared by
    "x2, 1 coil": (KSpaceProtocol(2, MIDDLE / 2), 1),
    "x4, 1 coil": (KSpaceProtocol(4, MIDDLE / 4), 1),
    "x4, 8 coils, 1 % noise": (KSpaceProtocol(4, MIDDLE / 4, noise=0.01), 8),
}


class KSpaceTrainer(BaselineLoop):
    """Trains a baseline of MRI end to end by the mean absolute error: of the image, and with recurrent blocks after
    each network of each block in its own domain, the image or k-space.
    """

    modality, value = "MR", MR_VALUE

    def __init__(
        self,
        stacks: Sequence[Stack],
        folder: Path,
        *,
        network: SupervisedConfig,
        settings: TrainSettings,
        **options: Any,
    ) -> None:
        """options: of :class:`.loop.BaselineLoop`."""
        if settings.size % (4 * network.multiple):  # so that all sides are multiples
            raise InputError(f"setting size: {settings.size} must be a multiple of {4 * network.multiple} here")
        super().__init__(stacks, folder, network=network, settings=settings, **options)
        self._train_stacks, rest = self.split
        generator = np.random.default_rng((settings.seed, 1))
        shares = shares_of(rest)
        side = HELD_OUT_WIDTH * settings.size
        images = [drawn_slice(rest, shares, side, generator) for _ in range(HELD_OUT_IMAGES)]
        self._held_out = {
            name: scanned(images, [protocol] * len(images), coils, generator)
            for name, (protocol, coils) in HELD_OUT.items()
        }
        self.resume()

    def run(self) -> Path:
        """Train to the end; returns the network's file.  A monitor that cancels leaves a state to go on from."""
        self.train_stage("train")
        return self.network_file

    def trained(self, network: StagedNetwork) -> nn.Module:
        return network

    def batches(self, steps: range) -> Iterator[tuple[Tensor, ...]]:
        """Of whole images, of which larger ones come in smaller batches, and of windows of wide ones: always about as
        many pixels, some of them as fine as those of reconstructions.
        """
        shares, s, multiple = shares_of(self._train_stacks), self.settings, self.config.multiple
        for step in steps:
            generator = np.random.default_rng((s.seed, 2, step))
            coils = int(generator.choice(COILS))
            windows = s.vary_size and generator.random() < WINDOW_SHARE
            times = float(generator.choice(WIDTHS if windows else SIDES)) if s.vary_size else 1.0
            count = s.batch if windows else max(1, round(s.batch / times**2))
            rows = max(1, round(s.size / times / multiple)) * multiple if windows else 0
            drawn = scans_of(self._train_stacks, shares, count, int(s.size * times), coils, generator, rows)
            yield drawn.truth, drawn.mask, drawn.maps, drawn.y, drawn.condition

    def loss(self, step: int, *batch: Tensor) -> Tensor:
        scans = KSpaceScans(*batch)
        truth, losses = scans.truth, []
        for image, after in self._restored(self.network, scans, self._recurrences()):
            losses.append(_absolute(image - truth))
            if after is not None:
                losses.append(_absolute(fft2c(after) - fft2c(truth)))
        return torch.stack(losses).mean()

    def _recurrences(self) -> int:
        """Blocks that the network is trained with at present."""
        few = self.seen < FEW_SHARE * self.settings.images
        return min(FEW_RECURRENCES, self.config.recurrences) if few else self.config.recurrences

    def _restored(
        self, network: StagedNetwork, scans: KSpaceScans, count: int
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The image after each network in the image, and after each in k-space where there is one.  count: blocks."""

        def by(stage: int) -> Step:
            def restore(x: Tensor) -> Tensor:
                told = parts(x).to(memory_format=torch.channels_last, copy=True)
                with arithmetic(self.device, self.precision):
                    out = network(told, scans.condition, stage)
                return whole(out.float())

            return restore

        first = scans.adjoint(scans.y)
        if count:
            yield from recurrences(by(0), by(1), scans.onto_data, first, count)
        else:
            yield by(0)(first), None

    # --- judging and keeping

    @torch.inference_mode()
    def evaluate(self) -> Losses:
        """Squared error of magnitudes that the averaged network leaves of the zero-filled images'."""
        left = {}
        for name, scans in self._held_out.items():
            on_device = KSpaceScans(*(part.to(self.device) for part in vars(scans).values()))
            *_, (image, after) = self._restored(self.ema, on_device, self.config.recurrences)
            truth, zero_filled = on_device.truth.abs(), on_device.adjoint(on_device.y).abs()
            error = ((image if after is None else after).abs() - truth).square().mean()
            left[name] = round(float(error / (zero_filled - truth).square().mean()), 5)
        return {"per_scan": left}

    def keep(self, held_out: float, losses: Losses) -> None:
        self.export_told({"images_seen": self.seen, "error_left_of_zero_filled": losses["per_scan"]})


def _absolute(error: Tensor) -> Tensor:
    """Mean over real and imaginary parts."""
    return torch.view_as_real(error.contiguous()).abs().mean()
