"""Reconstruction with a supervised network: FBP, the network, and between its stages the data again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..denoisers.slices import Counter, SubBatches
from ..devices import arithmetic, choose_precision
from ..errors import InputError
from ..models import ModelCard, find, read_card
from ..monitor import Monitor
from ..operators.base import LinearOperator
from ..priors.base import Prior
from ..priors.checkpoints import filled, in_precision
from ..priors.compact import pad_to_multiple
from ..priors.published import is_torch_file, read_safetensors
from .about import TASKS_OF
from .consistency import data_consistency
from .networks import StagedNetwork, SupervisedConfig


class SupervisedNetwork:
    """A trained baseline with its card; it is no prior."""

    def __init__(self, network: StagedNetwork, card: ModelCard, *, precision: torch.dtype = torch.float32) -> None:
        self.network = network.eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config, self.card, self.precision = network.config, card, precision

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @torch.inference_mode()
    def restore(self, x: Tensor, condition: float, stage: int) -> Tensor:
        """What a stage makes of images (slices, channels, rows, columns) of any size; float32."""
        padded, (rows, columns) = pad_to_multiple(x.to(self.device, torch.float32), self.config.multiple)
        padded = padded.to(memory_format=torch.channels_last, copy=True)
        told = torch.full((len(x),), condition, device=self.device)
        with arithmetic(self.device, self.precision):
            restored: Tensor = self.network(padded, told, stage)
        return restored.float()[..., :rows, :columns].to(x.device)


class SliceRestorer(SubBatches):
    """Restores a volume slice by slice, with the sub-batches, the count and the clock of a prior's denoiser."""

    def __init__(
        self,
        network: SupervisedNetwork,
        slices_per_batch: int,
        *,
        counter: Counter | None = None,
        poll: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(slices_per_batch, counter=counter, poll=poll)
        self.network, self.stage = network, 0

    def __call__(self, x: Tensor, condition: float) -> Tensor:
        """What the present stage makes of a volume (slices, rows, columns), of a complex one by two channels."""
        return self.of_volume(x, lambda part: self._restore(part, condition))

    def _restore(self, x: Tensor, condition: float) -> Tensor:
        if x.is_complex():
            both = self.network.restore(torch.stack((x.real, x.imag), 1), condition, self.stage)
            return torch.complex(both[:, 0], both[:, 1])
        return self.network.restore(x[:, None], condition, self.stage)[:, 0]


def restore_volume(
    restorer: SliceRestorer, A: LinearOperator, y: Tensor, x: Tensor, *, condition: float, monitor: Monitor
) -> Tensor:
    """The volume from its FBP x (slices, rows, columns); A has norm 1.  Each of several stages ends on the data."""
    config = restorer.network.config
    for stage in range(config.stages):
        restorer.stage = stage
        x = restorer(x, condition)
        if config.stages > 1:
            x = data_consistency(A, y, x, penalty=config.penalty, steps=config.cg_steps)
        monitor.tick(config.kind, stage + 1, config.stages)
    return x


def load_network(
    id_or_file: str | Prior,
    method: str,
    task: str,
    *,
    device: torch.device,
    precision: str | torch.dtype = "auto",
) -> SupervisedNetwork:
    """Open the network of a supervised method; one that is open already keeps its device and, with 'auto', precision.

    Raises InputError, with what to do, where it is not one for the method.
    """
    if isinstance(id_or_file, str):
        path = find(id_or_file)
        if is_torch_file(path):
            raise InputError(f"{path}: {_needed(method)}; this is a torch checkpoint")
        card = read_card(path)
        loaded = build_network(card, read_safetensors(path), method, device=device, precision=precision)
    elif isinstance(id_or_file, SupervisedNetwork):
        loaded = in_precision(id_or_file, precision)
    else:
        raise InputError(f"prior {id_or_file.card.id!r}: {_needed(method)}")
    config = loaded.config
    if config.kind != method:
        raise InputError(f"prior {loaded.card.id!r} is a network of {config.kind}; {_needed(method)}")
    if config.task != task:
        raise InputError(f"prior {loaded.card.id!r} was trained for the task {config.task}, the measurement is {task}")
    return loaded


def build_network(
    card: ModelCard,
    weights: Mapping[str, Tensor],
    method: str,
    *,
    device: torch.device,
    precision: str | torch.dtype = "auto",
) -> SupervisedNetwork:
    """The network on a card with these weights; raises InputError where it is of another kind or they do not fit."""
    if card.network.get("kind") not in TASKS_OF:
        raise InputError(f"prior {card.id!r} is a diffusion prior; {_needed(method)}")
    try:
        network = filled(StagedNetwork, SupervisedConfig.from_dict(card.network), weights)
    except InputError as error:
        raise InputError(f"prior {card.id!r}: {error}") from None
    assert isinstance(network, StagedNetwork)
    return SupervisedNetwork(network.to(device), card, precision=choose_precision(precision, device))


def _needed(method: str) -> str:
    return f"method {method} needs a network that `diffusionmbir train --method {method}` made: give its file by prior"
