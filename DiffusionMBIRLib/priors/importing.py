"""The user's folder of priors: published checkpoints are converted into it, and what lies in it can be checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import EngineError, InputError
from ..models import ModelCard, ValueScale, find, has_card, place_for, read_card, sha256
from ..schema import json_object
from ..tasks import MODALITIES
from .checkpoints import build_prior, card_of, weights_digest, write_weights
from .published import is_torch_file, read_checkpoint, read_safetensors

# Published networks saw images in [0, 1].  How their makers got there from HU is in no file: ours is an assumption.
VALUE_SCALES = {"CT": ValueScale(-1000.0, 2000.0, "HU"), "MR": ValueScale(0.0, 1.0, "a.u.")}


def import_prior(
    file: str | os.PathLike[str],
    name: str,
    *,
    modality: str | None = None,
    offset: float | None = None,
    scale: float | None = None,
    config: Mapping[str, Any] | None = None,
    weights: str = "ema",
    size: int | None = None,
    title: str = "",
    licence: str = "",
    force: bool = False,
) -> Path:
    """Convert a checkpoint into safetensors with a model card in the user's folder; returns the new file.

    name: the new id.  modality: "CT" or "MR"; by default CT for one channel and MR for two (complex images).  offset,
    scale: the network sees (value - offset) / scale; by default -1000 and 2000 HU for CT, 0 and 1 for MR.  config:
    entries of the network that its weights do not tell.  weights: "ema" or "raw".  size: side in pixels of the images
    that it was trained on.  force: replace a prior of the same id.

    The file is complete when it appears: a failed import leaves nothing.  Raises InputError for what cannot be used,
    EngineError if the folder cannot be written.
    """
    place, path = place_for(name, force=force), Path(file)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if is_torch_file(path) or not has_card(path):
        checkpoint = read_checkpoint(path, which=weights)
        card, tensors, used = card_of(path, checkpoint, config), checkpoint.weights, checkpoint.which
        card = _for_modality(card, modality or ("CT" if card.channels == 1 else "MR"))
    else:
        card, tensors, used = read_card(path), read_safetensors(path), "as in the source"
        card = card if modality is None else _for_modality(card, modality)
    try:
        build_prior(card, tensors, device=torch.device("cpu"))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    value = replace(card.value, offset=card.value.offset if offset is None else offset)
    card = replace(
        card,
        id=name,
        title=title or card.title,
        licence=licence or card.licence,
        value=value if scale is None else replace(value, scale=scale),
        training=card.training | ({"size": size} if size else {}),
        source={
            "file": path.name,
            "sha256": sha256(path),
            "weights": used,
            "weights_sha256": weights_digest(tensors),
        },
    )
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(f"{place.parent}: the folder for priors cannot be made ({error.strerror})") from None
    write_weights(tensors, card, place)
    return place


def _for_modality(card: ModelCard, modality: str) -> ModelCard:
    if modality not in MODALITIES:
        raise InputError(f"modality {modality!r} is not known; use {' or '.join(MODALITIES)}")
    if modality == "CT" and card.channels != 1:
        raise InputError(
            f"{card.title}: a network of {card.channels} channels works on complex images; a CT prior has one channel"
        )
    return replace(card, modality=modality, value=VALUE_SCALES[modality])


def verify_prior(id_or_file: str | os.PathLike[str]) -> dict[str, Any]:
    """Check that a prior's weights are those that were imported, and that they fit the network on its card.

    Returns {"id", "file", "digest"}, where digest is "matches" or, for a prior that was not imported, "not recorded".
    Raises InputError that says what is wrong.
    """
    path = find(id_or_file)
    card, tensors = read_card(path), read_safetensors(path)
    try:
        build_prior(card, tensors, device=torch.device("cpu"))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    recorded = card.source.get("weights_sha256", "")
    if recorded and recorded != weights_digest(tensors):
        raise InputError(f"{path}: the weights are not those that were imported (SHA-256 differs); import them again")
    return {"id": card.id, "file": str(path), "digest": "matches" if recorded else "not recorded"}


def read_config(path: Path) -> dict[str, Any]:
    """The entries of a network from a JSON file; raises InputError unless it holds one object."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from None
    return json_object(text, str(path))
