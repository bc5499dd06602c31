"""What the training of all supervised baselines shares: who is held out, which network a state is of, and the card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from ..models import ModelCard, ValueScale
from ..monitor import Monitor
from ..training.base import TrainingLoop, seeded
from ..training.settings import TrainSettings
from ..training.stacks import Stack, split_by_patient
from .about import DEPARTURES, TITLES
from .networks import StagedNetwork, SupervisedConfig


class BaselineLoop(TrainingLoop[StagedNetwork]):
    """Trains the networks of a baseline.  A subclass resumes once it has its data."""

    modality: ClassVar[str]
    value: ClassVar[ValueScale]

    def __init__(
        self,
        stacks: Sequence[Stack],
        folder: Path,
        *,
        network: SupervisedConfig,
        settings: TrainSettings,
        model_id: str,
        held_out: Sequence[str] = (),
        held_out_fraction: float = 0.15,
        device: torch.device,
        monitor: Monitor | None = None,
    ) -> None:
        self.config = network
        self.split = split_by_patient(stacks, held_out, held_out_fraction)  # to train on, and held out
        super().__init__(
            seeded(lambda: StagedNetwork(network), settings.seed),
            folder,
            settings=settings,
            model_id=model_id,
            stacks=self.split,
            device=device,
            monitor=monitor,
        )

    def own_state(self) -> dict[str, Any]:
        return {"config": self._config_text()}

    def take_own_state(self, state: Mapping[str, Any]) -> None:
        if state["config"] != self._config_text():
            raise ValueError

    def _config_text(self) -> str:
        return json.dumps(self.config.to_dict(), sort_keys=True)

    def export_told(self, told: Mapping[str, Any]) -> None:
        """The network's file; told: what its card says of this training beside what it says of any."""
        card = ModelCard(
            id=self.model_id,
            modality=self.modality,
            title=f"{TITLES[self.config.kind]}, supervised",
            value=self.value,
            channels=self.config.channels,
            network=self.config.to_dict(),
            training=self.training_entries() | dict(told),
            limits=f"{DEPARTURES[self.config.kind]} Research use only, not for diagnosis.",
        )
        self.export(card)
