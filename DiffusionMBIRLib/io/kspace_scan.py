"""From what a reader found in a file to ``KSpace``: one set of rules for all formats.

A reader fills ``Acquisition``: k-space on the encoded matrix, centred, with what its header says.  ``finish`` then
turns 3D acquisitions into slices, removes the readout's oversampling, finds the common mask and checks the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..geometry import CartesianMRI, Grid
from ..scans import KSpace
from ..sensitivity import SMALLEST_ACS, WHITENED_STD, centred_fft, centred_ifft, whiten
from .sizes import require_memory
from .wrapping import named, unwrapped, wrapped_axes

_LARGEST_ACCELERATION = 64  # more positions for each one sampled than any scan leaves out
_COMMON_SHARE = 0.5  # of the lines of any slice that must have been sampled in all of them
_FAR_FROM_CENTRE = 0.125  # of the matrix; where the strongest sample of k-space must not lie


@dataclass
class Acquisition:
    """One acquisition on its encoded matrix.

    data: complex64 (slices, partitions, coils, rows, columns), zero where not sampled.
    sampled: bool (slices, partitions, rows, columns).
    readout: which of their axes it is, -1 for columns, -2 for rows.  keep: its length without oversampling.
    spacing_mm: (columns, rows, slices or partitions); directions: 3 x 3, unit vectors of these axes in its columns;
    centre_mm: where the voxel n // 2 of each axis lies (LPS).  noise: (coils, samples) of a scan without excitation;
    noise_bandwidth: its bandwidth over that of the scan.  cut: what becomes of an image that lies half a field of view
    off, "say", "mend" or "leave".  calibration: separate lines of the middle of k-space, as a
    scan on the same encoded matrix.
    """

    name: str
    source: str
    data: np.ndarray
    sampled: np.ndarray
    keep: int
    readout: int = -1
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    directions: np.ndarray = field(default_factory=lambda: np.eye(3))
    centre_mm: np.ndarray = field(default_factory=lambda: np.zeros(3))
    noise: np.ndarray | None = None
    noise_bandwidth: float = 1.0
    noise_std: float = 0.0
    cut: str = "say"
    calibration: Acquisition | None = None
    axes: str = "slices, coils, rows, columns"
    guessed: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class Lines:
    """Collects readouts into a ``Acquisition``; what was measured several times is averaged."""

    def __init__(self, name: str, shape: tuple[int, int, int, int, int], lines: int) -> None:
        """Take ``lines`` readouts for (slices, partitions, coils, rows, columns); InputError if they are too few."""
        slices, partitions, _, rows, _ = shape
        require_memory(name, shape)
        if slices * partitions * rows > _LARGEST_ACCELERATION * lines:
            raise InputError(
                f"{name}: its header announces {slices * partitions * rows} lines of k-space, {lines} are there; "
                "is the file truncated?"
            )
        self._name, self._shape = name, shape
        self._sum = np.zeros(shape, dtype=np.complex64)
        self._count = np.zeros((slices, partitions, rows), dtype=np.uint16)
        self._first, self._stop = 0, shape[-1]

    def add(self, samples: np.ndarray, at: tuple[int, int, int], first: int) -> None:
        """One readout (coils, samples) of (slice, partition, row) whose first sample belongs to column ``first``."""
        slices, partitions, coils, rows, columns = self._shape
        if samples.shape[0] != coils:
            raise InputError(f"{self._name}: readouts differ in their number of coils ({coils}, {samples.shape[0]})")
        for what, index, size in zip(("slice", "partition", "line"), at, (slices, partitions, rows), strict=True):
            if not 0 <= index < size:
                raise InputError(
                    f"{self._name}: a readout belongs to {what} {index}, its matrix has {size}; is the header right?"
                )
        stop = first + samples.shape[1]
        if first < 0 or stop > columns:
            raise InputError(
                f"{self._name}: a readout of {samples.shape[1]} samples with its centre at {columns // 2 - first} "
                f"does not fit the encoded matrix of {columns}; is it Cartesian?"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # found not to be finite later
            self._sum[at[0], at[1], :, at[2], first:stop] += samples
        self._count[at] += 1
        self._first, self._stop = max(self._first, first), min(self._stop, stop)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Data (slices, partitions, coils, rows, columns) and what was sampled (slices, partitions, rows, columns)."""
        if self._count.max() > 1:
            self._sum /= np.maximum(self._count, 1)[:, :, None, :, None]
        sampled = np.zeros((*self._count.shape, self._shape[-1]), dtype=bool)
        sampled[..., self._first : self._stop] = (self._count > 0)[..., None]
        return self._sum, sampled


