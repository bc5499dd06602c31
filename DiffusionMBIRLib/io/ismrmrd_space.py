"""The encoded matrix of an ISMRMRD scan: what its header says, against what its readouts are.

Headers are written for programs that read them in one way.  Where header and readouts contradict each other, what was
measured counts; what can be meant in two ways is listed as guessed, and what in none is refused.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .ismrmrd_header import EncodingSpace, Header

_TRIMMED = 0.9  # of the encoded matrix, that a readout around its middle still covers
_ALIKE = 0.05  # by which two ratios of lengths may differ and mean the same


def encoded_space(header: Header, heads: np.ndarray, guessed: list[str], name: str) -> tuple[EncodingSpace, int]:
    """The matrix and field of view that the readouts fill, and the columns to keep of it.

    heads: of the image's readouts.  Raises InputError, naming the file, for readouts that do not fit.
    """
    encoded = header.encoded
    assert encoded is not None
    matrix, field_mm = list(encoded.matrix), list(encoded.field_mm)
    if matrix[2] > 1 and not _is_3d(header, heads, name):
        slices = len(np.unique(heads["idx"]["slice"]))
        if slices == matrix[2]:
            field_mm[2] /= slices  # each slice was counted as a partition
        guessed.append(f"2D: one partition was measured, the header's {matrix[2]} are none (2D sequences write so)")
        matrix[2] = 1
    keep = round(matrix[0] / header.oversampling)
    if header.ramp is None and not heads["trajectory_dimensions"].any():
        narrow = _without_oversampling(header, heads, name)
        if narrow:
            guessed.append(
                f"oversampling of the readout is removed already (readouts of {narrow} samples around their middle, as "
                f"many as the image's columns, the header encodes {matrix[0]})"
            )
            assert header.image is not None
            matrix[0] = keep = narrow
            field_mm[0] = header.image.field_mm[0] or field_mm[0] / header.oversampling
    return EncodingSpace((matrix[0], matrix[1], matrix[2]), (field_mm[0], field_mm[1], field_mm[2])), keep


def _is_3d(header: Header, heads: np.ndarray, name: str) -> bool:
    steps = heads["idx"]["kspace_encode_step_2"]
    if int(steps.max()) != int(steps.min()):
        return True
    if (header.last_partition or 0) > 0 and header.last_partition != steps[0]:
        assert header.encoded is not None
        raise InputError(
            f"{name}: only partition {int(steps[0])} of {header.encoded.matrix[2]} is there, its header announces them "
            f"up to {header.last_partition}; is the file truncated?"
        )
    return False


def _without_oversampling(header: Header, heads: np.ndarray, name: str) -> int:
    """The number of samples, where readouts lost their oversampling and the header was left as it was; else 0."""
    encoded, image = header.encoded, header.image
    assert encoded is not None
    kept = heads["number_of_samples"].astype(int) - heads["discard_pre"] - heads["discard_post"]
    centres = heads["center_sample"].astype(int) - heads["discard_pre"]
    samples = int(kept[0])
    if (kept != samples).any() or (np.abs(centres - samples / 2) > 1).any():
        return 0  # an echo off the middle
    removed = header.oversampling > 1 and image is not None and samples == image.matrix[0]
    if removed and (samples < encoded.matrix[0] or _kept_wide(header)):
        return samples
    if samples < _TRIMMED * encoded.matrix[0]:
        wanted = f", {image.matrix[0]} for the image" if image is not None else ""
        raise InputError(
            f"{name}: readouts of {samples} samples around their middle do not fit its header, which encodes "
            f"{encoded.matrix[0]}{wanted}; was oversampling removed? correct matrixSize and fieldOfView_mm"
        )
    return 0


def _kept_wide(header: Header) -> bool:
    """True where the encoded matrix is the narrow one, its field of view still the wide one.

    Its pixels are wider than the image's then.  Along the phase encoding they are not, so that the image has no finer
    grid altogether.
    """
    encoded, image = header.encoded, header.image
    if encoded is None or image is None or min(*encoded.field_mm[:2], *image.field_mm[:2]) <= 0:
        return False
    across, down = ((encoded.field_mm[k] / encoded.matrix[k]) / (image.field_mm[k] / image.matrix[k]) for k in (0, 1))
    return abs(across / header.oversampling - 1) < _ALIKE and abs(down - 1) < _ALIKE
