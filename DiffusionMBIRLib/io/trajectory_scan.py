"""From readouts along a trajectory to ``TrajectoryKSpace``: one set of rules for all formats."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import InputError
from ..geometry import Grid, TrajectoryMRI
from ..preparation.delays import delayed, estimate_delays, parsed_delays
from ..preparation.echo_lines import aligned_echoes
from ..scans import TrajectoryKSpace
from ..sensitivity import WHITENED_STD, centred_ifft, whiten
from .trajectory_units import classified, factors, in_order, matrix_of, require_unit

ENLARGED = 1.25  # field of view that is reconstructed, where samples lie densely enough for it
_DENSE = 0.8  # cycles from sample to sample, up to which they do
_OFF = 0.05  # share by which the largest |k| may lie off the edge of the matrix without a word
_LINE = 1e-3  # width of a trajectory over its length, below which it is a line
# Residuals around the centre: 4e-4 of a scan of a head, 0.3 of a phantom under wrong angles, 0.93 and more of noise, of
# Cartesian lines taken for spokes and of another sequence's points.
_MUCH, _UNEXPLAINED = 0.2, 0.9
_MULTIPLE = 4  # of which the sides of enlarged grids are
_SWAPPED = (
    "{}: its trajectory reaches {:.4g} along x and {:.4g} along y, in {}, but the image has {} x {} pixels: are the "
    "coordinates swapped? give --trajectory-axes yx, or xy if they are not"
)
ASKS = ("trajectory", "trajectory_unit", "trajectory_axes", "fov_mm", "matrix", "delays", "shift_mm")


@dataclass(frozen=True)
class ToldTrajectory:
    """What a user may say of a scan whose file does not: names as of the options of the command line.

    trajectory: a file.  trajectory_axes: one of :data:`.trajectory_units.AXES`.  matrix: pixels of the image; 0: as the
    trajectory's reach or the header say.  delays: "auto" (the default), "off" or "SX,SY,SXY" in samples.  shift_mm:
    "X,Y" by which the image is to be moved in its plane, where the scanner has not put the slice's middle there.
    angles: of spokes, as :func:`..geometry.paths.spoke_angles` takes them.  sequence: a Pulseq file.
    """

    trajectory: str = ""
    trajectory_unit: str = ""
    trajectory_axes: str = ""
    fov_mm: float = 0.0
    matrix: int = 0
    delays: str = ""
    shift_mm: str = ""
    angles: str = ""
    sequence: str = ""


@dataclass
class Readouts:
    """What a reader found.

    data: complex (slices, partitions, coils, readouts, samples).  points: (readouts, samples, 2) in the file's unit, x
    first.  matrix, fov_mm: of the wanted image along (x, y); 0 where the file does not tell.  slice_mm: from slice to
    slice.  noise: (coils, samples) of a scan without excitation.  centre_mm, directions: as of
    :class:`.kspace_scan.Acquisition`.
    """

    name: str
    source: str
    data: np.ndarray
    points: np.ndarray
    unit: str = ""
    matrix: tuple[int, int] = (0, 0)
    fov_mm: tuple[float, float] = (0.0, 0.0)
    slice_mm: float = 1.0
    dwell_us: float = 0.0
    pattern: str = ""
    noise: np.ndarray | None = None
    noise_bandwidth: float = 1.0
    directions: np.ndarray = field(default_factory=lambda: np.eye(3))
    centre_mm: np.ndarray = field(default_factory=lambda: np.zeros(3))
    guessed: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def finish_readouts(scan: Readouts, told: ToldTrajectory) -> TrajectoryKSpace:
    """The scan, on a grid that is larger than the wanted image where its samples allow.

    Raises InputError, naming the file, for data and trajectories that do not fit each other or no unit.
    """
    _require_values(scan)
    scan.points = in_order(scan.points, told.trajectory_axes or "xy", scan.name)
    cycles, matrix, fov_mm = _in_cycles(scan, told)
    _look_at_centre(scan, cycles)
    data = _slices(scan)
    noise_std = 0.0
    if scan.noise is not None:
        data = whiten(data, scan.noise)
        noise_std = WHITENED_STD / math.sqrt(scan.noise_bandwidth)
    if pattern_of(cycles) == "lines":
        data, cycles = aligned_echoes(data, cycles, told.delays, scan.remarks)
    else:
        cycles = _without_delays(scan, told, cycles, data)
    if told.shift_mm:
        data = _shifted(data, cycles, fov_mm, told.shift_mm, scan)
    pattern = scan.pattern or pattern_of(cycles)
    large = matrix if pattern == "lines" else _enlarged(cycles, matrix)
    points = cycles * (np.array(large) / np.array(matrix))
    columns, rows = large
    spacing = (fov_mm[0] / matrix[0], fov_mm[1] / matrix[1], scan.slice_mm)
    geometry = TrajectoryMRI(points, (rows, columns), data.shape[1], pattern, scan.dwell_us)
    grid = _grid(scan, (len(data), rows, columns), spacing)
    wanted = None if large == matrix else _grid(scan, (len(data), matrix[1], matrix[0]), spacing)
    provenance = {
        "source": scan.source,
        "axes": "slices, coils, readouts, samples",
        "whitened": scan.noise is not None,
        "guessed": list(scan.guessed),
        "remarks": list(scan.remarks),
    }
    return TrajectoryKSpace(
        np.ascontiguousarray(data, np.complex64), geometry, grid, wanted, noise_std=noise_std, provenance=provenance,
        name=scan.name,
    )  # fmt: skip


def pattern_of(points: np.ndarray) -> str:
    """What the readouts look like: "radial", "lines", "spiral" or "trajectory"."""
    ends = points[:, -1] - points[:, 0]
    reach = float(np.abs(points).max())
    radius = np.hypot(points[..., 0], points[..., 1])
    from_begin = points - points[:, :1]
    aside = from_begin[..., 0] * ends[:, None, 1] - from_begin[..., 1] * ends[:, None, 0]
    length = np.hypot(ends[:, 0], ends[:, 1])
    if length.min() > 0.2 * reach and np.abs(aside / length[:, None]).max() < 0.05 * reach:
        through = float(np.median(radius.min(axis=1))) < 0.05 * reach
        return "radial" if through else "lines"
    path = np.hypot(*np.diff(points, axis=1).transpose(2, 0, 1)).sum(1)
    return "spiral" if float(np.median(path)) > 1.2 * reach and radius[:, 0].max() < 0.1 * reach else "trajectory"


def _require_values(scan: Readouts) -> None:
    *_, readouts, samples = scan.data.shape
    if scan.points.shape[:2] != (readouts, samples):
        raise InputError(
            f"{scan.name}: its data have {readouts} readouts of {samples} samples, its trajectory "
            f"{scan.points.shape[0]} of {scan.points.shape[1]}; do they belong together?"
        )
    for what, values in (("samples", scan.data), ("points of the trajectory", scan.points)):
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        if bad:
            raise InputError(f"{scan.name}: {bad} of {values.size} {what} are NaN or infinite; repair the file")
    if not scan.data.any():
        raise InputError(f"{scan.name}: every sample is zero; nothing was measured")
    if not scan.points.any():
        raise InputError(f"{scan.name}: its trajectory is zero everywhere; is it the right one?")
    widths = np.linalg.svd(scan.points.reshape(-1, scan.points.shape[-1]), compute_uv=False)
    if widths[1] < _LINE * widths[0]:
        raise InputError(f"{scan.name}: all points of its trajectory lie on one line; is it the right one?")
    if readouts < 2:
        raise InputError(f"{scan.name}: a single readout is no image; are there fewer spokes than slices?")


def _in_cycles(scan: Readouts, told: ToldTrajectory) -> tuple[np.ndarray, tuple[int, int], tuple[float, float]]:
    """(points in cycles per field of view, matrix and field of view along x and y)."""
    fov = (told.fov_mm, told.fov_mm) if told.fov_mm else scan.fov_mm
    matrix = (told.matrix, told.matrix) if told.matrix else scan.matrix
    unit = told.trajectory_unit or scan.unit
    largest = np.abs(scan.points).reshape(-1, 2).max(axis=0)
    axis = int(largest.argmax())
    if unit:
        require_unit(unit)
    else:
        unit = _unit_of(scan, largest, matrix, fov, told)
        scan.guessed.append(f"the trajectory is in {unit} (its largest |k| is {largest[axis]:.5g})")
    by = [factors(matrix[k], fov[k]) for k in (0, 1)]
    if unit not in by[0] or unit not in by[1]:
        lacks = "--fov-mm" if unit in ("1/m", "rad/m") else "--matrix"
        raise InputError(f"{scan.name}: a trajectory in {unit} needs {lacks}; give it")
    cycles = scan.points * np.array([by[0][unit], by[1][unit]])
    if not min(matrix):
        size = matrix_of(cycles)
        matrix = (size, size)
        scan.guessed.append(f"matrix {size} x {size} (the trajectory's reach)")
    _require_axes(scan, cycles, matrix, told)
    edge = 2 * float(np.abs(cycles[..., axis]).max()) / matrix[axis]
    if abs(edge - 1) > _OFF:
        scan.remarks.append(
            f"the largest |k| is {edge:.0%} of the edge of k-space (as {unit} on a matrix of {matrix[axis]}); spirals "
            "and sampled ramps may differ, else the unit or the matrix is wrong"
        )
    if edge > 1 + _OFF:
        raise InputError(
            f"{scan.name}: its trajectory in {unit} reaches {edge:.3g} times the edge of a matrix of {matrix[axis]}; "
            "give --trajectory-unit, --fov-mm or --matrix"
        )
    cycles = np.clip(cycles, -np.array(matrix) / 2, np.array(matrix) / 2)
    if not min(fov) > 0:
        scan.guessed.append("pixel spacing 1 x 1 mm (no field of view is told)")
        fov = (float(matrix[0]), float(matrix[1]))
    return cycles, matrix, fov


def _unit_of(
    scan: Readouts, largest: np.ndarray, matrix: tuple[int, int], fov: tuple[float, float], told: ToldTrajectory
) -> str:
    """The unit that the largest coordinate tells.  Raises InputError where it fits the image's other side only."""
    axis = int(largest.argmax())
    swapped = ""
    if matrix[0] != matrix[1] and not told.trajectory_axes:
        with suppress(InputError):
            swapped = classified(float(largest[axis]), matrix[1 - axis], fov[1 - axis], scan.name)
    try:
        return classified(float(largest[axis]), matrix[axis], fov[axis], scan.name)
    except InputError:
        if swapped:
            raise InputError(_SWAPPED.format(scan.name, *largest, swapped, *matrix)) from None
        raise


