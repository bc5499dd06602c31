"""The files of published networks: which network they hold, and which of their weights to use.

Two layouts are known.  score_sde (Song et al. 2021; DiffusionMBIR, score-MRI): {"model": state dictionary with keys
"module....", "ema": {"shadow_params": [tensors]}, "optimizer", "step"} around an NCSN++.  ADM (Dhariwal and Nichol
2021; DDS): the plain state dictionary of a U-Net that predicts noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import InputError
from .unpickle import load_tensors

TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")
CHOICES = ("ema", "raw")


@dataclass(frozen=True)
class PublishedWeights:
    """Weights of one network by the names that the network gives them.

    kind: "ncsnpp" or "adm".  which: "ema" for averaged weights, "raw" otherwise.  sigmas: the (lowest, highest) noise
    level of training where the file tells them.
    """

    weights: dict[str, Tensor]
    kind: str
    which: str = "raw"
    sigmas: tuple[float, float] | None = None


def read_checkpoint(path: Path, *, which: str = "ema") -> PublishedWeights:
    """The weights in a file of a published layout, .safetensors or one of torch's, without its optimizer.

    which: "ema" prefers averaged weights, as the published solvers do; "raw" takes those of the last step.  Raises
    InputError for files that cannot be read safely or hold no network that is known here.
    """
    if which not in CHOICES:
        raise InputError(f"weights {which!r} are not known; use one of {', '.join(CHOICES)}")
    content = load_tensors(path) if is_torch_file(path) else read_safetensors(path)
    averages = None
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        ema = content.get("ema")
        averages = ema.get("shadow_params") if isinstance(ema, Mapping) else None
        content = content["model"]
    weights = _state_dictionary(path, content)
    kind = _kind(path, weights)
    sigmas = weights.pop("sigmas", None)  # a table that training used; the network itself does not
    levels = (float(sigmas.min()), float(sigmas.max())) if sigmas is not None and sigmas.numel() else None
    if which == "raw" or averages is None:
        return PublishedWeights(weights, kind, "raw", levels)
    return PublishedWeights(_averaged(path, weights, averages), kind, "ema", levels)


def is_torch_file(path: Path) -> bool:
    """True for the names that torch's own files go by."""
    return path.suffix.lower() in TORCH_SUFFIXES


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file on the CPU; raises InputError for a truncated one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: the prior's weights cannot be read; copy the file again ({error})") from None


def _state_dictionary(path: Path, content: Any) -> dict[str, Tensor]:
    """Names and tensors, without the "module." that parallel training puts before every name."""
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: holds no weights of a network")
    odd = [k for k, v in content.items() if not isinstance(k, str) or not isinstance(v, Tensor)]
    if odd:
        raise InputError(f"{path}: entry {str(odd[0])!r} is not a tensor; the layout of this file is not known")
    prefix = "module." if all(k.startswith("module.") for k in content) else ""
    return {k[len(prefix) :]: v for k, v in content.items()}


def _kind(path: Path, weights: Mapping[str, Tensor]) -> str:
    if any(k.startswith("all_modules.") for k in weights):
        return "ncsnpp"
    if "time_embed.0.weight" in weights and "input_blocks.0.0.weight" in weights:
        return "adm"
    first = ", ".join(list(weights)[:3])
    raise InputError(
        f"{path}: holds no DiffusionMBIR model card, and its tensors ({first}, ...) are of no network known here "
        "(NCSN++ of score_sde, ADM U-Net)"
    )


def trained_names(weights: Mapping[str, Tensor]) -> list[str]:
    """The names that averages are kept for, in order: not the Fourier frequencies, drawn once and never trained."""
    return [k for k, v in weights.items() if not (k == "all_modules.0.W" and v.ndim == 1)]


def _averaged(path: Path, weights: dict[str, Tensor], averages: Any) -> dict[str, Tensor]:
    """The weights with each trained one replaced by its average; the averages come as a list in the same order."""
    trained = trained_names(weights)
    listed = list(averages) if isinstance(averages, list | tuple) else []
    if len(listed) != len(trained):
        raise InputError(
            f"{path}: {len(listed)} averaged weights for {len(trained)} trained ones; import the raw weights instead"
        )
    for name, average in zip(trained, listed, strict=True):
        if not isinstance(average, Tensor) or average.shape != weights[name].shape:
            raise InputError(f"{path}: the average of {name} has another shape; import the raw weights instead")
    return weights | dict(zip(trained, listed, strict=True))
