"""Priors from and to safetensors files; nothing is ever unpickled."""

from __future__ import annotations

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
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.card, self.precision = card, precision
        self.sigma_min, self.sigma_max = card.sigma_min, card.sigma_max

    @torch.inference_mode()
    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x]; x (slices, channels, rows, columns) of any size, padded to the network's multiple and cut back."""
        padded, (rows, columns) = pad_to_multiple(x.float(), self.network.config.multiple)
        level = torch.full((len(x),), float(sigma), device=x.device)
        reduced = self.precision != torch.float32
        with torch.autocast(x.device.type, self.precision, enabled=reduced):
            clean = edm_denoise(self.network, padded, level, self.card.sigma_data)
        return clean[..., :rows, :columns]


def save_prior(network: nn.Module, card: ModelCard, path: str | os.PathLike[str]) -> None:
    """Write weights as float16 with the card in the header, through a temporary name."""
    from safetensors.torch import save_file

    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    tensors = {k: v.detach().to("cpu", torch.float16).contiguous() for k, v in network.state_dict().items()}
    try:
        save_file(tensors, str(temporary), metadata={"card": card.to_json()})
        os.replace(temporary, path)
    except OSError as error:
        raise EngineError(f"{path}: could not be written; is the disk full or read-only? ({error.strerror})") from None
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
    network = CompactUNet(CompactConfig.from_dict(card.network))
    try:
        weights = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: the prior's weights cannot be read; copy the file again ({error})") from None
    expected = network.state_dict()
    wrong = [k for k in expected if k not in weights or weights[k].shape != expected[k].shape]
    wrong += [k for k in weights if k not in expected]
    if wrong:
        raise InputError(f"{path}: weights do not fit the network on the card; first that differ: {', '.join(wrong[:3])}")
    network.load_state_dict({k: v.float() for k, v in weights.items()})
    return CompactPrior(network.to(device), card, precision=precision)
