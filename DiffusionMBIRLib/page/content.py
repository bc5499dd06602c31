"""What stands on the page of a result: taken from its own file, those beside it, and the scan where it is at hand."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..config import ReconSettings
from ..errors import InputError
from ..io.volumes import read_volume
from ..names import beside
from ..provenance import own_record
from ..scans import Measurement, Scan
from ..tasks import MR_TASK, TASKS, task_info
from ..uncertainty.candidates import Candidate, find_candidates
from ..volume import Volume

SHARES = ("95", "90")
_PROVENANCE = "provenance"


@dataclass(frozen=True)
class Content:
    """record: of the run, as in the volume's header.  intervals: half-widths by percent.  filled: 0 to 1.  against_tv:
    the volume less that of total variation.  labels, candidates: structures that only the prior vouches for.  scan:
    what was measured.
    """

    volume: Volume
    record: dict[str, Any]
    intervals: dict[str, Volume] = field(default_factory=dict)
    filled: Volume | None = None
    against_tv: Volume | None = None
    labels: Volume | None = None
    candidates: list[Candidate] = field(default_factory=list)
    deviation: Volume | None = None
    scan: Scan | None = None

    @property
    def task(self) -> str:
        measured = self.record.get("measurement", {})
        named = self.scan.task if self.scan else str(measured.get("task", ""))
        if named in TASKS:
            return named
        return MR_TASK if self.volume.unit == "" else TASKS[0]

    @property
    def convergence(self) -> list[tuple[float, float]]:
        """(step, residual) of the run."""
        return self.record.get("convergence", [])

    @property
    def settings(self) -> dict[str, Any]:
        found = self.record.get("settings")
        return dict(found) if isinstance(found, Mapping) else {}


def gathered(result: Path, scan: Scan | None = None) -> Content:
    """The content for a volume that ``reconstruct`` wrote, with the files that it wrote beside it.

    Raises InputError, naming the file, for a volume that holds no record of a run, or a scan of another size.
    """
    volume = read_volume(result)
    record = _record(volume, result)
    if scan is not None and scan.grid.voxels != volume.grid.voxels:
        raise InputError(
            f"{scan.name}: is of {scan.grid.shape} voxels, {result.name} of {volume.grid.shape}; give its own scan"
        )
    found: dict[str, Volume] = {}
    for part in ("interval-95", "interval-90", "filled", "prior-part", "less-tv", "deviation"):
        path = beside(result, f"-{part}")
        if path.is_file():
            found[part] = read_volume(path)
            if found[part].grid.shape != volume.grid.shape:
                raise InputError(
                    f"{path}: has another size than {result.name}; it belongs to another run, move it away"
                )
    intervals = {share: found[f"interval-{share}"] for share in SHARES if f"interval-{share}" in found}
    labels, candidates = None, list[Candidate]()
    if "prior-part" in found and "95" in intervals:  # found anew: a label volume may be of other hands
        labels, candidates = find_candidates(volume, found["prior-part"], intervals["95"])
    return Content(
        volume,
        record,
        intervals,
        found.get("filled"),
        found.get("less-tv"),
        labels,
        candidates,
        found.get("deviation"),
        scan,
    )


def _record(volume: Volume, path: Path) -> dict[str, Any]:
    text = volume.metadata.get(_PROVENANCE, "")
    try:
        told = json.loads(text) if text else None
    except ValueError:
        told = None
    if not isinstance(told, dict) or not told.get("settings"):
        raise InputError(f"{path}: holds no record of a run; give a volume that DiffusionMBIR reconstructed (NRRD)")
    return own_record(told)


def command(content: Content) -> str:
    """How to repeat the run: preset and method by name, whatever the scan would choose, and what was otherwise."""
    preset, method = task_info(content.task).preset, str(content.settings.get("method", ReconSettings.method))
    usual = asdict(ReconSettings.preset(preset, method=method))
    words = ["diffusionmbir reconstruct SCAN -o RESULT.nrrd", f"--preset {preset}", f"--method {method}"]
    for name, value in content.settings.items():
        if name not in usual or name in ("method", "device") or value == usual[name]:
            continue
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{option}")
        else:
            words.append(f"--{option} {shlex.quote(str(value))}")
    return " ".join(words)


def residual_of_views(content: Content) -> tuple[np.ndarray, np.ndarray] | None:
    """View angles in degrees and |A x - y| / |y| of each view; None without a scan of rays or in another unit."""
    scan, volume = content.scan, content.volume
    if not isinstance(scan, Measurement):
        return None
    import torch

    from ..operators import projector

    axial = volume.axial()[0].array.astype(np.float32)
    mu = (axial / 1000 + 1) * scan.mu_water_per_mm if scan.unit == "HU" else axial
    with torch.inference_mode():
        A = projector(scan.geometry, scan.grid, device=torch.device("cpu"))
        computed = A.forward(A.domain.laid_out(torch.from_numpy(np.ascontiguousarray(mu)))).numpy()
    off = ((computed - scan.data) ** 2).sum(axis=(0, 2), dtype=np.float64)
    size = (scan.data.astype(np.float64) ** 2).sum(axis=(0, 2))
    return np.asarray(scan.geometry.angles_deg, float), np.sqrt(off / np.maximum(size, 1e-30))
