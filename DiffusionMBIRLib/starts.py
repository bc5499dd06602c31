"""How far the data are thinned out for the volume that noise is added to, and for what only looks for a strength.

Needs the standard library.
"""

from __future__ import annotations

VIEWS_OF_START = 30
PIXELS_OF_START = 64  # along the shorter side, at least
SLICES_OF_STRENGTH = 8
_PIXELS_OF_STRENGTH = 2**17  # of a slice, at most: on coarser grids the error of pixels passes for noise
_VOXELS_OF_STRENGTH = 2**20


def coarse_start(views: int, in_plane: tuple[int, int]) -> tuple[int, int]:
    """(k, f): the volume that noise is added to is made from every k-th view, on a grid with 1 / f of the pixels along
    each side; 1 of few views.
    """
    stride = views // VIEWS_OF_START
    factor = max(1, min(in_plane) // PIXELS_OF_START)
    if stride < 2:
        return 1, 1
    return stride, 1 if any(n % factor for n in in_plane) else factor


def part_for_strength(shape: tuple[int, int, int], stacked: bool) -> tuple[slice, int]:
    """(slices, f): of a volume of this shape, what a strength of total variation is looked for on: some slices in the
    middle of a stack, else all, on a grid with 1 / f of the pixels along each side.
    """
    slices, rows, columns = shape
    held = min(slices, SLICES_OF_STRENGTH) if stacked else slices
    first, by = (slices - held) // 2, 1
    while rows % (2 * by) == columns % (2 * by) == 0 and (
        rows * columns > _PIXELS_OF_STRENGTH * by**2 or held * rows * columns > _VOXELS_OF_STRENGTH * by**2
    ):
        by *= 2
    return slice(first, first + held), by
