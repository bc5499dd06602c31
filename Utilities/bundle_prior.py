#!/usr/bin/env python3
"""Bundle a trained prior: put licence and sources into its card and write a readable card beside it.

    python Utilities/bundle_prior.py TRAINED.safetensors MANIFEST.json --files ct_ native_ct_ --limits "..."

MANIFEST.json lists the training volumes: {"volumes": [{"file", "licence", "attribution", "source_repo", ...}]}.  It is
left out for a prior of synthetic shapes alone, the weights that its training started from being such a prior's too.
The network of a supervised method goes to the benchmark's folder instead, whose README.md is written anew.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from DiffusionMBIRLib.methods import SUPERVISED_METHODS
from DiffusionMBIRLib.models import ModelCard, find, read_card, resources, sha256
from DiffusionMBIRLib.priors.checkpoints import load_prior, weights_digest, write_weights
from DiffusionMBIRLib.priors.published import read_safetensors
from DiffusionMBIRLib.supervised.about import DEPARTURES, networks_folder
from DiffusionMBIRLib.tasks import SPARSE_VIEW

PRIVATE = ("train_patients", "held_out_patients")  # counts are enough


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("prior", type=Path)
    parser.add_argument("manifest", type=Path, nargs="?")
    parser.add_argument("--files", nargs="+", default=[""], help="how the names of the volumes that were used begin")
    parser.add_argument("--id", default="ct-compact-v1")
    parser.add_argument("--hold-out", nargs="*", default=(), help="names that are held out, without extension")
    parser.add_argument("--limits", default="")
    arguments = parser.parse_args()
    card = _card(arguments)
    if card.network.get("kind") in SUPERVISED_METHODS:
        return _bundle_supervised(arguments.prior, card)
    folder = resources() / "Models"
    path = folder / f"{arguments.id}.safetensors"
    weights = {k: v.half() for k, v in load_prior(arguments.prior).network.state_dict().items()}
    write_weights(weights, replace(card, source={"weights_sha256": weights_digest(weights)}), path)
    (folder / f"{arguments.id}.md").write_text(_page(card, sha256(path), weights), encoding="utf-8")
    sys.stdout.write(f"{path}: {path.stat().st_size / 1e6:.1f} MB\n")
    return 0


def _bundle_supervised(trained: Path, card: ModelCard) -> int:
    """Write the network with its card, and the page on all that lie beside it."""
    weights = {name: weight.half() for name, weight in read_safetensors(trained).items()}
    limits = f"{DEPARTURES[card.network['kind']]} {card.limits}"
    folder = networks_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{card.id}.safetensors"
    source = {"weights_sha256": weights_digest(weights)}
    write_weights(weights, replace(card, limits=limits, source=source), path)
    (folder / "README.md").write_text(_supervised_page(folder), encoding="utf-8")
    sys.stdout.write(f"{path}: {path.stat().st_size / 1e6:.1f} MB\n")
    return 0


def _supervised_page(folder: Path) -> str:
    cards = [(path, read_card(path)) for path in sorted(folder.glob("*.safetensors"))]
    lines = [
        "# Networks of the supervised baselines",
        "",
        "The supervised rows of `diffusionmbir benchmark`, of CT and of MRI, use these small networks.",
        "They are no part of the extension and no likeness of what their authors reported: each was trained in",
        "minutes on one CPU thread. They are there so that supervised methods stand in the table on equal terms:",
        "the same operators, the same kind of simulated scans and the same training volumes as the bundled prior.",
        "Research use only, not for diagnosis.",
        "",
        "A network is told the number of views, the angular range or the acceleration of a scan, so that one",
        "serves all of its task.",
        "With more time, more volumes and larger `--widths` they will do better; the command of each stands below.",
        "Scans of CT are simulated from an object of twice the resolution on a finer detector, as",
        "`diffusionmbir simulate` does; 40 % of them have noise of 1e5 to 1e6 photons a ray. Scans of MRI have its",
        "masks, coils and phases, accelerations of 2 to 6, one coil (60 %), 4 or 8, half of them noise of up to 2 %.",
    ]
    for path, card in cards:
        lines += ["", f"## {card.id}", "", card.limits, "", *_supervised_facts(path, card)]
    lines += ["", "## Data", "", _POLICY]
    lines += ["Volumes of CT were read in axial order, of MR in the planes that were acquired.", ""]
    used = {entry["file"]: entry for _, card in cards for entry in card.data}
    lines += _data_table(replace(cards[0][1], data=list(used.values())))
    return "\n".join([*lines, ""])


def _supervised_facts(path: Path, card: ModelCard) -> list[str]:
    t, network = card.training, card.network
    count = sum(weight.numel() for weight in read_safetensors(path).values())
    if "pairs" not in t:
        return _facts_of_mri(path, card, count)
    left = {key: t["error_left_of_fbp"][key] for key in sorted(t["error_left_of_fbp"], key=int)}
    geometry = "views" if network["task"] == SPARSE_VIEW else "degrees"
    return [
        "| | |",
        "|---|---|",
        f"| SHA-256 | `{sha256(path)}` |",
        f"| Licence | {card.licence} |",
        f"| Parameters | {count / 1e6:.2f} million, stored as float16 |",
        f"| Training | {t['images_seen']:,} images in batches of {t['settings']['batch']}, out of "
        f"{t['pairs']['blocks']} blocks of simulated scans |",
        "",
        f"Squared error on held-out slices as a share of FBP's, noise-free, by {geometry}; of several stages that of",
        "the last network, before its data-consistency update:",
        "",
        "| " + " | ".join(left) + " |",
        "|" + "---|" * len(left),
        "| " + " | ".join(f"{value:.3f}" for value in left.values()) + " |",
        "",
        f"    diffusionmbir train VOLUMES/ --method {network['kind']} --task {network['task']} -o training/ \\",
        f"        --images {t['images_seen']} --scans {t['pairs']['blocks']} --batch {t['settings']['batch']} \\",
        "        " + " ".join(f"--{name.replace('_', '-')} {t['settings'][name]}" for name in _TOLD),
    ]


def _facts_of_mri(path: Path, card: ModelCard, count: int) -> list[str]:
    t = card.training
    left, s = t["error_left_of_zero_filled"], t["settings"]
    held = [entry["file"].split(".")[0] for entry in card.data if entry["use"] == "held out"]
    return [
        "| | |",
        "|---|---|",
        f"| SHA-256 | `{sha256(path)}` |",
        f"| Licence | {card.licence} |",
        f"| Parameters | {count / 1e6:.2f} million, stored as float16 |",
        f"| Training | {t['images_seen']:,} images in batches of {s['batch']}, drawn and scanned on the way; "
        f"{t['seconds'] / 60:.0f} min on one thread beside much other work |",
        f"| Held out | {', '.join(held)} |",
        "",
        "Squared error on held-out slices, of a limb and a breast, as a share of the zero-filled images':",
        "",
        "| " + " | ".join(left) + " |",
        "|" + "---|" * len(left),
        "| " + " | ".join(f"{value:.3f}" for value in left.values()) + " |",
        "",
        f"    diffusionmbir train VOLUMES/ --method {card.network['kind']} -o training/ \\",
        f"        --images {t['images_seen']} --batch {s['batch']} \\",
        "        " + " ".join(f"--{name.replace('_', '-')} {s[name]}" for name in _TOLD),
    ]


_TOLD = ("learning_rate", "warmup_images", "schedule", "ema")


def _card(arguments: argparse.Namespace) -> ModelCard:
    if arguments.manifest is None:
        return _card_of_shapes(arguments)
    manifest = json.loads(arguments.manifest.read_text(encoding="utf-8"))["volumes"]
    begin = tuple(arguments.files)
    used = [v for v in manifest if Path(v["file"]).name.startswith(begin) and v["file"].startswith("train/")]
    sources = [
        {
            "file": Path(v["file"]).name,
            "use": "held out" if Path(v["file"]).name.startswith(tuple(arguments.hold_out) or "\0") else "training",
            "licence": v["licence"],
            "attribution": v["attribution"],
            "source": v["source_repo"],
            "processing": v["processing"],
        }
        for v in used
    ]
    card = read_card(arguments.prior)
    training = {k: v for k, v in card.training.items() if k not in PRIVATE}
    limits = f"{arguments.limits} Research use only, not for diagnosis.".strip()
    named = {source["file"] for source in sources}
    sources += [entry for entry in _earlier(training) if entry["file"] not in named]
    return replace(card, id=arguments.id, licence=_licence(sources), data=sources, training=training, limits=limits)


def _card_of_shapes(arguments: argparse.Namespace) -> ModelCard:
    card = read_card(arguments.prior)
    if "pixel_spacings_mm" in card.training:
        raise SystemExit(f"{arguments.prior}: has seen volumes; give their manifest")
    training = {k: v for k, v in card.training.items() if k not in PRIVATE}
    limits = f"{arguments.limits} Research use only, not for diagnosis.".strip()
    return replace(card, id=arguments.id, licence="CC BY 4.0", training=training, limits=limits)


def _earlier(training: dict[str, Any]) -> list[dict[str, str]]:
    """The data of the prior whose weights training started from."""
    if "initial" not in training:
        return []
    name, digest = training["initial"]["id"], training["initial"]["sha256"]
    path = find(name)
    if sha256(path) != digest:
        raise SystemExit(f"{path}: is not the prior that training started from")
    return [entry | {"use": f"through {name}: {entry['use']}"} for entry in read_card(path).data]


def _licence(sources: list[dict[str, str]]) -> str:
    kinds = sorted({source["licence"].partition(" (")[0] for source in sources})
    return f"CC BY 4.0; trained on volumes under {', '.join(kinds)}, attributed below"


def _page(card: ModelCard, digest: str, weights: dict[str, Any]) -> str:
    t = card.training
    loss = t["held_out_loss"]
    parameters = sum(w.numel() for w in weights.values())
    lines = [
        f"# {card.id}",
        "",
        f"**{card.title}** for {card.modality}. {card.limits}",
        "",
        "| | |",
        "|---|---|",
        f"| SHA-256 | `{digest}` |",
        f"| Licence | {card.licence} |",
        f"| Parameters | {parameters / 1e6:.2f} million, stored as float16 |",
        f"| Network | {_sizes(card.network)} |",
        f"| Values | {_values(card)}, {card.channels} channel |",
        f"| Noise levels | {card.sigma_min:g} to {card.sigma_max:g}; sigma_data {card.sigma_data:g} |",
        f"| Training | {t['images_seen']:,} images, {t['steps']:,} steps, {t['seconds'] / 3600:.1f} h on 2 CPU cores"
        f"{_from(t)} |",
        f"| Crops | {t['settings']['size']} x {t['settings']['size']} pixels |",
        *(f"| Pixel spacings | {min(seen):g} to {max(seen):g} mm |" for seen in [t.get("pixel_spacings_mm")] if seen),
        "",
        "## Held-out loss",
        "",
        f"EDM-weighted denoising loss on fixed {'windows of the held-out patients' if card.data else 'shapes'} with "
        "fixed noise (1: a network that has",
        "learnt nothing). The checkpoint with the lowest mean was chosen.",
        "",
        "| sigma | " + " | ".join(loss) + " | mean |",
        "|---|" + "---|" * (len(loss) + 1),
        "| loss | " + " | ".join(f"{v:.4f}" for v in loss.values()) + f" | {sum(loss.values()) / len(loss):.4f} |",
        "",
    ]
    if not card.data:
        return "\n".join([*lines, *_shapes_drawn(t, card.network["widths"]), ""])
    lines += [*_by_pixel(t), *_repeats(t), "## Data", "", _POLICY, _reading(card), "", *_data_table(card), ""]
    return "\n".join(lines)


def _shapes_drawn(training: dict[str, Any], widths: list[int]) -> list[str]:
    s = training["settings"]
    options = " ".join(f"--{name.replace('_', '-')} {s[name]}" for name in (*_OF_SHAPES, *_TOLD))
    return [
        "## Data",
        "",
        "None: the images are drawn by formula, anew for each step.",
        "",
        f"    diffusionmbir train -o training/ {'' if s['vary_size'] else '--no-vary-size '}"
        f"--widths {' '.join(map(str, widths))} \\",
        f"        {options}",
    ]


_OF_SHAPES = ("shapes", "discs", "images", "batch", "size", "noise_median", "noise_spread", "decay_fraction", "seed")


def _sizes(network: dict[str, Any]) -> str:
    light = network.get("light_levels", 0)
    blocks = f"{network['blocks']} blocks a level" + (f", one on the {light} finest" if light else "")
    told = "; told the size of a pixel" if network.get("knows_pixels") else ""
    return f"widths {network['widths']}, {blocks}, {network['stem']} x {network['stem']} space-to-depth stem{told}"


def _by_pixel(training: dict[str, Any]) -> list[str]:
    """The held-out loss for pixels of each octave, of cards that tell it."""
    loss = training.get("held_out_loss_per_pixel_mm")
    if not loss:
        return []
    octaves = [f"{float(low):g} to {2 * float(low):g} mm" for low in loss]
    return [
        "| pixels | " + " | ".join(octaves) + " |",
        "|---|" + "---|" * len(loss),
        "| mean over the levels | " + " | ".join(f"{v:.4f}" for v in loss.values()) + " |",
        "",
    ]


def _repeats(training: dict[str, Any]) -> list[str]:
    """Whether samples repeat training images, of cards that tell it."""
    found = training.get("memorisation")
    if not found:
        return []
    return [
        "## Samples against training images",
        "",
        "The part of a sample with the most in it, 32 x 32 pixels, differs from the most alike place in any training",
        f"slice by {found['samples']:.3f} of its standard deviation (root mean square, median); such parts of slices",
        f"of people never seen by {found['held_out']:.3f}. {100 * found['copies']:.0f} % of the samples are nearer",
        f"than 99 of 100 of those. {100 * found['empty']:.0f} % were as good as empty and are left aside.",
        "",
    ]


_POLICY = (
    "Volumes from The Cancer Imaging Archive fall under its data usage policy as well; no attempt at\n"
    "re-identification may be made."
)


def _data_table(card: ModelCard) -> list[str]:
    return [
        "| file | use | licence | attribution | from |",
        "|---|---|---|---|---|",
        *(f"| {d['file']} | {d['use']} | {d['licence']} | {d['attribution']} | {d['source']} |" for d in card.data),
    ]


def _values(card: ModelCard) -> str:
    if card.value.unit == "HU":
        return f"(HU - ({card.value.offset:g})) / {card.value.scale:g}"
    return "magnitude / its 99.5th percentile in the volume"


def _from(training: dict[str, Any]) -> str:
    return f", from the weights of {training['initial']['id']}" if "initial" in training else ""


def _reading(card: ModelCard) -> str:
    if card.value.unit == "HU":
        return "They were read in axial order."
    return "They were cut in the planes that were acquired, nearly isotropic ones in all three planes."


if __name__ == "__main__":
    sys.exit(main())
