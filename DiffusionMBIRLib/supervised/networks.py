"""The networks of the supervised baselines, smaller than published, and what tells them how a scan was taken.

FBPConvNet: Jin et al. 2017 (doi 10.1109/TIP.2017.2713099), a U-Net on the FBP image with a skip over the whole network.
Lahiri et al. 2023 (arXiv 2201.09318): stages of a shallow destreaking network and a data-consistency update.
Zhang et al. 2016 (arXiv 1607.08707): a plain convolutional network from the limited-angle FBP image to the truth.
Zbontar et al. 2018 (arXiv 1811.08839): a U-Net on the zero-filled image of MR, here a complex one.
Zhou and Zhou 2020 (arXiv 2001.03799), DuDoRNet: by turns a network in the image and one in k-space, see ``dense.py``.

One network serves all numbers of views, angular ranges or accelerations of its task: it is told which by a number.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..priors.compact import CompactConfig, CompactUNet
from ..schema import checked, schema_of
from ..solvers.direct.filters import angular_weights
from ..tasks import CT_TASKS, MR_TASK, SPARSE_VIEW
from .about import TASKS_OF
from .dense import DenseNetwork, KSpaceDenseNetwork

_EMBEDDING = 64
_STEM = 2
_DEFAULT_SIZES = {
    "fbpconvnet": ((32, 48, 64, 96), 2),
    "lahiri": ((32, 64, 96), 1),
    "zhang": ((64,), 4),
    "unet": ((32, 48, 64, 96), 2),
    "dudornet": ((32,), 3),
}
_RECURRENCES = {"dudornet": 5}
_MOST_RECURRENCES = 64


@dataclass(frozen=True)
class SupervisedConfig:
    """Architecture of a baseline.

    kind: one of ``about.TASKS_OF``.  task: what it was trained for.  widths: channels per resolution level
    (zhang: of all layers; dudornet: growth of its dense blocks).  blocks: residual blocks a level (zhang: layers
    between the first and the last; dudornet: dense blocks).  penalty, cg_steps: of the data-consistency update
    (lahiri), with the operator scaled to norm 1.  recurrences: recurrent blocks (dudornet), 0 of others.
    """

    kind: str
    task: str
    widths: tuple[int, ...] = ()
    blocks: int = 0
    penalty: float = 0.003
    cg_steps: int = 20
    recurrences: int = 0

    def __post_init__(self) -> None:
        if self.kind not in TASKS_OF:
            raise InputError(f"network kind {self.kind!r} is none of {', '.join(TASKS_OF)}")
        if self.task not in TASKS_OF[self.kind]:
            raise InputError(f"{self.kind} serves the task {' or '.join(TASKS_OF[self.kind])}, not {self.task!r}")
        widths, blocks = _DEFAULT_SIZES[self.kind]
        object.__setattr__(self, "widths", tuple(self.widths) or widths)
        object.__setattr__(self, "blocks", self.blocks or blocks)
        object.__setattr__(self, "recurrences", self.recurrences or _RECURRENCES.get(self.kind, 0))
        if any(not isinstance(n, int) or n < 1 for n in (*self.widths, self.blocks, self.cg_steps)):
            raise InputError(f"{self.kind}: sizes must be positive integers: {self}")
        if not isinstance(self.recurrences, int) or not 0 <= self.recurrences <= _MOST_RECURRENCES:
            raise InputError(f"{self.kind}: recurrences must count from 0 to {_MOST_RECURRENCES}: {self}")
        if not 0 < self.penalty < math.inf:
            raise InputError(f"{self.kind}: penalty must be positive, not {self.penalty}")

    @property
    def stages(self) -> int:
        """Networks that follow one another; of several each is followed by a data-consistency update."""
        return 2 if self.kind in ("lahiri", "dudornet") else 1

    @property
    def channels(self) -> int:
        """Of images: real and imaginary part of MR."""
        return 2 if self.task == MR_TASK else 1

    @property
    def multiple(self) -> int:
        """Image sides are padded to a multiple of this."""
        return _STEM if self.kind in ("zhang", "dudornet") else _STEM * 2 ** (len(self.widths) - 1)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"widths": list(self.widths)}

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> SupervisedConfig:
        chosen = checked(entries, schema_of(cls), "the network", needed=("kind", "task"), others=True)
        return cls(**{**chosen, "widths": tuple(chosen.get("widths", ()))})


def condition(angles_deg: tuple[float, ...], task: str) -> float:
    """What the network is told of a scan: ln(views) / 4 of sparse views, the range in units of 45 degrees otherwise."""
    if task not in CT_TASKS:
        raise InputError(f"task {task!r} is not known; use one of {', '.join(CT_TASKS)}")
    if task == SPARSE_VIEW:
        return math.log(len(angles_deg)) / 4
    return math.degrees(float(angular_weights(angles_deg).sum())) / 45


class ResidualUNet(nn.Module):
    """x + U-Net(x): the network learns the artefacts, as FBPConvNet and the destreaking network do."""

    def __init__(self, config: SupervisedConfig) -> None:
        super().__init__()
        sizes = CompactConfig(
            image_channels=config.channels,
            widths=config.widths,
            blocks=config.blocks,
            embedding=_EMBEDDING,
            stem=_STEM,
        )
        self.unet = CompactUNet(sizes)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (batch, channels, rows, columns); condition: (batch,)."""
        return x + self.unet(x, condition)


class PlainCNN(nn.Module):
    """Convolutions with rectifiers in a row, straight from the FBP image to the truth."""

    def __init__(self, config: SupervisedConfig) -> None:
        super().__init__()
        width, depth = config.widths[0], _STEM**2
        self.first = nn.Conv2d(depth + 1, width, 5, padding=2)
        self.hidden = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(config.blocks))
        self.last = nn.Conv2d(width, depth, 5, padding=2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (batch, 1, rows, columns); condition: (batch,), which enters as one more channel."""
        x = F.pixel_unshuffle(x, _STEM)
        told = condition[:, None, None, None].to(x.dtype).expand(-1, 1, *x.shape[2:])
        x = F.relu(self.first(torch.cat([x, told], dim=1)))
        for layer in self.hidden:
            x = F.relu(layer(x))
        return F.pixel_shuffle(self.last(x), _STEM)


class StagedNetwork(nn.Module):
    """The networks of all stages; called with (x, condition, stage)."""

    def __init__(self, config: SupervisedConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(_stages(config))

    def forward(self, x: Tensor, condition: Tensor, stage: int = 0) -> Tensor:
        out: Tensor = self.stages[stage](x, condition)
        return out


def _stages(config: SupervisedConfig) -> list[nn.Module]:
    """dudornet: the network in the image, that in k-space."""
    if config.kind == "dudornet":
        sizes = (config.channels, config.widths[0], config.blocks, _STEM)
        return [DenseNetwork(*sizes), KSpaceDenseNetwork(*sizes)]
    build = PlainCNN if config.kind == "zhang" else ResidualUNet
    return [build(config) for _ in range(config.stages)]
