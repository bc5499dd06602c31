"""Priors from and to safetensors files; nothing is ever unpickled."""

from __future__ import annotations

import copy
import os
import uuid
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import EngineError, InputError
from ..models import ModelCard, find, read_card
from .compact import CompactConfig, CompactUNet, edm_denoise, pad_to_multiple


class CompactPrior:
    """A :class:`CompactUNet` behind the Prior contract; computes in bf16 under autocast unless told otherwise."""

    def __init__(self, network: CompactUNet, card: ModelCard, *, precision: torch.dtype = torch.bfloat16) -> None:
        # A copy, since the caller's network may go on training.
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.card, self.precision = card, precision
        self.sigma_min, self.sigma_max = card.sigma_min, card.sigma_max

    @torch.inference_mode()
    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x]; x (slices, channels, rows, columns) of any size, padded to the network's multiple and cut back."""
        if sigma <= 0:  # the limit of D; its noise label would be infinite
            return x.float()
        padded, (rows, columns) = pad_to_multiple(x.float(), self.network.config.multiple)
        level = torch.full((len(x),), float(sigma), device=x.device)
        reduced = self.precision != torch.float32
        with torch.autocast(x.device.type, self.precision, enabled=reduced):
            clean = edm_denoise(self.network, padded, level, self.card.sigma_data)
        return clean[..., :rows, :columns]


def save_prior(network: nn.Module, card: ModelCard, path: str | os.PathLike[str]) -> None:
    """Write weights as float16 with the card in the header, through a temporary name."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    tensors = {k: v.detach().to("cpu", torch.float16).contiguous() for k, v in network.state_dict().items()}
    try:
        save_file(tensors, str(temporary), metadata={"card": card.to_json()})
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise EngineError(f"{path}: could not be written; is the disk full or read-only? ({error})") from None
    finally:
        temporary.unlink(missing_ok=True)


def load_prior(
    id_or_file: str | os.PathLike[str], *, device: str | torch.device = "cpu", precision: torch.dtype = torch.bfloat16
) -> CompactPrior:
    """Open a prior by installed id or by file.

    Raises InputError if it is unknown, truncated or foreign, or if its weights do not fit the network on its card.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = find(id_or_file)
    card = read_card(path)
    try:
        config = CompactConfig.from_dict(card.network)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    network = CompactUNet(config)
    try:
        weights = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: the prior's weights cannot be read; copy the file again ({error})") from None
    expected = network.state_dict()
    wrong = [k for k in expected if k not in weights or weights[k].shape != expected[k].shape]
    wrong += [k for k in weights if k not in expected]
    if wrong:
        first = ", ".join(wrong[:3])
        raise InputError(
            f"{path}: {len(wrong)} weights do not fit the network on the card, first {first}; copy it again"
        )
    network.load_state_dict({k: v.float() for k, v in weights.items()})
    return CompactPrior(network.to(device), card, precision=precision)
