"""What a simulated scan tells of its origin."""

from __future__ import annotations

from typing import Any

from ..provenance import alias, software_version
from ..volume import Volume


def scan_name(volume: Volume) -> str:
    """The name of a scan, which is passed on with it and so has the alias of the volume's file."""
    return f"scan of {alias(volume.name)}"


def record(volume: Volume, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """The provenance of a scan: no name of the volume's file, which may be a patient's, but an alias."""
    return {
        "software": "DiffusionMBIR",
        "version": software_version(),
        "kind": "simulated",
        "source": alias(volume.name),
        "settings": settings,
        "seed": seed,
    }
