"""Which part of the body each thick slice averages over.  Needs numpy only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError
from .base import Geometry
from .checks import count, finite, length
from .grid import Grid

BOX, GAUSSIAN, TABLE = "box", "gaussian", "table"
_FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian of standard deviation 1
_LEAST_COVERED = 0.05  # share of its profile that a thick slice has within the grid
_REGULAR = 0.02  # of their distance: how far slices may be from equally spaced
_BETWEEN = 32  # steps that a table is refined by


@dataclass(frozen=True, eq=False)
class SliceProfiles(Geometry):
    """A stack of slices, each the mean over a stretch of the axis that it is thick along, weighed by a profile.

    places_mm: middles of the slices along that axis, rising, from the middle of the grid.  thickness_mm: width of a
    box, full width at half maximum of a Gaussian; of a table that of its sensitivity, for people to read.  in_plane:
    (rows, columns), the same as the grid's.  offsets_mm, response: of a table, distances from the middle of a slice,
    rising, and the sensitivity there, linear in between and 0 beyond.
    """

    KIND: ClassVar[str] = "slice-profiles"
    LABEL: ClassVar[str] = "Thick slices"

    places_mm: tuple[float, ...]
    thickness_mm: float
    in_plane: tuple[int, int]
    profile: str = BOX
    offsets_mm: tuple[float, ...] = ()
    response: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("places_mm", "offsets_mm", "response"):
            object.__setattr__(self, name, finite(f"geometry.{name}", getattr(self, name)))
        object.__setattr__(self, "thickness_mm", length("geometry.thickness_mm", self.thickness_mm))
        object.__setattr__(self, "in_plane", tuple(count("geometry.in_plane", n) for n in self.in_plane))
        if len(self.in_plane) != 2:
            raise InputError(f"geometry.in_plane must be (rows, columns), not {self.in_plane}")
        if not self.places_mm or any(b <= a for a, b in zip(self.places_mm, self.places_mm[1:], strict=False)):
            raise InputError("geometry.places_mm must list the middles of the slices, rising")
        gaps = np.diff(self.places_mm)
        if len(gaps) and np.ptp(gaps) > _REGULAR * gaps.mean():
            raise InputError(
                f"geometry.places_mm: slices lie {gaps.min():.4g} to {gaps.max():.4g} mm apart; resample them"
            )
        if self.profile not in (BOX, GAUSSIAN, TABLE):
            raise InputError(f"geometry.profile must be {BOX}, {GAUSSIAN} or {TABLE}, not {self.profile!r}")
        if self.profile == TABLE:
            self._check_table()

    def _check_table(self) -> None:
        offsets, response = np.asarray(self.offsets_mm), np.asarray(self.response)
        if len(offsets) < 2 or len(offsets) != len(response) or not np.all(np.diff(offsets) > 0):
            raise InputError(
                "geometry.offsets_mm and response must be lists of one length, two or more, offsets rising"
            )
        if response.min() < 0 or not response.any():
            raise InputError("geometry.response must be 0 or positive, and not 0 everywhere")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SliceProfiles) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.places_mm, self.thickness_mm, self.in_plane, self.profile))

    def data_shape(self, slices: int) -> tuple[int, int, int]:
        """Shape of the thick slices, however many thin ones there are: (thick slices, rows, columns)."""
        return len(self.places_mm), *self.in_plane

    @property
    def data_axes(self) -> tuple[str, ...]:
        return "thick slices", "rows", "columns"

    @property
    def distance_mm(self) -> float:
        """From one thick slice to the next."""
        if len(self.places_mm) == 1:
            return self.thickness_mm
        return (self.places_mm[-1] - self.places_mm[0]) / (len(self.places_mm) - 1)

    def passed(self, distance_mm: np.ndarray) -> np.ndarray:
        """The share of a slice's profile that lies below a distance from its middle; rises from 0 to 1."""
        if self.profile == GAUSSIAN:
            deviation = self.thickness_mm / _FWHM
            erf = np.vectorize(math.erf, otypes=[float])
            share: np.ndarray = 0.5 + 0.5 * erf(distance_mm / (deviation * math.sqrt(2)))
            return share
        if self.profile == TABLE:
            offsets, response = _refined(np.asarray(self.offsets_mm), np.asarray(self.response))
            steps = np.diff(offsets) * (response[1:] + response[:-1]) / 2
            below = np.concatenate([[0.0], np.cumsum(steps)])
            return np.interp(distance_mm, offsets, below / below[-1])
        return np.clip(distance_mm / self.thickness_mm + 0.5, 0.0, 1.0)

    def matrix(self, grid: Grid) -> np.ndarray:
        """How thin slices add up to thick ones: float64 (thick, thin), each row of sum 1.

        Raises InputError for a thick slice that lies outside the grid.
        """
        thin, spacing = grid.shape[0], grid.spacing_mm[2]
        edges = (np.arange(thin + 1) - thin / 2) * spacing
        shares = np.diff(self.passed(edges[None] - np.asarray(self.places_mm)[:, None]), axis=1)
        covered = shares.sum(axis=1, keepdims=True)
        if covered.min() < _LEAST_COVERED:
            raise InputError("geometry.places_mm: a thick slice lies outside the grid of thin ones")
        return shares / covered

    def summary(self) -> dict[str, Any]:
        return {
            "geometry": self.KIND,
            "thick_slices": len(self.places_mm),
            "distance_mm": round(self.distance_mm, 4),
            "thickness_mm": round(self.thickness_mm, 4),
            "profile": self.profile,
        }


def _refined(offsets: np.ndarray, response: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    fine = np.interp(np.linspace(0, len(offsets) - 1, _BETWEEN * (len(offsets) - 1) + 1), range(len(offsets)), offsets)
    return fine, np.interp(fine, offsets, response)
