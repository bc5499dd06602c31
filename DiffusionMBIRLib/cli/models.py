"""``diffusionmbir models``: what is at hand, and what comes and goes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..monitor import Monitor
from ..tasks import MODALITIES
from .options import Outcome

NAME, HELP = "models", "list, show, import, remove or verify priors"
ACTIONS = ("list", "show", "import", "remove", "verify")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of all actions; those of ``import`` stand in a group of their own."""
    parser.add_argument("action", nargs="?", choices=ACTIONS, default="list", help="default list")
    parser.add_argument("prior", nargs="?", help="id (show, remove, verify) or file (show, import)")
    group = parser.add_argument_group("import")
    group.add_argument("--id", help="id of the new prior")
    group.add_argument("--modality", choices=MODALITIES, help="default CT for one channel, MR for two")
    group.add_argument("--value-offset", type=float, help="the network sees (value - OFFSET) / SCALE; CT: -1000 HU")
    group.add_argument("--value-scale", type=float, help="default for CT 2000 HU, for MR 1")
    group.add_argument("--config", type=Path, help="JSON with what weights do not tell, as an ADM's head_channels")
    group.add_argument("--raw", action="store_true", help="the weights of the last step instead of their average")
    group.add_argument("--size", type=int, help="side in pixels of the images that the network was trained on")
    group.add_argument("--title", default="", help="one line for the model card")
    group.add_argument("--licence", default="", help="licence of the weights, for the model card")
    group.add_argument("--force", action="store_true", help="replace a prior of the same id")


def run(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """Do the chosen action; returns what --json prints and what is printed otherwise."""
    return {"list": _list, "show": _show, "import": _import, "remove": _remove, "verify": _verify}[arguments.action](
        arguments
    )


def _named(arguments: argparse.Namespace, what: str) -> str:
    if not arguments.prior:
        raise InputError(f"models {arguments.action}: name {what}; `diffusionmbir models` lists those at hand")
    return str(arguments.prior)


def _list(arguments: argparse.Namespace) -> Outcome:
    from ..models import damaged, installed, is_bundled, read_card

    entries, rows = [], []
    for name, path in sorted(installed().items()):
        card, origin = read_card(path), "bundled" if is_bundled(path) else "user"
        entries.append(
            {
                "id": name,
                "modality": card.modality,
                "title": card.title,
                "kind": card.network.get("kind", ""),
                "channels": card.channels,
                "origin": origin,
                "bytes": path.stat().st_size,
            }
        )
        rows.append(f"{name:<20} {card.modality:<4} {origin:<8} {card.title}  [{card.licence or 'licence unknown'}]")
    wrong = damaged()
    rows += [f"damaged: {reason}" for reason in wrong.values()]
    listed = [{"file": str(path), "reason": reason} for path, reason in wrong.items()]
    return {"models": entries, "damaged": listed}, "\n".join(rows) or "no prior is installed"


def _show(arguments: argparse.Namespace) -> Outcome:
    from ..models import find, read_card, sha256

    path = find(_named(arguments, "a prior by id or file"))
    entries = {"file": str(path), "sha256": sha256(path), **json.loads(read_card(path).to_json())}
    return entries, json.dumps(entries, indent=2)


def _import(arguments: argparse.Namespace) -> Outcome:
    from ..models import read_card
    from ..priors.importing import import_prior, read_config

    file = _named(arguments, "the file of a checkpoint")
    if not arguments.id:
        raise InputError("models import: say by --id what the prior is to be called")
    path = import_prior(
        file,
        arguments.id,
        modality=arguments.modality,
        offset=arguments.value_offset,
        scale=arguments.value_scale,
        config=read_config(arguments.config) if arguments.config else None,
        weights="raw" if arguments.raw else "ema",
        size=arguments.size,
        title=arguments.title,
        licence=arguments.licence,
        force=arguments.force,
    )
    card = read_card(path)
    entries = {"id": card.id, "file": str(path), **json.loads(card.to_json())}
    text = f"{card.id}: {card.modality}, {card.network['kind']}, {card.channels} channel(s), sees "
    text += f"({card.value.unit} - ({card.value.offset:g})) / {card.value.scale:g}; in {path}"
    return entries, text


def _remove(arguments: argparse.Namespace) -> Outcome:
    from ..models import remove

    path = remove(_named(arguments, "a prior by id"))
    return {"removed": str(path)}, f"removed {path}"


def _verify(arguments: argparse.Namespace) -> Outcome:
    from ..models import resources, user_models
    from ..priors.importing import verify_prior

    if arguments.prior:
        files: list[Any] = [arguments.prior]
    else:  # damaged files, too, which no id leads to
        files = [p for folder in (resources() / "Models", user_models()) for p in sorted(folder.glob("*.safetensors"))]
    good, bad = [], []
    for file in files:
        try:
            good.append(verify_prior(file))
        except InputError as error:
            bad.append(str(error))
    if bad:
        raise InputError("; ".join(bad))
    return {"verified": good}, "\n".join(f"{g['id']:<20} good, digest {g['digest']}" for g in good) or "no prior"
