"""ISMRMRD files whose readouts bring a trajectory of two or three dimensions: radial, spiral, and whatever else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..scans import TrajectoryKSpace
from .sizes import require_memory
from .trajectory_scan import Readouts, ToldTrajectory, finish_readouts

if TYPE_CHECKING:
    from .ismrmrd import Reader

_SAME = 1e-3  # of the largest |k|, by which trajectories of slices and partitions may differ
NAMES = ("radial", "goldenangle", "spiral", "other")


def read_trajectory(reader: Reader, told: ToldTrajectory) -> TrajectoryKSpace:
    """The first image of an open file.  Raises InputError for readouts that are no stack on one trajectory."""
    chosen = reader.image_readouts()
    heads, name = reader.heads[chosen], reader.name
    if told.trajectory:
        raise InputError(f"{name}: trajectory {told.trajectory}: the file brings its own; leave it out")
    if int(heads["trajectory_dimensions"].min()) < 2:
        raise InputError(
            f"{name}: its header says {reader.header.trajectory!r}, but readouts have no trajectory; write traj into "
            "the file, or give k-space as an array with --trajectory"
        )
    stack, slices = reader.stack(heads)
    partitions = int(np.unique(heads["idx"]["kspace_encode_step_2"]).size)
    data, points = _gathered(reader, chosen, stack.order, (slices, partitions))
    header = reader.header
    image = header.image or header.encoded
    assert image is not None
    through = heads["sample_time_us"]
    return finish_readouts(
        Readouts(
            name,
            "ISMRMRD",
            data,
            points,
            matrix=(image.matrix[0], image.matrix[1]),
            fov_mm=(image.field_mm[0], image.field_mm[1]),
            slice_mm=_slice_mm(stack.spacing_mm, image.field_mm[2], partitions, reader.guessed),
            dwell_us=float(through[0]),
            pattern={"goldenangle": "radial"}.get(header.trajectory, header.trajectory.replace("other", "")),
            noise=reader.noise(data.shape[2]),
            noise_bandwidth=reader.noise_bandwidth(heads),
            directions=reader.directions(heads),
            centre_mm=reader.centre(heads, stack),
            guessed=[*header.guessed, *reader.guessed],
            remarks=reader.remarks,
        ),
        told,
    )


def _gathered(
    reader: Reader, chosen: np.ndarray, order: np.ndarray, counts: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Data (slices, partitions, coils, readouts, samples) and the points (readouts, samples, 2) that all share."""
    name, heads = reader.name, reader.heads[chosen]
    where = [np.unique(heads["idx"][key], return_inverse=True)[1] for key in ("slice", "kspace_encode_step_2")]
    places = list(zip(order[where[0]].tolist(), where[1].tolist(), strict=True))
    readouts = len(chosen) // (counts[0] * counts[1])
    if readouts * counts[0] * counts[1] != len(chosen) or not readouts:
        raise InputError(
            f"{name}: {len(chosen)} readouts cannot be shared by {counts[0]} slices of {counts[1]} partitions"
        )
    coils, data, points = int(heads["active_channels"][0]), None, None
    filled = dict.fromkeys(places, 0)
    for (at, samples, path), place in zip(reader.with_paths(chosen), places, strict=True):
        head = reader.heads[at]
        inside = slice(int(head["discard_pre"]), samples.shape[1] - int(head["discard_post"]))
        samples, path = samples[:, inside], path[inside, :2]
        if data is None or points is None:
            shape = (*counts, coils, readouts, samples.shape[1])
            require_memory(name, shape)
            data, points = np.zeros(shape, np.complex64), np.full((*counts, readouts, samples.shape[1], 2), np.nan)
        nth = filled[place]
        if nth >= readouts or samples.shape != (coils, data.shape[-1]):
            raise InputError(f"{name}: readouts differ in number or size from slice to slice; bring slices of one kind")
        data[place][:, nth], points[place][nth] = samples, path
        filled[place] += 1
    assert data is not None
    assert points is not None
    shared = points[0, 0]
    if np.nanmax(np.abs(points - shared), initial=0.0) > _SAME * np.nanmax(np.abs(shared), initial=1e-30):
        what = "partition to partition" if counts[1] > 1 else "slice to slice"
        raise InputError(f"{name}: its trajectory changes from {what}; only stacks on one trajectory can be read")
    return data, shared


def _slice_mm(apart: float, thick: float, partitions: int, guessed: list[str]) -> float:
    found = thick / partitions if partitions > 1 else apart or thick
    if not found > 0:
        guessed.append("slice spacing 1 mm (no thickness in the header)")
    return found or 1.0
