"""Structures that only the prior vouches for are found and placed; those that are measured, wide or small are not."""

from __future__ import annotations

import numpy as np

from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.uncertainty.candidates import MOST, find_candidates, listing
from DiffusionMBIRLib.volume import Volume

GRID = Grid((5, 40, 40), (1.0, 1.0, 4.0), (10.0, -20.0, 30.0))
WIDTH = 50.0


def volume(array: np.ndarray) -> Volume:
    return Volume(array.astype(np.float32), Grid(array.shape, GRID.spacing_mm, GRID.origin_mm))


def box(row: int, column: int, value: float, side: int = 3, shape=GRID.shape) -> np.ndarray:
    array = np.zeros(shape)
    array[1:3, row : row + side, column : column + side] = value
    return array


def test_what_the_prior_added_is_found_and_told_from_what_was_measured():
    added, taken = box(5, 8, 120.0), box(20, 30, -90.0)
    measured, faint, half = box(20, 8, 120.0), box(22, 20, 30.0), box(5, 25, 100.0)
    wide = np.zeros(GRID.shape)
    wide[:, 35:] = 200.0
    result = volume(40 + added + taken + measured + faint + half + wide)
    part = volume(added + taken + faint + 0.3 * half + wide)
    labels, found = find_candidates(result, part, volume(np.full(GRID.shape, WIDTH)))
    assert labels.unit == ""
    assert np.array_equal(labels.array > 0, (added > 0) | (taken < 0))
    bright, dark = found
    assert (bright.number, dark.number) == (1, 2)
    assert labels.array[1, 5, 8] == 1
    assert labels.array[1, 20, 30] == 2
    assert bright.size_mm3 == 2 * 9 * 4.0
    assert bright.position_mm == (18.0, -15.0, 34.0)
    around = 1 - 9 / 13**2  # of the contrast, where the box of the surroundings holds the structure
    assert abs(bright.contrast - 120 * around) < 1e-3
    assert abs(dark.contrast + 90 * around) < 1e-3
    assert abs(bright.measured) < 1e-3
    assert bright.half_width == WIDTH
    assert abs(bright.height - 120) < 1e-3
    assert abs(dark.height - 90) < 1e-3
    assert "(18, -15, 34) mm" in listing(found, "HU")[0]
    assert "stands out by 120 HU where +- 50 are expected" in listing(found, "HU")[0]


def test_a_wider_interval_leaves_nothing():
    added = box(5, 8, 120.0)
    labels, found = find_candidates(volume(added), volume(added), volume(np.full(GRID.shape, 130.0)))
    assert not found
    assert not labels.array.any()
    assert listing(found, "HU") == []


def test_more_than_a_label_volume_holds_are_cut_off_at_the_weakest():
    shape, strengths = (2, 160, 160), iter(np.linspace(100, 400, 400))
    array = np.zeros(shape)
    for row in range(4, 160, 8):
        for column in range(4, 160, 8):
            array[0, row : row + 2, column : column + 2] = next(strengths)
    labels, found = find_candidates(volume(array), volume(array), volume(np.full(shape, WIDTH)))
    assert len(found) == MOST
    assert labels.array.max() == MOST
    assert labels.array.dtype == np.uint8
    contrasts = [one.contrast for one in found]
    assert contrasts == sorted(contrasts, reverse=True)
    assert min(contrasts) > 150