def finish(scan: Acquisition) -> KSpace:
    """The scan as ``KSpace``.  Raises InputError, naming the file, for what cannot be reconstructed."""
    _require_values(scan)
    _look_for_cut(scan)
    oversampling = scan.data.shape[scan.readout] / scan.keep
    with np.errstate(over="ignore", invalid="ignore"):  # found not to be finite later
        _remove_oversampling(scan)
        _turn_3d_into_slices(scan)
    mask = _common_mask(scan)
    data = scan.data[:, 0]
    data *= mask  # lines that some slices lack are used in none
    noise_std = scan.noise_std
    if scan.noise is not None:
        data = whiten(data, scan.noise)
        noise_std = WHITENED_STD / np.sqrt(scan.noise_bandwidth)
    _check_centre(scan, data)
    calibration = _calibration(scan, (data.shape[0], data.shape[1], *mask.shape))
    provenance = {
        "source": scan.source,
        "axes": scan.axes,
        "readout_oversampling": round(oversampling, 4),
        "oversampling_removed": oversampling > 1,
        "whitened": scan.noise is not None,
        "guessed": list(scan.guessed),
        "remarks": list(scan.remarks),
    }
    return KSpace(
        data,
        CartesianMRI(mask, data.shape[1]),
        _grid(scan, (data.shape[0], *mask.shape)),
        calibration=calibration,
        noise_std=float(noise_std),
        provenance=provenance,
        name=scan.name,
    )


def _calibration(scan: Acquisition, shape: tuple[int, ...]) -> np.ndarray | None:
    """The fully sampled block of separate calibration lines, treated as the scan was: whitened, cropped, in slices.

    shape: of the scan's data.  Lines that do not fit are left aside with a remark.
    """
    lines = scan.calibration
    if lines is None:
        return None
    lines.noise, lines.keep, lines.cut = scan.noise, scan.keep, scan.cut
    lines.sampled = np.repeat(lines.sampled.any(axis=-1, keepdims=True), lines.sampled.shape[-1], axis=-1)
    try:
        separate = finish(lines)
    except InputError as error:
        reason = str(error).removeprefix(f"{lines.name}: ")
    else:
        rows, columns = separate.geometry.acs_block
        block = separate.data[..., rows, columns]
        if separate.data.shape == shape and min(block.shape[2:]) >= SMALLEST_ACS:
            scan.remarks.append("the coils' maps come from separate calibration lines, if the image lacks its middle")
            return np.ascontiguousarray(block)
        reason = f"{block.shape[2]} x {block.shape[3]} positions in {separate.data.shape[0]} slices"
    scan.remarks.append(f"separate calibration lines are not used ({reason})")
    return None


def _require_values(scan: Acquisition) -> None:
    bad = int(scan.data.size - np.count_nonzero(np.isfinite(scan.data)))
    if bad:
        raise InputError(f"{scan.name}: {bad} of {scan.data.size} samples are NaN or infinite; repair the file")
    empty = np.flatnonzero(~scan.data.any(axis=(1, 2, 3, 4)))
    if len(empty) == len(scan.data):
        raise InputError(f"{scan.name}: every sample is zero; nothing was measured")
    if len(empty):
        listed = ", ".join(str(n) for n in empty[:8]) + (" ..." if len(empty) > 8 else "")
        raise InputError(f"{scan.name}: {len(empty)} of {len(scan.data)} slices are empty ({listed}); leave them out")


def _look_for_cut(scan: Acquisition) -> None:
    """Find the object along the borders instead of in the middle: say so, or move it where it is to be mended.

    Where oversampling is removed it would be cropped away, and is moved in any case.
    """
    if scan.cut == "leave":
        return
    found = wrapped_axes(scan.data, np.asarray(scan.sampled.all(axis=(0, 1))))
    cropped = scan.readout if scan.keep < scan.data.shape[scan.readout] else 0
    moved = [axis for axis in found if scan.cut == "mend" or axis == cropped]
    left = [axis for axis in found if axis not in moved]
    if moved:
        scan.data = unwrapped(scan.data, moved)
        scan.remarks.append(
            f"the image was cut apart along {named(moved)} (transformed without ifftshift) and is moved by half its "
            "field of view"
        )
    if left:
        scan.remarks.append(
            f"the object lies at both borders of the image along {named(left)} and not in the middle; was it simulated "
            "without ifftshift?"
        )


