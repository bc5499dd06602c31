"""The doubt of a result as volumes on its own grid, and as files beside it.  Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..names import beside
from ..volume import Volume


@dataclass(frozen=True)
class DoubtVolumes:
    """intervals: for "90" and "95" half-widths in the unit of the volume, within which so many percent of the true
    values are expected.  filled: 0 to 1, how much of the detail around a voxel the prior filled in.  numbers: of the
    whole volume, ``filled_in`` the same, ``unlike`` how unusual the scan is, in spreads between the people of the
    calibration, and ``limit``, which one in a hundred of these passes.
    """

    intervals: dict[str, Volume]
    filled: Volume
    numbers: dict[str, float]

    def save_beside(self, result: Path) -> dict[str, Path]:
        """Write them as RESULT-interval-90, -interval-95 and -filled; returns the files by these marks."""
        marked = {f"interval-{share}": volume for share, volume in self.intervals.items()} | {"filled": self.filled}
        written = {mark: beside(result, f"-{mark}") for mark in marked}
        for mark, volume in marked.items():
            volume.save(written[mark])
        return written
