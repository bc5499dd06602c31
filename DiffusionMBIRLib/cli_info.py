"""``diffusionmbir info``: what a file holds, as it was understood, or what this machine has."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .monitor import Monitor
from .provenance import NOTICE
from .version import __version__

if TYPE_CHECKING:
    from .scans import KSpace, Measurement
    from .volume import Volume


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        help="volume, DICOM folder, measurement, k-space, projections or prior (default: this machine)",
    )


def run(arguments: argparse.Namespace, monitor: Monitor) -> tuple[dict[str, Any], str]:
    """The entries for ``--json``, and the text."""
    path: Path | None = arguments.file
    entries = describe_machine() if path is None else describe_file(path)
    notes = {key: entries[key] for key in ("guessed", "remarks") if key in entries}
    text = lines(entries, skip=tuple(notes))
    for key, values in notes.items():
        text += "".join(f"\n{key}: {value}" for value in values)
    return entries, text


def describe_file(path: Path) -> dict[str, Any]:
    """What the file holds.  Raises InputError for what cannot be read."""
    if path.suffix.lower() == ".safetensors":
        from .models import read_card

        card: dict[str, Any] = json.loads(read_card(path).to_json())
        return card
    from .io.measurements import is_measurement, read_measurement

    if is_measurement(path):
        return describe_scan(read_measurement(path))
    from .io.volumes import read_volume

    return describe_volume(read_volume(path))


def describe_machine() -> dict[str, Any]:
    import torch

    from .devices import choose_device, choose_precision, device_text, precision_name
    from .models import installed

    device = choose_device("auto")
    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    return {
        "version": __version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "cuda_devices": gpus,
        "cpu_threads": torch.get_num_threads(),
        "auto_device": device_text(device),
        "auto_precision": precision_name(choose_precision("auto", device)),
        "priors": sorted(installed()),
        "notice": NOTICE,
    }


def describe_volume(volume: Volume) -> dict[str, Any]:
    low, high = float(volume.array.min()), float(volume.array.max())
    entries = {"kind": "volume", "unit": volume.unit, "type": str(volume.array.dtype), "range": [low, high]}
    return {**entries, **volume.grid.to_dict()}


def describe_scan(measurement: Measurement | KSpace) -> dict[str, Any]:
    from .scans import KSpace

    if isinstance(measurement, KSpace):
        from .io.kspace import describe

        return describe(measurement)
    geometry, grid = measurement.geometry, measurement.grid
    angles, told = geometry.angles_deg, measurement.provenance
    return {
        "kind": "measurement",
        "task": measurement.task,
        "geometry": "parallel-beam",
        "views": geometry.views,
        "first_and_last_angle_deg": [min(angles), max(angles)],
        "detector_columns": geometry.columns,
        "pitch_mm": geometry.pitch_mm,
        "offset_mm": geometry.offset_mm,
        "slices": grid.shape[0],
        "grid": list(grid.shape),
        "spacing_mm": list(grid.spacing_mm),
        "photons": measurement.photons,
        "mu_water_per_mm": measurement.mu_water_per_mm,
        **{key: list(told[key]) for key in ("guessed", "remarks") if isinstance(told.get(key), list)},
    }


def lines(entries: dict[str, Any], *, skip: Sequence[str] = ()) -> str:
    """Entries as one line of words and numbers."""
    return ", ".join(f"{key} {_short(value)}" for key, value in entries.items() if key not in skip)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple):
        return " x ".join(_short(v) for v in value) if value else "none"
    return str(value)