def _remove_oversampling(scan: Acquisition) -> None:
    """Crop the image along the readout; exact where the readout is complete, so that is asked for."""
    axis, length = scan.readout, scan.data.shape[scan.readout]
    if scan.keep >= length:
        return
    lines = scan.sampled.any(axis=axis, keepdims=True)
    if not (scan.sampled == lines).all():
        scan.remarks.append("oversampling of the readout is kept, because the readout is not complete")
        scan.keep = length
        return
    first = length // 2 - scan.keep // 2
    for part in scan.data:  # a slice at a time, for the memory's sake
        part_image = centred_ifft(part, axes=(axis,))
        kept = centred_fft(np.take(part_image, range(first, first + scan.keep), axis=axis), axes=(axis,))
        np.moveaxis(part, axis, -1)[..., : scan.keep] = np.moveaxis(kept, axis, -1)
    scan.data = np.ascontiguousarray(np.take(scan.data, range(scan.keep), axis=axis))
    scan.sampled = np.repeat(lines, scan.keep, axis=axis)


def _turn_3d_into_slices(scan: Acquisition) -> None:
    """Inverse transform along the direction that was sampled completely: partitions, or else the readout."""
    partitions = scan.data.shape[1]
    if partitions == 1:
        return
    if len(scan.data) > 1:
        raise InputError(f"{scan.name}: holds {len(scan.data)} slabs of a 3D acquisition; split it into one a file")
    pattern = scan.sampled[0]
    if scan.readout != -1:
        raise InputError(f"{scan.name}: a 3D acquisition needs its readout in the last axis")
    if (pattern == pattern[:1]).all():
        scan.data = centred_ifft(scan.data, axes=(1,)).swapaxes(0, 1)
        scan.sampled = np.repeat(pattern[:1, None], partitions, axis=0)
        scan.remarks.append("3D acquisition, slices along the partitions")
        return
    if not (pattern == pattern[..., :1]).all():
        raise InputError(f"{scan.name}: a 3D acquisition without a completely sampled direction is not supported")
    decoded = centred_ifft(scan.data[0], axes=(-1,))  # (partitions, coils, rows, columns)
    scan.data = np.ascontiguousarray(decoded.transpose(3, 1, 0, 2))[:, None]
    scan.sampled = np.repeat(pattern[..., 0][None, None], scan.data.shape[0], axis=0)
    order = [1, 2, 0]  # columns, rows, slices of the image are now rows, partitions and readout of the scan
    across, down, through = (scan.spacing_mm[axis] for axis in order)
    scan.spacing_mm, scan.directions = (across, down, through), scan.directions[:, order]
    scan.remarks.append("3D acquisition, slices along the readout, rows are partitions")


def _common_mask(scan: Acquisition) -> np.ndarray:
    """What was sampled in every slice."""
    sampled = scan.sampled[:, 0]
    common = np.asarray(sampled.all(axis=0))
    share = float(common.sum() / max(sampled.sum(axis=(1, 2)).max(), 1))
    if share < _COMMON_SHARE:
        raise InputError(f"{scan.name}: its slices were sampled at different lines; bring slices of one pattern")
    if share < 1:
        scan.remarks.append(f"slices differ in their lines; the {share:.0%} common to all are used")
    return common


def _check_centre(scan: Acquisition, data: np.ndarray) -> None:
    """A k-space that is not centred, or has other axes than thought, has its strongest sample elsewhere."""
    energy: np.ndarray = np.zeros(data.shape[2:])
    for part in data:
        energy += (np.abs(part).astype(np.float64) ** 2).sum(axis=0)
    peak = np.unravel_index(int(energy.argmax()), energy.shape)
    off = [int(p) - n // 2 for p, n in zip(peak, energy.shape, strict=True)]
    if any(abs(d) > max(4, _FAR_FROM_CENTRE * n) for d, n in zip(off, energy.shape, strict=True)):
        raise InputError(
            f"{scan.name}: the strongest sample of k-space lies {off[0]} rows and {off[1]} columns from the middle of "
            f"{energy.shape[0]} x {energy.shape[1]}; is the order of the axes right and the lowest frequency centred?"
        )


def _grid(scan: Acquisition, shape: tuple[int, int, int]) -> Grid:
    directions = scan.directions
    if not np.allclose(directions.T @ directions, np.eye(3), atol=1e-2):
        directions = np.eye(3)
        scan.guessed.append("orientation (the header's is no rotation)")
    middle = np.array([n // 2 for n in shape[::-1]]) * scan.spacing_mm
    origin = scan.centre_mm - directions @ middle
    return Grid(shape, scan.spacing_mm, tuple(origin), tuple(directions.reshape(-1)))
