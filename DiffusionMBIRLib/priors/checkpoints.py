"""Priors from and to files: our own safetensors, and published checkpoints as they are."""

from __future__ import annotations

import copy
import hashlib
import os
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import choose_precision
from ..errors import EngineError, InputError
from ..models import ModelCard, find, has_card, read_card
from ..moves import move_over
from ..supervised.about import TASKS_OF
from .adm import ADMConfig, ADMUNet
from .adm import infer_config as infer_adm
from .compact import CompactConfig, CompactUNet
from .ncsnpp import NCSNpp, NCSNppConfig
from .ncsnpp import infer_config as infer_ncsnpp
from .networks import CompactPrior, NetworkPrior, NoisePrior, ScorePrior, ddpm_sigmas
from .published import PublishedWeights, is_torch_file, read_checkpoint, read_safetensors
from .unet import on_meta

PUBLISHED = ("ncsnpp", "adm")  # kinds of networks

__all__ = ["CompactPrior", "build_prior", "card_of", "load_prior", "save_prior", "weights_digest", "write_weights"]


def save_prior(
    network: nn.Module, card: ModelCard, path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float16
) -> None:
    """Write weights with the card in the header, through a temporary name."""
    write_weights({k: v.detach().to("cpu", dtype) for k, v in network.state_dict().items()}, card, path)


def write_weights(weights: Mapping[str, Tensor], card: ModelCard, path: str | os.PathLike[str]) -> None:
    """Write tensors with the card in the header, through a temporary name; raises EngineError if that fails."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        save_file({k: v.contiguous() for k, v in weights.items()}, str(temporary), metadata={"card": card.to_json()})
        move_over(temporary, path)
    except (OSError, SafetensorError) as error:
        raise EngineError(f"{path}: could not be written; is the disk full or read-only? ({error})") from None
    finally:
        temporary.unlink(missing_ok=True)


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values in the order of the names: the same however a file lays them out."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_prior(
    id_or_file: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    precision: str | torch.dtype = "auto",
    config: Mapping[str, Any] | None = None,
    weights: str = "ema",
) -> NetworkPrior:
    """Open a prior by installed id or by file: our own safetensors, or a checkpoint in a published layout.

    precision: of the arithmetic inside the network, a torch type or its name; "auto": what
    :func:`DiffusionMBIRLib.devices.choose_precision` finds fit for the device, but float32 for published networks,
    which were trained in it and whose errors are multiplied by sigma.  config, weights: of files without a model card
    only; entries of the network's configuration that overrule what is inferred from its weights, and "ema" (averaged
    weights where there are any) or "raw".  Such a prior is taken to see HU from -1000 to 1000 as 0 to 1; import it to
    say otherwise.

    Raises InputError if the prior is unknown, truncated or foreign, asks for code to be run, or does not fit its
    network, and for a precision that is unknown or that the device cannot compute in.
    """
    path = find(id_or_file)
    chosen = precision_of(path, precision, torch.device(device))
    if is_torch_file(path) or not has_card(path):
        checkpoint = read_checkpoint(path, which=weights)
        card, tensors = card_of(path, checkpoint, config), checkpoint.weights
    else:
        card, tensors = read_card(path), read_safetensors(path)
    try:
        return build_prior(card, tensors, device=torch.device(device), precision=chosen)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def precision_of(id_or_file: str | os.PathLike[str], wanted: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The precision that the network in a file, of a prior or of a supervised method, is to compute in on a device."""
    path = find(id_or_file)
    published = is_torch_file(path) or not has_card(path) or read_card(path).network.get("kind") in PUBLISHED
    return choose_precision(wanted, device, trained_in_float32=published)


def in_precision(prior: Any, wanted: str | torch.dtype) -> Any:
    """A network that is open already, in another precision unless that is 'auto'; the weights are shared."""
    if wanted == "auto" or not hasattr(prior, "precision"):
        return prior
    twin = copy.copy(prior)
    twin.precision = choose_precision(wanted, prior.device)
    return twin


def card_of(path: Path, checkpoint: PublishedWeights, config: Mapping[str, Any] | None = None) -> ModelCard:
    """A card for a checkpoint that came without one: what its weights tell, overruled by the entries of ``config``."""
    try:
        entries = _inferred(checkpoint, needed=config is None) | dict(config or {})
        if entries["kind"] != checkpoint.kind:
            raise InputError(f"the weights are of kind {checkpoint.kind!r}, the config of {entries['kind']!r}")
        if checkpoint.kind == "ncsnpp":
            ncsnpp = NCSNppConfig.from_dict(entries)
            return _card(path, ncsnpp.image_channels, ncsnpp.to_dict(), ncsnpp.sigma_min, ncsnpp.sigma_max)
        adm = ADMConfig.from_dict(entries)
        return _card(path, adm.image_channels, adm.to_dict(), *ddpm_sigmas()[[0, -1]].tolist())
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _card(path: Path, channels: int, network: dict[str, Any], sigma_min: float, sigma_max: float) -> ModelCard:
    return ModelCard(
        id=path.stem,
        modality="any",
        title=path.name,
        channels=channels,
        network=network,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
    )


