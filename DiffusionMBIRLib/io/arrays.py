"""K-space in plain arrays: NumPy's .npy and MATLAB's .mat, with a JSON file of the same name that says what they are.

The JSON file (``scan.json`` for ``scan.npy``) may hold

    axes           the array's axes in order, of "slice", "coil", "row", "column", "partition"
    spacing_mm     voxel size along (columns, rows, slices)
    variable       name of the MATLAB variable
    centred        true if the lowest frequency lies in the middle of rows and columns, false if it comes first
    wrapped        true if the image's origin is its first pixel (a transform without ifftshift), false if its middle
    oversampling   of the readout, e.g. 2; it is removed
    readout        "row" or "column": the axis that runs along the readout
    mask           MATLAB variable, or name of a .npy file beside it, (rows, columns) or one line of them
    noise_std      standard deviation of the noise in real and imaginary parts

What it does not say is guessed from where the energy lies, and every guess is listed by ``diffusionmbir info``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..formats import MR, Format, register
from ..scans import KSpace
from .channels import coils_or_slices
from .kspace_scan import Acquisition, finish
from .matlab import is_fan_beam, read_matlab
from .npy import load_npy
from .sampling import measured
from .sidecar import ORDER, Sidecar
from .trajectory_arrays import read_with_trajectory
from .trajectory_scan import ASKS, told_of
from .wrapping import unwrapped

_SHORTEST_FREQUENCY_AXIS = 16
_CONCENTRATED = 0.5  # share of the energy in the middle quarter, above which an axis is one of frequencies


def read_array(path: Path, **of_trajectory: Any) -> KSpace:
    """Read .npy or .mat.  Raises InputError, naming the file, for arrays that are no k-space or ambiguous.

    of_trajectory: of samples along one, as :class:`.trajectory_scan.ToldTrajectory` has them.
    """
    told = Sidecar.of(path)
    if of_trajectory:
        return _along_trajectory(path, told, of_trajectory)
    mask = None
    if path.suffix.lower() == ".npy":
        array = load_npy(path)
        if told.mask:
            mask = load_npy(_beside(path, told.mask))
    else:
        array, mask = read_matlab(path, told.variable, told.mask)
    return finish(_Reader(path, np.asarray(array), told).scan(mask))


def _along_trajectory(path: Path, told: Sidecar, given: dict[str, Any]) -> KSpace:
    if "trajectory" not in given:
        raise InputError(f"{path}: {next(iter(given))} is for samples along a trajectory; give its file, --trajectory")
    of_matlab = path.suffix.lower() == ".mat"
    array = read_matlab(path, told.variable, "")[0] if of_matlab else load_npy(path)
    return read_with_trajectory(path, _Reader(path, np.asarray(array), told).array, told_of(**given), "array")


def _beside(path: Path, name: str) -> Path:
    if Path(name).name != name or not name.lower().endswith(".npy"):
        raise InputError(f"{path.with_suffix('.json')}: mask must be the name of a .npy file in the same folder")
    return path.with_name(name)


class _Reader:
    def __init__(self, path: Path, array: np.ndarray, told: Sidecar) -> None:
        self.name, self.told = str(path), told
        self.guessed: list[str] = []
        self.remarks: list[str] = []
        self._told_by_images = True
        self.array = self._complex(array)

    def _complex(self, array: np.ndarray) -> np.ndarray:
        names = [name.lower() for name in array.dtype.names or ()]
        if names in (["real", "imag"], ["r", "i"], ["re", "im"]) and array.ndim > 1:
            real, imaginary = (array[name] for name in array.dtype.names or ())
            if real.dtype.kind in "iuf" and imaginary.dtype.kind in "iuf" and real.shape == array.shape:
                array = real + 1j * imaginary
        elif array.dtype.kind in "iuf" and array.ndim > 2 and array.shape[-1] == 2:
            self.guessed.append("the last axis, of 2, holds real and imaginary parts")
            array = array[..., 0] + 1j * array[..., 1]
        if array.dtype.kind != "c":
            raise InputError(f"{self.name}: holds {array.dtype}; k-space is complex")
        if not array.size:
            raise InputError(f"{self.name}: has the shape {array.shape}, without a value")
        with np.errstate(over="ignore"):  # found not to be finite later
            return array.astype(np.complex64, copy=False)

    def scan(self, mask: np.ndarray | None) -> Acquisition:
        bad = int(self.array.size - np.count_nonzero(np.isfinite(self.array)))
        if bad:
            raise InputError(f"{self.name}: {bad} of {self.array.size} samples are NaN or infinite; repair the file")
        if not self.array.any():
            raise InputError(f"{self.name}: every sample is zero; nothing was measured")
        axes = self._axes()
        data = self.array
        shift = [k for k, axis in enumerate(axes) if axis in ("row", "column", "partition") and not self._is_centred(k)]
        if self.told.centred is None:
            self.guessed += [f"the lowest frequency comes first along axis {k}; shifted to the middle" for k in shift]
        if shift:
            data = np.fft.fftshift(data, axes=shift)
        data = np.transpose(data, [axes.index(axis) for axis in ORDER if axis in axes])
        data = np.expand_dims(data, [k for k, axis in enumerate(ORDER) if axis not in axes])
        data = np.array(data)  # a copy that is ours to write to
        sampled = self._sampled(data, mask)
        if self.told.wrapped:
            data = unwrapped(data, [-2, -1])
        readout = -2 if self.told.readout == "row" else -1
        if self.told.spacing_mm is None:
            self.guessed.append("spacing 1 x 1 x 1 mm")
        if self.told.oversampling == 1 and not self.told.path.is_file():
            self.guessed.append("no oversampling of the readout")
        return Acquisition(
            self.name,
            "array",
            data,
            sampled,
            keep=round(data.shape[readout] / self.told.oversampling),
            readout=readout,
            cut="mend" if self.told.wrapped is None else "leave",
            spacing_mm=self.told.spacing_mm or (1.0, 1.0, 1.0),
            noise_std=self.told.noise_std,
            axes=f"({', '.join(axes)}) of {' x '.join(str(n) for n in self.array.shape)}",
            guessed=self.guessed,
            remarks=self.remarks,
        )

    def _sampled(self, data: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Positions that were measured, and that the mask has; (slices, partitions, rows, columns)."""
        if mask is None:
            sampled, zeros = measured(data)
            if zeros:
                self.guessed.append(
                    f"{zeros} samples are zero and count as measured (they form no pattern of sampling)"
                )
            return sampled
        sampled = (data != 0).any(axis=2)
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
        names = self._channels(others)
        found = iter(names)
        plane = iter(("row", "column"))
        axes = tuple(next(plane) if is_frequency else next(found) for is_frequency in frequency)
        told = "" if self._told_by_images or not others else " (slices or coils could not be told by their images)"
        self.guessed.append(f"axes ({', '.join(axes)}){told}")
        return axes

    def _channels(self, others: list[int]) -> tuple[str, ...]:
        """Names of the axes that are none of frequencies."""
        kinds = [self._kind_of(k, others) for k in others]
        self._told_by_images = "unknown" not in kinds
        if len(others) < 2:
            if "" in kinds:
                raise InputError(
                    f"{self.name}: whether axis {others[0]} of {self.array.shape} holds slices or coils cannot be told "
                    f"by its images; name the axes in {self.told.path.name}, under axes"
                )
            return tuple("slice" if kind == "slices" else "coil" for kind in kinds)
        if not self._looks_like_slices_and_coils(others):
            raise self._unclear()
        if kinds == ["slices", "slices"]:
            raise InputError(
                f"{self.name}: neither axis 0 nor axis 1 of {self.array.shape} holds coils, which see one object; name "
                f"the axes in {self.told.path.name}, under axes"
            )
        return ("coil", "slice") if kinds == ["coils", "slices"] else ("slice", "coil")

    def _kind_of(self, axis: int, others: list[int]) -> str:
        """What the images along an axis are, at the middle of the other one."""
        data = self.array
        for other in others:
            if other != axis:
                data = np.take(data, [data.shape[other] // 2], axis=other)
        if data.shape[axis] == 1:
            return "coils"
        plane = [k for k in range(data.ndim) if k not in others]
        data = np.fft.fftshift(data, axes=[k for k in plane if not self._is_centred(k)])
        data = np.transpose(data, [axis, *(k for k in others if k != axis), *plane]).reshape(
            data.shape[axis], *(data.shape[k] for k in plane)
        )
        return coils_or_slices(data, (data != 0).any(axis=0))

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
        """Energy along an axis, in double precision: squares of single precision leave its range."""
        rest = tuple(k - 1 for k in range(1, self.array.ndim) if k != axis)
        parts = [(np.abs(part).astype(np.float64) ** 2).sum(axis=rest) for part in self.array]
        return np.array(parts) if axis == 0 else np.sum(parts, axis=0)

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
        return len(profile) == 1 or _middle_share(profile) >= _middle_share(np.fft.fftshift(profile))


def _middle_share(profile: np.ndarray) -> float:
    n = len(profile)
    half = max(n // 8, 1)
    return float(profile[n // 2 - half : n // 2 + half].sum() / profile.sum())


register(Format("array of k-space", MR, (".npy", ".mat"), read_array, lambda path: not is_fan_beam(path), asks=ASKS))
