"""Small networks in the files of published ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from DiffusionMBIRLib.priors.adm import ADMConfig, ADMUNet
from DiffusionMBIRLib.priors.ncsnpp import NCSNpp, NCSNppConfig

NCSNPP = NCSNppConfig(width=8, multipliers=(1, 2), blocks=1)
ADM = ADMConfig(width=32, multipliers=(1, 2), blocks=1, attention_levels=(1,), head_channels=64)


def ncsnpp(seed: int = 0, **changes) -> NCSNpp:
    torch.manual_seed(seed)
    return NCSNpp(NCSNppConfig(**{**NCSNPP.__dict__, **changes})).eval()


def adm() -> ADMUNet:
    torch.manual_seed(0)
    network = ADMUNet(ADM).eval()
    for parameter in network.parameters():  # its last layers begin as zeros
        nn.init.normal_(parameter, std=0.05)
    return network


def score_sde(network: NCSNpp, averages: NCSNpp) -> dict:
    """What score_sde writes: weights as parallel training names them, averages as a list, a NumPy number."""
    weights = {"sigmas": torch.linspace(300.0, 0.02, 10, dtype=torch.float64), **network.state_dict()}
    return {
        "optimizer": {"state": {0: torch.ones(3)}, "param_groups": [{"lr": np.float64(2e-4)}]},
        "model": {f"module.{k}": v for k, v in weights.items()},
        "ema": {"decay": 0.999, "num_updates": 5, "shadow_params": [p.detach() for p in averages.parameters()]},
        "step": 5,
    }


def averaged(seed: int) -> NCSNpp:
    """Other weights, but the frequencies of the first: they are not trained."""
    network = ncsnpp(seed)
    frequencies = {"all_modules.0.W": ncsnpp(0).state_dict()["all_modules.0.W"]}
    network.load_state_dict(frequencies, strict=False)
    return network


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(9))
