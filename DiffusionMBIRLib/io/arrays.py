"""K-space in plain arrays: NumPy's .npy and MATLAB's .mat, with a JSON file of the same name that says what they are.

The JSON file (``scan.json`` for ``scan.npy``) may hold

    axes           the array's axes in order, of "slice", "coil", "row", "column", "partition"
    spacing_mm     voxel size along (columns, rows, slices)
    variable       name of the MATLAB variable
    centred        true if the lowest frequency lies in the middle of rows and columns, false if it comes first
    oversampling   of the readout, e.g. 2; it is removed
    readout        "row" or "column": the axis that runs along the readout
    mask           MATLAB variable, or name of a .npy file beside it, (rows, columns) or one line of them
    noise_std      standard deviation of the noise in real and imaginary parts

What it does not say is guessed from where the energy lies, and every guess is listed by ``diffusionmbir info``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..scans import KSpace
from .kspace_scan import Scan, finish
from .matlab import read_matlab

_ORDER = ("slice", "partition", "coil", "row", "column")
_KEYS = ("axes", "spacing_mm", "variable", "centred", "oversampling", "readout", "mask", "noise_std")
_SHORTEST_FREQUENCY_AXIS = 16
_CONCENTRATED = 0.5  # share of the energy in the middle quarter, above which an axis is one of frequencies
_LARGEST_SIDECAR = 1 << 20


def read_array(path: Path) -> KSpace:
    """Read .npy or .mat.  Raises InputError, naming the file, for arrays that are no k-space or ambiguous."""
    told = _Sidecar.of(path)
    mask = None
    if path.suffix.lower() == ".npy":
        array = load_npy(path)
        if told.mask:
            mask = load_npy(_beside(path, told.mask))
    else:
        array, mask = read_matlab(path, told.variable, told.mask)
    return finish(_Reader(path, np.asarray(array), told).scan(mask))


def load_npy(path: Path) -> np.ndarray:
    """A .npy file; nothing is unpickled, and a size that the file does not have is refused before memory is taken."""
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise InputError(f"{path}: cannot be read as an array of numbers; is it truncated or pickled?") from error
    if not isinstance(mapped, np.ndarray):
        raise InputError(f"{path}: holds no single array")
    return np.array(mapped)


def _beside(path: Path, name: str) -> Path:
    if Path(name).name != name or not name.lower().endswith(".npy"):
        raise InputError(f"{path.with_suffix('.json')}: mask must be the name of a .npy file in the same folder")
    return path.with_name(name)


@dataclass(frozen=True)
class _Sidecar:
    path: Path
    axes: tuple[str, ...] = ()
    spacing_mm: tuple[float, float, float] | None = None
    variable: str = ""
    centred: bool | None = None
    oversampling: float = 1.0
    readout: str = "column"
    mask: str = ""
    noise_std: float = 0.0

    @classmethod
    def of(cls, path: Path) -> _Sidecar:
        """What the JSON file beside ``path`` says; nothing if there is none."""
        beside = path.with_suffix(".json")
        if not beside.is_file():
            return cls(beside)
        try:
            if beside.stat().st_size > _LARGEST_SIDECAR:
                raise ValueError
            entries = json.loads(beside.read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError):
            raise InputError(f"{beside}: is no JSON; repair or remove it") from None
        if not isinstance(entries, dict):
            raise InputError(f"{beside}: must be a JSON object of {', '.join(_KEYS)}")
        unknown = sorted(set(entries) - set(_KEYS))
        if unknown:
            raise InputError(f"{beside}: does not know {', '.join(unknown)}; known are {', '.join(_KEYS)}")
        return cls(beside, **{key: _CHECKS[key](value, beside, key) for key, value in entries.items()})


def _axes(value: Any, path: Path, key: str) -> tuple[str, ...]:
    known = isinstance(value, list) and all(axis in _ORDER for axis in value)
    if not known or len(set(value)) < len(value) or not {"row", "column"} <= set(value):
        raise InputError(f"{path}: axes must list row, column and what else there is of {', '.join(_ORDER)}, once each")
    return tuple(value)


def _spacing(value: Any, path: Path, key: str) -> tuple[float, float, float]:
    if not isinstance(value, list) or len(value) != 3:
        raise InputError(f"{path}: spacing_mm must be three numbers, along columns, rows and slices")
    x, y, z = (_positive(v, path, key) for v in value)
    return x, y, z


def _positive(value: Any, path: Path, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise InputError(f"{path}: {key} must be positive, not {value!r}")
    return float(value)


def _level(value: Any, path: Path, key: str) -> float:
    return 0.0 if value == 0 and not isinstance(value, bool) else _positive(value, path, key)


def _oversampling(value: Any, path: Path, key: str) -> float:
    return max(_positive(value, path, key), 1.0)


def _name(value: Any, path: Path, key: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) < 256:
        raise InputError(f"{path}: {key} must be a name, not {value!r}")
    return value


def _readout(value: Any, path: Path, key: str) -> str:
    if value not in ("row", "column"):
        raise InputError(f"{path}: readout must be row or column, not {value!r}")
    return str(value)


def _flag(value: Any, path: Path, key: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{path}: {key} must be true or false, not {value!r}")
    return value


_CHECKS: dict[str, Any] = {
    "axes": _axes,
    "spacing_mm": _spacing,
    "variable": _name,
    "centred": _flag,
    "oversampling": _oversampling,
    "readout": _readout,
    "mask": _name,
    "noise_std": _level,
}


class _Reader:
    def __init__(self, path: Path, array: np.ndarray, told: _Sidecar) -> None:
        self.name, self.told = str(path), told
        self.guessed: list[str] = []
        self.remarks: list[str] = []
        self.array = self._complex(array)

    def _complex(self, array: np.ndarray) -> np.ndarray:
        if array.dtype.kind != "c" and array.dtype.kind in "iuf" and array.ndim > 2 and array.shape[-1] == 2:
            self.guessed.append("the last axis, of 2, holds real and imaginary parts")
            array = array[..., 0] + 1j * array[..., 1]
        if array.dtype.kind != "c":
            raise InputError(f"{self.name}: holds {array.dtype}; k-space is complex")
        with np.errstate(over="ignore"):  # found not to be finite later
            return array.astype(np.complex64, copy=False)

    def scan(self, mask: np.ndarray | None) -> Scan:
        bad = int(self.array.size - np.count_nonzero(np.isfinite(self.array)))
        if bad:
            raise InputError(f"{self.name}: {bad} of {self.array.size} samples are NaN or infinite; repair the file")
        if not self.array.any():
            raise InputError(f"{self.name}: every sample is zero; nothing was measured")
        axes = self._axes()
        data = self.array
        shift = [k for k, axis in enumerate(axes) if axis in ("row", "column", "partition") and not self._is_centred(k)]
        if shift:
            data = np.fft.fftshift(data, axes=shift)
        data = np.transpose(data, [axes.index(axis) for axis in _ORDER if axis in axes])
        data = np.expand_dims(data, [k for k, axis in enumerate(_ORDER) if axis not in axes])
        data = np.array(data)  # a copy that is ours to write to
        sampled = self._sampled(data, mask)
        readout = -2 if self.told.readout == "row" else -1
        if self.told.spacing_mm is None:
            self.guessed.append("spacing 1 x 1 x 1 mm")
        if self.told.oversampling == 1 and not self.told.path.is_file():
            self.guessed.append("no oversampling of the readout")
        return Scan(
            self.name,
            "array",
            data,
            sampled,
            keep=round(data.shape[readout] / self.told.oversampling),
            readout=readout,
            spacing_mm=self.told.spacing_mm or (1.0, 1.0, 1.0),
            noise_std=self.told.noise_std,
            axes=f"({', '.join(axes)}) of {' x '.join(str(n) for n in self.array.shape)}",
            guessed=self.guessed,
            remarks=self.remarks,
        )

    def _sampled(self, data: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Positions that are not zero in every coil, and that the mask has; (slices, partitions, rows, columns)."""
        sampled: np.ndarray = (data != 0).any(axis=2)
        if mask is None:
            return sampled
        rows, columns = data.shape[-2:]
        shape = {(rows, columns): (rows, columns), (columns,): (1, columns), (1, columns): (1, columns)}
        shape |= {(rows, 1): (rows, 1)} | ({(rows,): (rows, 1)} if rows != columns else {})
        if mask.shape not in shape or mask.dtype.kind not in "biuf":
            raise InputError(f"{self.name}: mask has the shape {mask.shape}; {rows} x {columns} positions are needed")
        wanted = (mask != 0).reshape(shape[mask.shape])
        if not (sampled & wanted).any():
            raise InputError(f"{self.name}: no position of its mask holds data; is it another file's mask?")
        if (sampled & ~wanted).any():
            self.remarks.append("measured positions are left out by the mask")
        data *= wanted
        return np.broadcast_to(wanted, sampled.shape).copy()

    # --- axes

    def _axes(self) -> tuple[str, ...]:
        count = self.array.ndim
        if self.told.axes:
            if len(self.told.axes) != count:
                raise InputError(f"{self.told.path}: axes lists {len(self.told.axes)} axes, the array has {count}")
            self._require_plausible(self.told.axes)
            return self.told.axes
        if not 2 <= count <= 4:
            raise InputError(f"{self.name}: has {count} axes; name them in {self.told.path.name}, under axes")
        frequency = [self._concentration(k) > _CONCENTRATED for k in range(count)]
        others = [k for k in range(count) if not frequency[k]]
        if sum(frequency) != 2 or len(others) != count - 2:
            raise self._unclear()
        if len(others) == 2 and not self._looks_like_slices_and_coils(others):
            raise self._unclear()
        names = {1: ("coil",), 2: ("slice", "coil")}.get(len(others), ())
        found = iter(names)
        plane = iter(("row", "column"))
        axes = tuple(next(plane) if is_frequency else next(found) for is_frequency in frequency)
        self.guessed.append(f"axes ({', '.join(axes)})")
        return axes

    def _require_plausible(self, axes: tuple[str, ...]) -> None:
        """Refuse rows or columns without a middle where another axis has one."""
        peaked = {axis: self._concentration(k) > _CONCENTRATED for k, axis in enumerate(axes)}
        others = [axis for axis in ("coil", "slice") if peaked.get(axis)]
        if others and not (peaked["row"] and peaked["column"]):
            raise InputError(
                f"{self.told.path}: axes {', '.join(axes)} do not fit the array {self.array.shape}: the energy of "
                f"k-space gathers along {others[0]}; exchange them"
            )

    def _unclear(self) -> InputError:
        shares = ", ".join(f"{self._concentration(k):.0%}" for k in range(self.array.ndim))
        return InputError(
            f"{self.name}: which axes of {self.array.shape} are rows and columns of k-space cannot be told (share of "
            f"the energy in the middle: {shares}); is it an image? else name them in {self.told.path.name}, under axes"
        )

    def _looks_like_slices_and_coils(self, others: list[int]) -> bool:
        """(slices, coils) is the order that NumPy's users have; MATLAB's differ among themselves."""
        return not self.name.lower().endswith(".mat") and others == [0, 1]

    def _profile(self, axis: int) -> np.ndarray:
        rest = tuple(k for k in range(self.array.ndim) if k != axis)
        return np.asarray(np.sum(np.abs(self.array) ** 2, axis=rest, dtype=np.float64))

    def _concentration(self, axis: int) -> float:
        """Share of the energy in the middle quarter of an axis, or around its beginning and end."""
        profile = self._profile(axis)
        if len(profile) < _SHORTEST_FREQUENCY_AXIS:
            return 0.0
        return max(_middle_share(profile), _middle_share(np.fft.fftshift(profile)))

    def _is_centred(self, axis: int) -> bool:
        if self.told.centred is not None:
            return self.told.centred
        profile = self._profile(axis)
        centred = len(profile) == 1 or _middle_share(profile) >= _middle_share(np.fft.fftshift(profile))
        if not centred:
            self.guessed.append(f"the lowest frequency comes first along axis {axis}; shifted to the middle")
        return centred


def _middle_share(profile: np.ndarray) -> float:
    n = len(profile)
    half = max(n // 8, 1)
    return float(profile[n // 2 - half : n // 2 + half].sum() / profile.sum())
