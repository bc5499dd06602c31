"""Previews for a connection: at most 1 MB each, float16 in zlib, coarser where the volume is large; no torch.

Values are divided by the largest of them, so that float16 holds any unit; high and low bytes go apart, which zlib packs
better.  What is lost is measured and told: ``error``, the largest difference at the voxels that are sent.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..coarsening import Factors, between, coarser, factors_within, voxels_left

MOST_BYTES = 1 << 20
_LARGEST_FACTOR = 64
_USUAL_RATIO = 0.7  # of zlib on bytes that were sorted


def pack_preview(volume: np.ndarray, most: int = MOST_BYTES) -> tuple[dict[str, Any], bytes]:
    """(what is needed to unpack it, at most ``most`` bytes) of a volume (slices, rows, columns)."""
    factors: Factors = (1, 1, 1)
    while True:
        factors = factors_within(volume.shape, most / (2 * _USUAL_RATIO), factors)
        entries, payload = _packed(volume[tuple(slice(None, None, f) for f in factors)])
        if len(payload) <= most:
            return entries | {"shape": list(volume.shape), "factors": list(factors)}, payload
        factors = coarser(volume.shape, factors)


def _packed(coarse: np.ndarray) -> tuple[dict[str, Any], bytes]:
    values = np.nan_to_num(np.asarray(coarse, np.float32))
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    halves = (values / largest).astype("<f2")
    error = float(np.abs(halves.astype(np.float32) * np.float32(largest) - values).max(initial=0.0))
    sorted_bytes = np.ascontiguousarray(halves.reshape(-1).view(np.uint8).reshape(-1, 2).T)
    return {"largest": largest, "error": error}, zlib.compress(sorted_bytes.data, 1)


def unpack_preview(entries: Mapping[str, Any], payload: bytes) -> np.ndarray:
    """The volume, float32; what lies between the voxels that were sent is interpolated.  Raises ValueError."""
    shape, factors = _three(entries, "shape", 1 << 14), _three(entries, "factors", _LARGEST_FACTOR)
    coarse = tuple(-(-n // f) for n, f in zip(shape, factors, strict=True))
    expected = 2 * voxels_left(shape, factors)
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(payload, expected + 1)
    except zlib.error as error:
        raise ValueError("a preview is damaged") from error
    if len(data) != expected:
        raise ValueError("a preview is damaged")
    pairs = np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(2, -1).T)
    volume = pairs.view("<f2").reshape(coarse).astype(np.float32) * np.float32(entries["largest"])
    return between(volume, shape, factors)


def _three(entries: Mapping[str, Any], name: str, most: int) -> tuple[int, int, int]:
    values = entries.get(name)
    if (
        not isinstance(values, list)
        or len(values) != 3
        or not all(isinstance(v, int) and 0 < v <= most for v in values)
    ):
        raise ValueError("a preview is damaged")
    return values[0], values[1], values[2]
