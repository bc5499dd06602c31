"""ISMRMRD HDF5 files, read with h5py alone: one group with an XML header and a table of readouts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..formats import MR, Format, register
from ..scans import KSpace
from .hdf5 import SUFFIXES, Fields, reading, recognising
from .ismrmrd_header import EncodingSpace, Header, parse_header, require_cartesian
from .ismrmrd_paths import cells
from .ismrmrd_space import encoded_space
from .ismrmrd_trajectory import NAMES as TRAJECTORIES
from .ismrmrd_trajectory import read_trajectory
from .kspace_scan import Acquisition, Lines, finish
from .ramps import is_even
from .readouts import Marks, Placer
from .stack import SliceStack, stacked
from .trajectory_scan import ASKS, told_of

_CHUNK = 512  # readouts held at a time


def _bit(flag: int) -> int:
    return 1 << (flag - 1)


# The flags of the standard, from 1.
_NOISE, _CALIBRATION, _CALIBRATION_AND_IMAGING, _REVERSE = _bit(19), _bit(20), _bit(21), _bit(22)
_NO_IMAGE = sum(_bit(n) for n in (23, 24, 26, 27, 28, 29, 30, 31))  # navigators, phase correction, feedback, dummies
_HEAD = {"flags", "idx", "position", "read_dir", "phase_dir", "slice_dir", "number_of_samples", "active_channels"} | {
    "center_sample",
    "discard_pre",
    "discard_post",
    "encoding_space_ref",
    "trajectory_dimensions",
    "sample_time_us",
}
_COUNTERS = ("contrast", "phase", "repetition", "set")
_INDEX = {"slice", "kspace_encode_step_1", "kspace_encode_step_2", *_COUNTERS}


def find_group(file: Any) -> str | None:
    """The path of the group that holds an ISMRMRD acquisition, None if there is none."""
    import h5py

    for key in ("dataset", *file):
        node = file.get(key, getclass=True, getlink=True)
        if node is h5py.HardLink and isinstance(file[key], h5py.Group) and {"xml", "data"} <= set(file[key]):
            return str(key)
    return None


def read_ismrmrd(fields: Fields, group: str, **told: Any) -> KSpace:
    """The first contrast, phase, repetition and set of an open file.  Raises InputError that names the file.

    told: of trajectories, as :class:`.trajectory_scan.ToldTrajectory` has them.
    """
    name, table = str(fields.path), fields.dataset(f"{group}/data")
    header = parse_header(_text(fields.dataset(f"{group}/xml"), name), name)
    if table.ndim != 1 or not {"head", "data"} <= set(table.dtype.names or ()):
        raise InputError(f"{name}: {group}/data is no table of readouts; is it an ISMRMRD file of images?")
    if not set(table.dtype["head"].names or ()) >= _HEAD:
        raise InputError(f"{name}: the heads of its readouts lack fields; is it an ISMRMRD file?")
    if not set(table.dtype["head"]["idx"].names or ()) >= _INDEX:
        raise InputError(f"{name}: the counters of its readouts lack fields; is it an ISMRMRD file?")
    heads = table.fields("head")[:]
    if header.trajectory in TRAJECTORIES:
        return read_trajectory(Reader(name, table, heads, header), told_of(**told))
    if told:
        raise InputError(f"{name}: {next(iter(told))} is for trajectories, its header says Cartesian; leave it out")
    known = header.ramp is not None or ("traj" in table.dtype.names and heads["trajectory_dimensions"].any())
    require_cartesian(header, name, ("epi",) if known else ())
    if header.encoded is None:
        raise InputError(f"{name}: its header lacks encodedSpace/matrixSize")
    return finish(Reader(name, table, heads, header).scan())


def _text(node: Any, name: str) -> bytes:
    value = node[()] if node.shape == () else node[0] if node.shape and node.shape[0] else b""
    if not isinstance(value, bytes | str):
        raise InputError(f"{name}: its XML header is no text")
    return value if isinstance(value, bytes) else value.encode("utf-8")


class Reader:
    """The readouts of one file."""

    def __init__(self, name: str, table: Any, heads: np.ndarray, header: Header) -> None:
        self.name, self.table, self.heads, self.header = name, table, heads, header
        self.flags = heads["flags"].astype(np.uint64)
        self.calibrating = np.zeros(len(heads), dtype=bool)
        self.guessed: list[str] = []
        self.remarks: list[str] = []

    def scan(self) -> Acquisition:
        assert self.header.encoded is not None
        noise, chosen = self._has(_NOISE), self.image_readouts()
        heads = self.heads[chosen]
        coils = int(heads["active_channels"][0])
        if coils < 1:
            raise InputError(f"{self.name}: its readouts have no coils")
        slices, first = np.unique(heads["idx"]["slice"], return_index=True)
        stack, _ = self.stack(heads)
        encoded, keep = encoded_space(self.header, heads, self.guessed, self.name)
        columns, rows, partitions = encoded.matrix
        shape = (len(slices), partitions, coils, rows, columns)
        rank = dict(zip(slices.tolist(), stack.order.tolist(), strict=True))
        self._prepare(chosen, encoded, keep)
        data, sampled = self._lines(chosen, shape, rank)
        return Acquisition(
            self.name,
            "ISMRMRD",
            data,
            sampled,
            keep=keep,
            spacing_mm=self._spacing(encoded, stack, len(slices)),
            directions=_directions(heads[:1])[0],
            centre_mm=heads["position"][first[stack.middle]].astype(float),
            noise=self._noise(np.flatnonzero(noise), coils),
            noise_bandwidth=self._bandwidth(heads, noise),
            calibration=self._calibration(shape, rank),
            axes="rows are phase encoding, columns are readout",
            guessed=[*self.header.guessed, *self.guessed, *self.placer.guessed],
            remarks=[*self.remarks, *self.placer.remarks],
        )

    def stack(self, heads: np.ndarray) -> tuple[SliceStack, int]:
        """The slices of readouts, in order, and how many there are."""
        _, first, where = np.unique(heads["idx"]["slice"], return_index=True, return_inverse=True)
        self._require_one_orientation(heads, first[where])
        directions = _directions(heads[first])
        return stacked(self.name, heads["position"][first].astype(float), directions, self.guessed), len(first)

    def centre(self, heads: np.ndarray, stack: SliceStack) -> np.ndarray:
        """Where the middle of the stack lies, in mm."""
        _, first = np.unique(heads["idx"]["slice"], return_index=True)
        return np.asarray(heads["position"][first[stack.middle]].astype(float))

    def directions(self, heads: np.ndarray) -> np.ndarray:
        """Unit vectors of readout, phase and slice in the columns; those of the file's axes where they are none."""
        found = _directions(heads[:1])[0]
        if np.allclose(found.T @ found, np.eye(3), atol=1e-2):
            return found
        self.guessed.append("orientation (the header's is no rotation)")
        return np.eye(3)

    def noise(self, coils: int) -> np.ndarray | None:
        """The scan without excitation, (coils, samples)."""
        return self._noise(np.flatnonzero(self._has(_NOISE)), coils)

    def noise_bandwidth(self, heads: np.ndarray) -> float:
        """Its bandwidth over that of the scan."""
        return self._bandwidth(heads, self._has(_NOISE))

    def with_paths(self, chosen: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Number, samples (coils, samples) and points (samples, dimensions) of each readout."""
        for begin in range(0, len(chosen), _CHUNK):
            part = chosen[begin : begin + _CHUNK]
            block = self.table[part[0] : part[-1] + 1]
            for at in part:
                head, record = self.heads[at], block[at - part[0]]
                count, dimensions = int(head["number_of_samples"]), int(head["trajectory_dimensions"])
                path = np.asarray(record["traj"], np.float64)
                if path.size != count * dimensions:
                    raise InputError(
                        f"{self.name}: a trajectory of {path.size} numbers does not fit its readout of {count} samples "
                        f"in {dimensions} dimensions"
                    )
                yield int(at), self._samples(head, record["data"]), path.reshape(count, dimensions)

    def _require_one_orientation(self, heads: np.ndarray, first: np.ndarray) -> None:
        """Within a slice all readouts have the direction of its first."""
        for key in ("read_dir", "phase_dir", "slice_dir"):
            if not np.allclose(heads[key], heads[key][first], atol=1e-2, equal_nan=True):
                raise InputError(f"{self.name}: the orientation changes from readout to readout; is it Cartesian?")

    def _prepare(self, chosen: np.ndarray, encoded: EncodingSpace, keep: int) -> None:
        """Settle how readouts are placed, by a first look at them where they run back and forth or have a path."""
        self.encoded = encoded
        ramp, count = self.header.ramp, int(self.heads["number_of_samples"][chosen[0]])
        if ramp is not None and not ramp.dwell:
            ramp = replace(ramp, dwell=float(self.heads["sample_time_us"][chosen[0]]))
        if ramp is not None and (self._has_path(chosen) or ramp.on_flat_top(count)):
            ramp = None  # the readouts' own path tells more; what lies on the flat top is even
        self.placer = Placer(self.name, encoded.matrix[0], keep, ramp)
        self.backwards = self._has(_REVERSE)
        if self._has_path(chosen):
            self._follow_paths(chosen)
        self.placer.learn(lambda: self._marked(chosen), bool(self.backwards[chosen].any()))

    def _has_path(self, chosen: np.ndarray) -> bool:
        stored = "traj" in (self.table.dtype.names or ())
        return stored and bool(self.heads["trajectory_dimensions"][chosen].any())

    def _follow_paths(self, chosen: np.ndarray) -> None:
        """Where paths run both ways they tell the direction of lines, not the flags."""
        runs = np.zeros(len(self.heads), dtype=int)
        even = True
        for at, _, path in self._readouts(chosen):
            if path is not None:
                runs[at] = 1 if path[-1] > path[0] else -1
                even &= is_even(path)
        falling = runs < 0
        if even and falling.any() and (runs > 0).any() and (falling != self.backwards)[chosen].any():
            self.remarks.append("the direction of lines is taken from their trajectories, which contradict their flags")
            self.backwards = falling
        if not even:
            self.remarks.append("samples were brought from the trajectories of their readouts to the grid")

    def _marked(self, chosen: np.ndarray) -> Iterator[tuple[np.ndarray, Marks]]:
        return ((samples, self._marks(at)) for at, samples, _ in self._readouts(chosen))

    def _marks(self, at: int) -> Marks:
        head = self.heads[at]
        before, after, centre = (int(head[key]) for key in ("discard_pre", "discard_post", "center_sample"))
        return Marks(before, after, centre, bool(self.backwards[at]))

    def _lines(
        self, chosen: np.ndarray, shape: tuple[int, int, int, int, int], rank: dict[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Readouts on the encoded matrix, and what they sampled; rank: the place of each slice by its number."""
        lines, heads = Lines(self.name, shape, len(chosen)), self.heads[chosen]
        _, partitions, _, rows, _ = shape
        row = self._offset("line", heads["idx"]["kspace_encode_step_1"], rows, self.header.centre_line)
        if partitions > 1:
            steps = heads["idx"]["kspace_encode_step_2"]
            part = self._offset("partition", steps, partitions, self.header.centre_partition)
        else:
            part = np.zeros(len(heads), dtype=int)
        for number, (at, samples, path) in enumerate(self._readouts(chosen)):
            uneven = None if path is None or is_even(path) else path
            samples, first = self.placer.place(samples, self._marks(at), uneven)
            place = rank[int(heads["idx"]["slice"][number])]
            lines.add(samples, (place, int(part[number]), int(row[number])), first)
        return lines.finish()

    def _calibration(self, shape: tuple[int, int, int, int, int], rank: dict[int, int]) -> Acquisition | None:
        chosen = np.flatnonzero(self.calibrating & np.isin(self.heads["idx"]["slice"], list(rank)))
        if not len(chosen):
            return None
        try:
            data, sampled = self._lines(chosen, shape, rank)
        except InputError as error:
            reason = str(error).removeprefix(f"{self.name}: ")
            self.remarks.append(f"separate calibration lines are not used ({reason})")
            return None
        return Acquisition(self.name, "ISMRMRD", data, sampled, keep=shape[-1])

    def _has(self, bits: int) -> np.ndarray:
        found: np.ndarray = (self.flags & np.uint64(bits)) != 0
        return found

    def image_readouts(self) -> np.ndarray:
        """Indices of the readouts of the first image; says which others there are."""
        wanted = ~self._has(_NOISE | _NO_IMAGE) & (self.heads["encoding_space_ref"] == 0)
        apart = self._has(_CALIBRATION) & ~self._has(_CALIBRATION_AND_IMAGING)
        if self.header.calibration not in ("embedded", "") and apart.any():
            self.calibrating = wanted & apart
            wanted &= ~apart
        if not wanted.any():
            raise InputError(f"{self.name}: holds no readouts of an image")
        for counter in _COUNTERS:
            values = np.unique(self.heads["idx"][counter][wanted])
            if len(values) > 1:
                self.remarks.append(f"the first of {len(values)} {counter}s is read")
                wanted &= self.heads["idx"][counter] == values[0]
                self.calibrating &= self.heads["idx"][counter] == values[0]
        return np.flatnonzero(wanted)

    def _offset(self, what: str, steps: np.ndarray, size: int, centre: int | None) -> np.ndarray:
        """Encoding steps as indices of the matrix, with the lowest frequency at size // 2."""
        if centre is None:
            centre = size // 2
            guess = f"the {what} {centre} is the middle of k-space"
            if size > 1 and guess not in self.guessed:
                self.guessed.append(guess)
        return steps.astype(int) - centre + size // 2

    def _readouts(self, chosen: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
        """Number, complex64 (coils, samples) and path in cells, where it is stored, of each chosen readout."""
        has_path = "traj" in (self.table.dtype.names or ())
        for begin in range(0, len(chosen), _CHUNK):
            part = chosen[begin : begin + _CHUNK]
            block = self.table[part[0] : part[-1] + 1]
            for at in part:
                head, record = self.heads[at], block[at - part[0]]
                path = None
                if has_path and head["trajectory_dimensions"] and not int(head["flags"]) & _NOISE:
                    path = self._path(head, record["traj"])
                yield int(at), self._samples(head, record["data"]), path

    def _path(self, head: np.void, values: np.ndarray) -> np.ndarray:
        count, dimensions = int(head["number_of_samples"]), int(head["trajectory_dimensions"])
        if values.size != count * dimensions:
            raise InputError(f"{self.name}: a trajectory does not fit its readout")
        return cells(values.reshape(count, dimensions), count, self.encoded, self.name)

    def _samples(self, head: np.void, values: np.ndarray) -> np.ndarray:
        coils, count = int(head["active_channels"]), int(head["number_of_samples"])
        if values.dtype != np.float32 or values.size != 2 * coils * count:
            raise InputError(
                f"{self.name}: a readout holds {values.size} numbers of {values.dtype}; its header announces {coils} "
                f"coils x {count} complex samples"
            )
        return np.ascontiguousarray(values).view(np.complex64).reshape(coils, count)

    def _noise(self, readouts: np.ndarray, coils: int) -> np.ndarray | None:
        if not len(readouts):
            return None
        samples = [values for _, values, _ in self._readouts(readouts)]
        if any(values.shape[0] != coils for values in samples):
            self.remarks.append("the noise scan has other coils and is not used")
            return None
        return np.concatenate(samples, axis=1)

    def _bandwidth(self, heads: np.ndarray, noise: np.ndarray) -> float:
        if not noise.any():
            return 1.0
        dwell, silent = float(heads["sample_time_us"][0]), float(self.heads["sample_time_us"][noise][0])
        return dwell / silent if dwell > 0 and silent > 0 else 1.0

    def _spacing(self, encoded: EncodingSpace, stack: SliceStack, slices: int) -> tuple[float, float, float]:
        x, y, z = (length / n for length, n in zip(encoded.field_mm, encoded.matrix, strict=True))
        if encoded.matrix[2] == 1 and stack.spacing_mm > 0:
            z = stack.spacing_mm
        if min(x, y) <= 0:
            self.guessed.append("pixel spacing 1 x 1 mm (no field of view in the header)")
            x = y = 1.0
        if z <= 0:
            self.guessed.append("slice spacing 1 mm (no thickness in the header)")
            z = 1.0
        return x, y, z


def _read(fields: Fields, **told: Any) -> KSpace:
    return read_ismrmrd(fields, find_group(fields.file) or "dataset", **told)


register(
    Format("ISMRMRD", MR, SUFFIXES, reading(_read), recognising(lambda fields: find_group(fields.file)), asks=ASKS)
)


def _directions(heads: np.ndarray) -> np.ndarray:
    """(readouts, 3, 3): readout, phase and slice direction in the columns."""
    return np.stack([heads[key].astype(float) for key in ("read_dir", "phase_dir", "slice_dir")], axis=2)
