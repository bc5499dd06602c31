"""How far the data are thinned out for the volume that noise is added to.  Needs the standard library."""

from __future__ import annotations

VIEWS_OF_START = 30
PIXELS_OF_START = 64  # along the shorter side, at least


def coarse_start(views: int, in_plane: tuple[int, int]) -> tuple[int, int]:
    """(k, f): the volume that noise is added to is made from every k-th view, on a grid with 1 / f of the pixels along
    each side; 1 of few views.
    """
    stride = views // VIEWS_OF_START
    factor = max(1, min(in_plane) // PIXELS_OF_START)
    if stride < 2:
        return 1, 1
    return stride, 1 if any(n % factor for n in in_plane) else factor
