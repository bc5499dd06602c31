"""What a file holds, as it was understood, and what this machine has: plain entries for people and programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .hounsfield import remarks_on
from .names import printable
from .provenance import NOTICE
from .version import __version__

if TYPE_CHECKING:
    from .scans import KSpace, Scan
    from .volume import Volume


def describe_file(path: Path, **told: Any) -> dict[str, Any]:
    """What the file holds.  told: as for ``read``.  Raises InputError for what cannot be read."""
    if path.suffix.lower() == ".safetensors":
        from .models import read_card

        card: dict[str, Any] = json.loads(read_card(path).to_json())
        return card
    from .formats import SCAN, may_hold

    if may_hold(path, SCAN):
        from .io.scans import read_scan

        return describe_scan(read_scan(path, **told))
    from .io.volumes import read_volume

    return describe_volume(read_volume(path))


def describe_machine() -> dict[str, Any]:
    """Versions, devices and the priors at hand."""
    import torch

    from .devices import choose_device, choose_precision, device_text, precision_name
    from .models import damaged, installed

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
        **({"damaged": list(wrong.values())} if (wrong := damaged()) else {}),
        "notice": NOTICE,
    }


def describe_volume(volume: Volume) -> dict[str, Any]:
    """Unit, type, range and grid."""
    low, high = float(volume.array.min()), float(volume.array.max())
    entries = {"kind": "volume", "unit": volume.unit, "type": str(volume.array.dtype), "range": [low, high]}
    remarks = remarks_on(volume)
    return {**entries, **volume.grid.to_dict(), **({"remarks": remarks} if remarks else {})}


def describe_scan(scan: Scan) -> dict[str, Any]:
    """Task, geometry, grid and noise, with what was guessed and what there is to remark."""
    from .scans import KSpace

    grid, told = scan.grid, scan.provenance
    entries: dict[str, Any] = {"task": scan.task, **scan.geometry.summary(), "slices": grid.shape[0]}
    if isinstance(scan, KSpace):
        return {"kind": "k-space", "format": told.get("source", "DiffusionMBIR"), **entries, **_of_kspace(scan)}
    numbers = {f.name: getattr(scan, f.name) for f in fields(scan) if f.type == "float"}
    listed = {key: list(told[key]) for key in ("guessed", "remarks") if isinstance(told.get(key), list)}
    source = {"format": told["source"]} if isinstance(told.get("source"), str) else {}
    return {
        "kind": "measurement",
        **source,
        **entries,
        "grid": list(grid.shape),
        "spacing_mm": list(grid.spacing_mm),
        "unit": scan.unit,
        **numbers,
        **listed,
    }


def _of_kspace(kspace: KSpace) -> dict[str, Any]:
    grid, told = kspace.grid, kspace.provenance
    return {
        "axes": told.get("axes", ", ".join(kspace.geometry.data_axes)),
        "readout_oversampling": told.get("readout_oversampling", 1.0),
        "oversampling_removed": told.get("oversampling_removed", False),
        "spacing_mm": [round(s, 4) for s in grid.spacing_mm],
        "field_of_view_mm": [round(s * n, 2) for s, n in zip(grid.spacing_mm, grid.shape[::-1], strict=True)],
        "maps": _maps(kspace),
        "whitened": told.get("whitened", False),
        "noise_std": kspace.noise_std,
        "guessed": list(told.get("guessed", [])),
        "remarks": list(told.get("remarks", [])),
    }


def _maps(kspace: KSpace) -> str:
    from .scans import TrajectoryKSpace
    from .sensitivity import SMALLEST_ACS, calibration_size, maps_method

    if kspace.maps is not None:
        return "in the file"
    if kspace.geometry.coils == 1:
        return "none needed"
    if isinstance(kspace, TrajectoryKSpace):
        return f"to be estimated ({maps_method()})"
    if min(calibration_size(kspace)) < SMALLEST_ACS:
        return "cannot be estimated: too few calibration lines"
    apart = ", separate calibration" if calibration_size(kspace) != kspace.geometry.acs else ""
    return f"to be estimated ({maps_method()}{apart})"


def text_of(entries: dict[str, Any]) -> str:
    """Entries on one line, then what was guessed and remarked, each on its own."""
    notes = {key: entries[key] for key in ("guessed", "remarks") if key in entries}
    text = lines(entries, skip=tuple(notes))
    return text + "".join(f"\n{key}: {printable(value)}" for key, values in notes.items() for value in values)


def lines(entries: dict[str, Any], *, skip: Sequence[str] = ()) -> str:
    """Entries as one line of words and numbers."""
    return ", ".join(f"{key} {_short(value)}" for key, value in entries.items() if key not in skip)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple):
        return " x ".join(_short(v) for v in value) if value else "none"
    return printable(value)
