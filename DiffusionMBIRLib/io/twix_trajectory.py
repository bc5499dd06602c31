"""Siemens raw data along a trajectory: of a Pulseq sequence, or of spokes whose angles the user tells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import InputError
from ..geometry.paths import radial, spoke_angles
from ..scans import TrajectoryKSpace
from .companions import companion
from .pulseq import read_sequence
from .sizes import require_memory
from .stack import SliceStack
from .trajectory_scan import Readouts, ToldTrajectory, finish_readouts


class TwixReader(Protocol):
    """What is needed of the reader of twix files."""

    name: str
    blocks: list[Any]
    guessed: list[str]
    remarks: list[str]

    def samples(self, block: Any) -> np.ndarray: ...
    def stack(self) -> tuple[np.ndarray, SliceStack]: ...
    def position(self, block: Any) -> np.ndarray: ...
    def directions(self, block: Any) -> np.ndarray: ...
    def noise_scan(self, coils: int) -> np.ndarray | None: ...
    def number(self, key: str) -> float: ...


def read_twix_trajectory(reader: TwixReader, told: ToldTrajectory) -> TrajectoryKSpace:
    """The scan.  Raises InputError where sequence or angles do not fit the readouts."""
    blocks, first = reader.blocks, reader.blocks[0].mdh
    samples, coils = int(first.SamplesInScan), int(first.UsedChannels)
    if any((int(b.mdh.SamplesInScan), int(b.mdh.UsedChannels)) != (samples, coils) for b in blocks):
        raise InputError(f"{reader.name}: readouts differ in samples or coils; only those of one kind are read")
    where, stack = reader.stack()
    slices = len(stack.order)
    parts = np.unique([int(b.mdh.Counter.Par) for b in blocks], return_inverse=True)[1]
    partitions = int(parts.max()) + 1
    readouts = len(blocks) // (slices * partitions)
    if readouts * slices * partitions != len(blocks):
        raise InputError(
            f"{reader.name}: {len(blocks)} readouts cannot be shared by {slices} slices of {partitions} partitions"
        )
    require_memory(reader.name, (slices, partitions, coils, readouts, samples))
    data = np.zeros((slices, partitions, coils, readouts, samples), np.complex64)
    order = np.zeros((slices, partitions), int)
    counters = np.zeros(readouts, int)
    for block, at, part in zip(blocks, where, parts, strict=True):
        nth = order[at, part]
        if nth >= readouts:
            raise InputError(f"{reader.name}: slices have unlike numbers of readouts")
        data[at, part, :, nth] = reader.samples(block)
        counters[nth], order[at, part] = int(block.mdh.Counter.Lin), nth + 1
    middle = blocks[int(np.flatnonzero(where == slices // 2)[0])]
    base = int(reader.number("sKSpace.lBaseResolution") or 0)
    fov = (reader.number("sSliceArray.asSlice[0].dReadoutFOV"), reader.number("sSliceArray.asSlice[0].dPhaseFOV"))
    scan = Readouts(
        reader.name,
        "Siemens twix",
        data,
        np.zeros((readouts, samples, 2)),
        fov_mm=fov,
        slice_mm=stack.spacing_mm or reader.number("sSliceArray.asSlice[0].dThickness") / partitions or 1.0,
        noise=reader.noise_scan(coils),
        directions=_rotation(reader, blocks[0]),
        centre_mm=reader.position(middle),
        guessed=reader.guessed,
        remarks=reader.remarks,
    )
    if told.sequence:
        _by_sequence(scan, told, blocks)
    else:
        _by_angles(scan, told, counters, base, int(first.CenterCol))
    return finish_readouts(scan, told)


def _by_sequence(scan: Readouts, told: ToldTrajectory, blocks: Sequence[Any]) -> None:
    file = Path(told.sequence)
    path = read_sequence(file if file.is_file() else companion(Path(scan.name), told.sequence, "sequence"))
    readouts, samples = scan.points.shape[:2]
    slices, partitions = scan.data.shape[:2]
    if len(path.points) not in (readouts * samples, readouts * samples * slices * partitions):
        raise InputError(
            f"{scan.name}: has {len(blocks)} readouts of {samples} samples, the sequence {told.sequence} takes "
            f"{len(path.points)} samples in all; it does not belong to these data"
        )
    scan.points = path.points[: readouts * samples].reshape(readouts, samples, 2)
    scan.unit, scan.dwell_us = "1/m", path.dwell_us
    scan.source = "Siemens twix with its Pulseq sequence"
    if min(path.fov_mm) > 0:
        scan.fov_mm = path.fov_mm
    scan.slice_mm = path.slice_mm or scan.slice_mm
    scan.guessed.append("the sequence's x and y are the slice's readout and phase directions")


def _by_angles(scan: Readouts, told: ToldTrajectory, counters: np.ndarray, base: int, centre: int) -> None:
    readouts, samples = scan.points.shape[:2]
    if readouts < 2 or len(np.unique(counters)) < readouts:
        counters = np.arange(readouts)
        scan.guessed.append("spokes are in the order of their measurement (line counters repeat)")
    if not 0 < base <= samples:
        base = samples // 2
        scan.guessed.append("twofold oversampling of the readout (no base resolution in the protocol)")
    oversampling = samples / base
    angles = spoke_angles(int(counters.max()) + 1, told.angles)[counters]
    scan.points = radial(angles, samples, oversampling, centre=float(centre))
    scan.unit, scan.matrix, scan.pattern = "cycles/fov", (base, base), "radial"
    scan.guessed.append(
        f"spokes of angles {told.angles!r} by their line counter, counted from the readout to the phase direction"
    )


def _rotation(reader: TwixReader, block: Any) -> np.ndarray:
    found = reader.directions(block)
    if np.allclose(found.T @ found, np.eye(3), atol=1e-2):
        return found
    reader.guessed.append("orientation (the header's is no rotation)")
    return np.eye(3)
