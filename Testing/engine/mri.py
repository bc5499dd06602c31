"""What the tests of MRI share: a small head, its scans and small priors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.denoisers import Counter
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.methods import method
from DiffusionMBIRLib.methods.run import Run
from DiffusionMBIRLib.models import MR_VALUE, ModelCard
from DiffusionMBIRLib.monitor import NoCheckpoint, Silent
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.priors.checkpoints import CompactPrior
from DiffusionMBIRLib.priors.compact import CompactConfig, CompactUNet
from DiffusionMBIRLib.problems import build_problem
from DiffusionMBIRLib.scans import KSpace
from DiffusionMBIRLib.simulation.mr import coil_maps
from DiffusionMBIRLib.tasks import MR_TASK
from DiffusionMBIRLib.volume import Volume

FAST = {"steps": 3, "start_sweeps": 5, "tv_sweeps": 5, "sigma_start": 0.2, "start": "sense-cg", "cg_iterations": 8}


def head(shape=(4, 32, 24)) -> Volume:
    """A smooth, asymmetric head of magnitudes, stored in sagittal order; no two slices are alike."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij", sparse=True)
    array = 800 / (1 + np.exp(25 * ((x / 0.7) ** 2 + (y / 0.8) ** 2 - 1))) * (1 + 0.2 * z)
    array = array + 400 * np.exp(-(((x - 0.2) / 0.2) ** 2) - ((y + 0.3) / 0.15) ** 2) * (1 + z)
    direction = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
    return Volume(
        np.rint(array).astype(np.int16), Grid(shape, (1.0, 1.1, 2.0), (3, 4, 5), direction), unit="", name="head"
    )


def small_prior(**card):
    torch.manual_seed(0)
    network = CompactUNet(CompactConfig(widths=(16, 16), blocks=1)).eval()
    return CompactPrior(network, ModelCard("small", **{"modality": "MR", "value": MR_VALUE, "sigma_max": 12.0} | card))


def two_channel_prior() -> GaussianPrior:
    prior = GaussianPrior(0.2, 0.05, value=MR_VALUE)
    prior.card = replace(prior.card, channels=2)
    return prior


def scan(**changes) -> KSpace:
    made = mbir.simulate(
        head(), task=MR_TASK, **{"acs": 0.4, "coils": 4, "phase": True, "noise": 0.01, "seed": 1} | changes
    )
    assert isinstance(made, KSpace)
    return made


def known_maps(kspace: KSpace) -> KSpace:
    return replace(kspace, maps=coil_maps(kspace.grid, kspace.geometry.coils))


def settings(**changes) -> ReconSettings:
    return ReconSettings(**FAST | changes)


def complex_image(kspace: KSpace, prior, **changes) -> np.ndarray:
    """What the engine reconstructs before the magnitude is taken."""
    chosen = settings(**changes)
    with torch.inference_mode():
        way = method(chosen.method)
        network, card = way.load(chosen, prior, kspace, torch.device("cpu"))
        problem = build_problem(kspace, chosen, card.value if card else None, torch.device("cpu"))
        return way.run(problem, chosen, Run(Silent(), NoCheckpoint(), Counter(), network)).volume.numpy()
