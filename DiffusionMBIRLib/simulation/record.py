"""What a simulated scan tells of its origin."""

from __future__ import annotations

from typing import Any

from ..provenance import file_name, software_version
from ..volume import Volume


def record(volume: Volume, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """The provenance of a scan: no folder, only the name of the volume's file."""
    return {
        "software": "DiffusionMBIR",
        "version": software_version(),
        "kind": "simulated",
        "source": file_name(volume.name),
        "settings": settings,
        "seed": seed,
    }
