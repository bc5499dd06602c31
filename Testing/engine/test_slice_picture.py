"""One slice of a scan in a hurry: what it shows, and the ways round that the file leaves open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.geometry import ConeBeam, HelicalCone, ParallelBeam
from DiffusionMBIRLib.preparation.rays import RayScan, measurement_of_rays
from DiffusionMBIRLib.preparation.told import Told
from DiffusionMBIRLib.slice_picture import candidates, save_slice_picture, slices
from Testing.engine.ray_files import expected
from Testing.engine.scans import correlation

BALLS = np.array([(2.0, -3.0, 0.0, 8.0, 0.04), (-4.0, 3.0, 0.0, 2.5, 0.05)])
ANGLES = tuple(np.arange(60) * 6.0)
CONE = ConeBeam(ANGLES, 7, 48, 0.9, 0.9, 60.0, 90.0)


def scan_of(geometry, **known):
    lines = expected(geometry, BALLS).swapaxes(0, 1).astype(np.float32)
    return measurement_of_rays(RayScan("scan", "simulated", lines, geometry, "lines", **known), Told())


def discs(size: int, pixel: float) -> np.ndarray:
    """Attenuation of the balls at z = 0."""
    x, y = np.meshgrid(*2 * [(np.arange(size) - (size - 1) / 2) * pixel])
    return np.asarray(sum(mu * ((x - cx) ** 2 + (y - cy) ** 2 <= r * r) for cx, cy, _, r, mu in BALLS))


@pytest.mark.parametrize("geometry", [CONE, ParallelBeam(ANGLES[:30], 48, 0.6)])
def test_the_slice_is_that_of_the_object(geometry):
    scan = scan_of(geometry, axis_known=True)
    ((name, image),) = slices(scan)
    assert name == "as read"
    assert correlation(image, discs(image.shape[0], scan.grid.spacing_mm[0])) > 0.95


def test_an_open_sense_of_rotation_is_shown_both_ways(tmp_path):
    pytest.importorskip("matplotlib")
    scan = scan_of(ParallelBeam(ANGLES[:30], 48, 0.6), axis_known=True, sense_known=False)
    first, other = slices(scan)
    assert other[0] == "angles the other way"
    assert correlation(first[1][::-1], other[1]) > 0.99  # mirrored
    save_slice_picture(tmp_path / "s.png", scan)
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_scanners_without_a_common_plane_are_refused():
    helix = HelicalCone(tuple(np.arange(80) * 9.0), 7, 48, 0.9, 0.9, 60.0, 90.0, travel_mm=3.0)
    scan = replace(scan_of(CONE), data=np.zeros((7, 80, 48), np.float32), geometry=helix)
    with pytest.raises(mbir.InputError, match="no quick slice"):
        next(candidates(scan))
