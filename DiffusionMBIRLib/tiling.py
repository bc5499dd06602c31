"""Where the tiles of a large slice lie.  Needs no torch, so that the estimate can ask what they cost."""

from __future__ import annotations

import math


def tile_starts(length: int, side: int, overlap: int, multiple: int = 1) -> list[int]:
    """Where tiles of ``side`` pixels begin along an axis of ``length`` pixels, evenly spread.

    Each begins at a multiple of ``multiple``; neighbours share at least ``overlap`` pixels and the last one may be
    shorter.  side and overlap are multiples of it as well, and overlap <= side / 2.
    """
    if length <= side:
        return [0]
    gaps = math.ceil((length - side) / (side - overlap))
    return [multiple * math.ceil(k * (length - side) / (gaps * multiple)) for k in range(gaps + 1)]


def tiled_pixels(shape: tuple[int, int], side: int) -> int:
    """Pixels that all tiles of a slice (rows, columns) hold together, with half of a tile shared with each neighbour;
    0 as side: whole slices.
    """
    if not side:
        return shape[0] * shape[1]
    rows, columns = (sum(min(side, n - start) for start in tile_starts(n, side, side // 2)) for n in shape)
    return rows * columns
