"""The doubt of a result as volumes on its own grid, and as files beside it.  Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..names import beside
from ..volume import Volume
from .candidates import Candidate, find_candidates


@dataclass(frozen=True)
class DoubtVolumes:
    """intervals: for "90" and "95" half-widths in the unit of the volume, within which so many percent of the true
    values are expected.  filled: 0 to 1, how much of the detail around a voxel the prior filled in.  part: what it
    filled in, signed.  against_tv: the volume less that of total variation.  labels: of structures that only the prior
    vouches for, and candidates, what they are.  numbers: of the
    whole volume, ``filled_in`` the same, ``unlike`` how unusual the scan is, in spreads between the people of the
    calibration, ``limit``, which one in a hundred of these passes, and how many ``candidates`` there are.
    """

    intervals: dict[str, Volume]
    filled: Volume
    part: Volume
    against_tv: Volume
    labels: Volume
    candidates: list[Candidate]
    numbers: dict[str, float]

    @classmethod
    def of(
        cls,
        result: Volume,
        intervals: dict[str, Volume],
        filled: Volume,
        part: Volume,
        against_tv: Volume,
        numbers: dict[str, float],
    ) -> DoubtVolumes:
        """With the candidates that these tell of."""
        labels, candidates = find_candidates(result, part, intervals["95"])
        numbers = numbers | {"candidates": len(candidates)}
        return cls(intervals, filled, part, against_tv, labels, candidates, numbers)

    def save_beside(self, result: Path) -> dict[str, Path]:
        """Write them as RESULT-interval-90, -interval-95, -filled, -prior-part, -candidates and -less-tv; returns the
        files by these marks.
        """
        marked = {f"interval-{share}": volume for share, volume in self.intervals.items()}
        marked |= {
            "filled": self.filled,
            "prior-part": self.part,
            "candidates": self.labels,
            "less-tv": self.against_tv,
        }
        written = {mark: beside(result, f"-{mark}") for mark in marked}
        for mark, volume in marked.items():
            volume.save(written[mark])
        return written
