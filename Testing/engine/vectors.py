"""Recorded inputs and outputs of published networks, where they lie beside the checkout; and numbers for new networks.

Tests that need the recordings are skipped elsewhere: the recorded weights are too large for this repository.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.serialization import safe_globals

from Testing.engine.helpers import ROOT

Network = TypeVar("Network", bound=nn.Module)
SHARED = Path(os.environ.get("DIFFUSIONMBIR_SHARED", ROOT.parent / "shared"))
recorded = pytest.mark.skipif(not (SHARED / "vectors").is_dir(), reason="recorded networks are not on this machine")


def arrays(name: str) -> dict[str, Tensor]:
    with np.load(SHARED / "vectors" / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def layout(name: str) -> dict[str, Any]:
    return json.loads((SHARED / "vectors" / f"layout_{name}.json").read_text(encoding="utf-8"))


def checkpoint(name: str) -> Any:
    """What a file of torch holds: tensors, and a numpy number among the optimizer's settings; no more is allowed."""
    scalar: Any = np.float64(0).__reduce__()[0]  # what pickles call, under its names in numpy 1 and 2
    numbers = [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    with safe_globals([*numbers, np.dtype, np.dtypes.Float64DType]):
        return torch.load(SHARED / "vectors" / name, weights_only=True)


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[list[int], str]]:
    return {name: (list(tensor.shape), str(tensor.dtype)) for name, tensor in state.items()}


def meta_tensors(entries: list[Any]) -> dict[str, Tensor]:
    """Tensors without memory for the (name, shape, type) of a layout."""
    return {name: torch.empty(shape, device="meta") for name, shape, _ in entries}


def with_numbers(network: Network, seed: int = 0) -> Network:
    """The network, with numbers in place of the ones and zeros that norms and biases begin with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return network.eval()


def error(found: Tensor, expected: Tensor) -> float:
    """The largest norm of an image's difference over the norm of that image."""
    difference, size = ((a.double().flatten(1).norm(dim=1)) for a in (found - expected, expected))
    return float((difference / size).max())