def _require_axes(scan: Readouts, cycles: np.ndarray, matrix: tuple[int, int], told: ToldTrajectory) -> None:
    """Raise InputError where the coordinates fill the band of the image the other way round only; say how they were
    taken where nothing tells it, as of a square image.
    """
    edges = 2 * np.abs(cycles).reshape(-1, 2).max(axis=0)
    off = [float(np.abs(edges / np.array(sides) - 1).max()) for sides in (matrix, matrix[::-1])]
    if off[1] < _OFF < off[0] and not told.trajectory_axes:
        raise InputError(_SWAPPED.format(scan.name, *(edges / 2), "cycles/fov", *matrix))
    if told.trajectory_axes:
        scan.remarks.append(f"the trajectory's coordinates were taken as {told.trajectory_axes}")
    else:
        scan.guessed.append(
            "the trajectory's coordinates are x (columns), y (rows); if the image is transposed or mirrored, give "
            "--trajectory-axes"
        )


def _look_at_centre(scan: Readouts, cycles: np.ndarray) -> None:
    """Say where no sample of straight readouts lies at the centre, as half a sample off streaks like a delay."""
    if pattern_of(cycles) != "radial":
        return
    step = np.hypot(*(cycles[:, -1] - cycles[:, 0]).T) / (cycles.shape[1] - 1)
    nearest = np.hypot(cycles[..., 0], cycles[..., 1]).min(axis=1) / step
    if float(np.median(nearest)) > 0.25:
        scan.remarks.append(
            f"the centre of k-space lies {float(np.median(nearest)):.2g} samples beside the nearest one by the "
            "trajectory; if images streak, it may be half a sample off"
        )
    energy = (np.abs(scan.data).astype(np.float64) ** 2).sum(axis=(0, 1, 2))
    peak = int(np.median(energy.argmax(axis=1)))
    centre = int(np.median(np.hypot(cycles[..., 0], cycles[..., 1]).argmin(axis=1)))
    if abs(peak - centre) > max(2, scan.points.shape[1] // 50):
        raise InputError(
            f"{scan.name}: readouts are strongest at sample {peak}, their trajectory has the centre of k-space at "
            f"{centre}; does it belong to these data?"
        )


def _slices(scan: Readouts) -> np.ndarray:
    """(slices, coils, readouts, samples): partitions of a stack become slices by an inverse transform."""
    if scan.data.shape[1] == 1:
        return scan.data[:, 0]
    if len(scan.data) > 1:
        raise InputError(f"{scan.name}: holds {len(scan.data)} slabs of a 3D acquisition; split it into one a file")
    scan.remarks.append("stack of readouts: slices along the partitions")
    return centred_ifft(scan.data[0], axes=(0,))


def _without_delays(scan: Readouts, told: ToldTrajectory, cycles: np.ndarray, data: np.ndarray) -> np.ndarray:
    given = parsed_delays(told.delays)
    if given is not None:
        if any(given):
            scan.remarks.append(f"the gradients' delays {_text(given)} samples were given")
        return delayed(cycles, given)
    if pattern_of(cycles) != "radial":
        return cycles
    found = estimate_delays(cycles, data)
    if found is None:
        scan.remarks.append("delays of the gradients are not estimated: too few samples around the centre")
        return cycles
    if found.after > _UNEXPLAINED:
        raise InputError(
            f"{scan.name}: around the centre {found.after:.0%} of its samples fit no image along this trajectory; is "
            "it of these data? --delays off goes on without asking"
        )
    scan.remarks.append(
        f"the gradients' delays {_text(found.delays)} samples (x, y, xy) were found: residual around the centre "
        f"{found.before:.3g} before, {found.after:.3g} after{'' if found.used else '; too little to be applied'}"
        f"{'; that is much: are its angles right?' if found.after > _MUCH else ''}"
    )
    return delayed(cycles, found.delays) if found.used else cycles


def _text(delays: tuple[float, float, float]) -> str:
    return ", ".join(f"{d:.3f}" for d in delays)


def _shifted(
    data: np.ndarray, cycles: np.ndarray, fov_mm: tuple[float, float], told: str, scan: Readouts
) -> np.ndarray:
    try:
        x, y = (float(part) for part in told.split(","))
    except ValueError:
        raise InputError(f"shift_mm {told!r}: two numbers of mm are needed, such as 10,-5") from None
    scan.remarks.append(f"the image was shifted by {x:g}, {y:g} mm in its plane")
    turns = cycles[..., 0] * (x / fov_mm[0]) + cycles[..., 1] * (y / fov_mm[1])
    return np.asarray(data * np.exp(-2j * np.pi * turns).astype(np.complex64))


def _enlarged(cycles: np.ndarray, matrix: tuple[int, int]) -> tuple[int, int]:
    steps = np.hypot(*np.diff(cycles, axis=1).transpose(2, 0, 1))
    if float(np.median(steps)) > _DENSE:
        return matrix
    columns, rows = (max(n, _MULTIPLE * math.ceil(ENLARGED * n / _MULTIPLE)) for n in matrix)
    return columns, rows


def _grid(scan: Readouts, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Grid:
    middle = np.array([n // 2 for n in shape[::-1]]) * spacing
    origin = scan.centre_mm - scan.directions @ middle
    return Grid(shape, spacing, tuple(origin), tuple(scan.directions.reshape(-1)))


def told_of(**given: object) -> ToldTrajectory:
    """What the user gave, of the keywords of a reader."""
    return replace(ToldTrajectory(), **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
