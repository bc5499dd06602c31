"""Hallucination candidates: small structures that stand out above the intervals and that only the prior vouches for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..volume import Volume

REACH = 3  # pixels, in each direction: structures are narrower than twice that, and their surroundings reach as far
LEAST_VOXELS = 4  # of a structure: fewer are grain
MOST = 255  # that the bytes of a label volume tell apart
SHOWN = 12  # in a shell and on a page


@dataclass(frozen=True)
class Candidate:
    """number: in the label volume, what the prior added most to first.  voxel: (slice, row, column) that stands out
    most, and position_mm, its (x, y, z), LPS.  size_mm3.  height: how far it stands out, in the mean, from what is as
    bright beside it, which it was found by.  contrast: mean difference from the surroundings, whatever these hold;
    measured: the part of it that the measurement tells.  half_width: mean of the 95 % interval there.
    """

    number: int
    voxel: tuple[int, ...]
    position_mm: tuple[float, float, float]
    size_mm3: float
    height: float
    contrast: float
    measured: float
    half_width: float


def find_candidates(result: Volume, part: Volume, half_widths: Volume) -> tuple[Volume, list[Candidate]]:
    """Structures that a reader would take for true, and of whose contrast the prior filled in more than half.

    Bright and dark structures by the top-hat of morphology (Serra 1982), where it is larger than the half-width;
    connected by faces.  part: what the prior filled in, signed, in the unit of the result.  All three are of one grid.
    Returns labels from 1 on, 0 elsewhere, and the candidates in their order.
    """
    import SimpleITK as sitk

    pixel = min(result.grid.spacing_mm)
    reach = [int(REACH * pixel / side + 1e-6) for side in result.grid.spacing_mm]
    values = result.array.astype(np.float32)
    image = sitk.GetImageFromArray(values)
    contrast = values - surroundings(values, reach)
    added = part.array - surroundings(part.array.astype(np.float32), reach)
    found: list[tuple[float, int, float, np.ndarray]] = []
    for sign, filtered in (
        (1, sitk.GrayscaleMorphologicalOpening(image, reach)),
        (-1, sitk.GrayscaleMorphologicalClosing(image, reach)),
    ):
        height = sign * (values - sitk.GetArrayViewFromImage(filtered))
        for voxels in _components(height > half_widths.array):
            whole, mine = (sign * float(field.flat[voxels].sum(dtype=np.float64)) for field in (contrast, added))
            if 0 < whole < 2 * mine:
                found.append((mine, int(height.flat[voxels].argmax()), float(height.flat[voxels].mean()), voxels))
    found.sort(key=lambda one: -one[0])
    labels, listed = np.zeros(values.shape, np.uint8), []
    for number, (_, peak, high, voxels) in enumerate(found[:MOST], start=1):
        labels.flat[voxels] = number
        stands, by_prior, width = (float(a.flat[voxels].mean()) for a in (contrast, added, half_widths.array))
        size = len(voxels) * float(np.prod(result.grid.spacing_mm))
        voxel = tuple(int(n) for n in np.unravel_index(voxels[peak], labels.shape))
        listed.append(Candidate(number, voxel, _place(result, voxel), size, high, stands, stands - by_prior, width))
    return replace(result, array=labels, unit="", name=f"hallucination candidates of {result.name}"), listed


def surroundings(values: np.ndarray, reach: Sequence[int]) -> np.ndarray:
    """Mean in a box of twice the reach."""
    import SimpleITK as sitk

    means: np.ndarray = sitk.GetArrayFromImage(sitk.Mean(sitk.GetImageFromArray(values), [2 * n for n in reach]))
    return means


def _components(mask: np.ndarray) -> list[np.ndarray]:
    """Flat indices of each."""
    import SimpleITK as sitk

    parts = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)))
    labels = sitk.GetArrayFromImage(sitk.RelabelComponent(parts, LEAST_VOXELS)).ravel()
    places = np.flatnonzero(labels)
    if not len(places):
        return []
    order = np.argsort(labels[places], kind="stable")
    return np.split(places[order], np.cumsum(np.bincount(labels[places])[1:])[:-1])


def _place(volume: Volume, voxel: Sequence[int]) -> tuple[float, float, float]:
    grid = volume.grid
    x, y, z = np.asarray(grid.origin_mm) + grid.matrix @ (np.array(voxel[::-1]) * np.asarray(grid.spacing_mm))
    return float(x), float(y), float(z)


def listing(candidates: Sequence[Candidate], unit: str) -> list[str]:
    """A line for each of the first, for people."""
    return [
        f"{c.number}: at ({', '.join(f'{p:.0f}' for p in c.position_mm)}) mm, {c.size_mm3 / 1000:.3g} ml, "
        f"stands out by {f'{c.height:.3g} {unit}'.rstrip()} where +- {c.half_width:.3g} are expected; "
        f"{c.contrast:+.3g} against the mean around it, of which the measurement tells {c.measured:+.3g}"
        for c in candidates[:SHOWN]
    ]