def _inferred(checkpoint: PublishedWeights, *, needed: bool) -> dict[str, Any]:
    """The network's entries, from its weights and the noise levels that the file tells; else its kind, or an error."""
    try:
        if checkpoint.kind == "adm":
            return infer_adm(checkpoint.weights).to_dict()
        config = infer_ncsnpp(checkpoint.weights)
    except InputError:
        if needed:
            raise
        return {"kind": checkpoint.kind}
    if checkpoint.sigmas:
        low, high = (float(f"{s:.9g}") for s in checkpoint.sigmas)  # the table was computed through logarithms
        config = replace(config, sigma_min=low, sigma_max=high)
    return config.to_dict()


def build_prior(
    card: ModelCard, weights: Mapping[str, Tensor], *, device: torch.device, precision: torch.dtype = torch.float32
) -> NetworkPrior:
    """The network on a card with these weights; raises InputError that names the first ones that do not fit."""
    kind = card.network.get("kind")
    if kind in TASKS_OF:
        raise InputError(not_a_prior(card))
    if kind == "ncsnpp":
        ncsnpp = NCSNppConfig.from_dict(card.network)
        network = filled(NCSNpp, ncsnpp, weights).to(device)
        return ScorePrior(network, card, multiple=ncsnpp.multiple, precision=precision)
    if kind == "adm":
        adm = ADMConfig.from_dict(card.network)
        network = filled(ADMUNet, adm, weights).to(device)
        return NoisePrior(network, card, multiple=adm.multiple, precision=precision)
    compact = filled(CompactUNet, CompactConfig.from_dict(card.network), weights).to(device)
    assert isinstance(compact, CompactUNet)
    return CompactPrior(compact, card, precision=precision, copied=False)


def not_a_prior(card: ModelCard) -> str:
    """Why the network of a supervised method cannot serve a diffusion method."""
    kind = card.network.get("kind")
    return f"{card.id!r} is a supervised network, no diffusion prior; it works with --method {kind} only"


def filled(build: type[nn.Module], config: Any, weights: Mapping[str, Tensor]) -> nn.Module:
    """The network with its weights, in float32 whatever the file keeps; it takes memory only once they may fit."""
    _require_like_size(config, weights)
    network = build(config) if isinstance(config, CompactConfig) else on_meta(build, config)
    expected = network.state_dict()
    wrong = [_difference(k, weights.get(k), v) for k, v in expected.items() if _differs(weights.get(k), v)]
    wrong += [f"{k} (not in the network)" for k in weights if k not in expected]
    if wrong:
        raise InputError(f"{len(wrong)} weights do not fit the network on the card, first {', '.join(wrong[:3])}")
    network = build(config) if next(network.parameters()).is_meta else network
    network.load_state_dict(dict(weights))
    return network


def _require_like_size(config: Any, weights: Mapping[str, Tensor]) -> None:
    """Raise InputError where the network has more blocks than there are tensors, or surely more values.

    What passes is at most a few times as large as the weights at hand, so that a compact network may be built at once:
    the first one without memory takes torch a second.
    """
    widths = config.widths if hasattr(config, "widths") else [config.width * m for m in config.multipliers]
    light = getattr(config, "light_levels", 0)
    blocks, there = config.blocks * (len(widths) - light) + light, sum(w.numel() for w in weights.values())
    depth = getattr(config, "image_channels", 1) * getattr(config, "stem", 1) ** 2
    embedding = config.embedding if isinstance(config, CompactConfig) else 0
    least = max(9 * config.blocks * sum(w * w for w in widths[light:]), 9 * depth * widths[0], embedding**2)
    if blocks > len(weights) or least > there:
        raise InputError(
            f"the network on the card ({blocks} blocks, at least {least} values) is larger than its weights "
            f"({len(weights)} tensors, {there} values)"
        )


def _differs(found: Tensor | None, expected: Tensor) -> bool:
    return found is None or found.shape != expected.shape


def _difference(name: str, found: Tensor | None, expected: Tensor) -> str:
    shape = " x ".join(map(str, expected.shape))
    return f"{name} ({'missing' if found is None else ' x '.join(map(str, found.shape))}, needed {shape})"
