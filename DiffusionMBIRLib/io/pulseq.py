"""Trajectories of Pulseq's sequences (.seq), by pypulseq (extra ``pulseq``)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, one_line


@dataclass(frozen=True)
class PulseqPath:
    """points: (samples of all readouts, 2) in 1/m, x first.  fov_mm, slice_mm: 0 where the file does not tell."""

    points: np.ndarray
    fov_mm: tuple[float, float]
    slice_mm: float
    dwell_us: float


def read_sequence(path: Path) -> PulseqPath:
    """Where each sample was taken.  Raises InputError where pypulseq is missing or the file is no sequence."""
    try:
        from pypulseq import Sequence
    except ImportError:
        raise InputError(f'{path}: a Pulseq file needs pypulseq: pip install "diffusionmbir[pulseq]"') from None
    if not path.is_file():
        raise InputError(f"{path}: no such file of a sequence")
    sequence = Sequence()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sequence.read(str(path))
            points, _, _, _, times = sequence.calculate_kspace()
    except Exception as error:  # it raises whatever its parser meets
        raise InputError(f"{path}: pypulseq cannot read it ({one_line(error, 120)}); is it a Pulseq file?") from None
    if points.shape[1] < 2:
        raise InputError(f"{path}: holds no readout")
    wide = np.ravel(sequence.definitions.get("FOV", (0.0, 0.0, 0.0))).astype(float) * 1000
    through = float(np.abs(points[2]).max())
    if through > 1e-3 * float(np.abs(points[:2]).max()):
        raise InputError(f"{path}: its readouts leave the slice (kz up to {through:.3g} 1/m); only 2D paths are read")
    dwell = float(np.min(np.diff(times))) * 1e6
    return PulseqPath(points[:2].T, (float(wide[0]), float(wide[1])), float(wide[2]), dwell)
