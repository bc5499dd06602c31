"""ISMRMRD HDF5 files, read with h5py alone: one group with an XML header and a table of readouts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import InputError
from ..scans import KSpace
from .hdf5 import Fields
from .ismrmrd_header import Header, parse_header, require_cartesian
from .kspace_scan import Lines, Scan, finish

_CHUNK = 512  # readouts held at a time
_GRID_TOLERANCE = 0.05  # of a sample, how far a trajectory that claims to be Cartesian may lie from the grid


def _bit(flag: int) -> int:
    return 1 << (flag - 1)


# The flags of the standard, from 1.
_NOISE, _CALIBRATION, _CALIBRATION_AND_IMAGING, _REVERSE = _bit(19), _bit(20), _bit(21), _bit(22)
_NO_IMAGE = sum(_bit(n) for n in (23, 24, 26, 27, 28, 29, 30, 31))  # navigators, phase correction, feedback, dummies
_COUNTERS = ("contrast", "phase", "repetition", "set")


def find_group(file: Any) -> str | None:
    """The path of the group that holds an ISMRMRD acquisition, None if there is none."""
    import h5py

    for key in ("dataset", *file):
        node = file.get(key, getclass=True, getlink=True)
        if node is h5py.HardLink and isinstance(file[key], h5py.Group) and {"xml", "data"} <= set(file[key]):
            return str(key)
    return None


def read_ismrmrd(fields: Fields, group: str) -> KSpace:
    """The first contrast, phase, repetition and set of an open file.  Raises InputError that names the file."""
    name, table = str(fields.path), fields.dataset(f"{group}/data")
    header = parse_header(_text(fields.dataset(f"{group}/xml"), name), name)
    require_cartesian(header, name)
    if table.ndim != 1 or not {"head", "data"} <= set(table.dtype.names or ()):
        raise InputError(f"{name}: {group}/data is no table of readouts; is it an ISMRMRD file of images?")
    if header.encoded is None:
        raise InputError(f"{name}: its header lacks encodedSpace/matrixSize")
    heads = table.fields("head")[:]
    return finish(_Reader(name, table, heads, header).scan())


def _text(node: Any, name: str) -> bytes:
    value = node[()] if node.shape == () else node[0] if node.shape and node.shape[0] else b""
    if not isinstance(value, bytes | str):
        raise InputError(f"{name}: its XML header is no text")
    return value if isinstance(value, bytes) else value.encode("utf-8")


class _Reader:
    def __init__(self, name: str, table: Any, heads: np.ndarray, header: Header) -> None:
        self.name, self.table, self.heads, self.header = name, table, heads, header
        self.flags = heads["flags"].astype(np.uint64)
        self.calibrating = np.zeros(len(heads), dtype=bool)
        self.guessed: list[str] = []
        self.remarks: list[str] = []

    def scan(self) -> Scan:
        assert self.header.encoded is not None
        noise, chosen = self._has(_NOISE), self._image_readouts()
        columns, rows, partitions = self.header.encoded.matrix
        slices, where = np.unique(self.heads["idx"]["slice"][chosen], return_inverse=True)
        heads = self.heads[chosen]
        coils = int(heads["active_channels"][0])
        if coils < 1:
            raise InputError(f"{self.name}: its readouts have no coils")
        shape = (len(slices), partitions, coils, rows, columns)
        along, order = self._along_slices(heads, where, len(slices))
        rank = dict(zip(slices.tolist(), order.tolist(), strict=True))
        data, sampled = self._lines(chosen, shape, rank)
        centre = self._position(heads, where, order, along)
        return Scan(
            self.name,
            "ISMRMRD",
            data,
            sampled,
            keep=round(columns / self.header.oversampling),
            spacing_mm=self._spacing(along),
            directions=self._directions(heads[0]),
            centre_mm=centre,
            noise=self._noise(np.flatnonzero(noise), coils),
            noise_bandwidth=self._bandwidth(heads, noise),
            calibration=self._calibration(shape, rank),
            axes="rows are phase encoding, columns are readout",
            guessed=self.guessed,
            remarks=self.remarks,
        )

    def _lines(
        self, chosen: np.ndarray, shape: tuple[int, int, int, int, int], rank: dict[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Readouts on the encoded matrix, and what they sampled; rank: the place of each slice by its number."""
        lines, heads = Lines(self.name, shape, len(chosen)), self.heads[chosen]
        _, partitions, _, rows, columns = shape
        row = self._offset("line", heads["idx"]["kspace_encode_step_1"], rows, self.header.centre_line)
        part = self._offset("partition", heads["idx"]["kspace_encode_step_2"], partitions, self._centre_partition())
        for number, samples in self._readouts(chosen):
            samples, first = self._trimmed(samples, heads[number], columns)
            place = rank[int(heads["idx"]["slice"][number])]
            lines.add(samples, (place, int(part[number]), int(row[number])), first)
        return lines.finish()

    def _calibration(self, shape: tuple[int, int, int, int, int], rank: dict[int, int]) -> Scan | None:
        chosen = np.flatnonzero(self.calibrating & np.isin(self.heads["idx"]["slice"], list(rank)))
        if not len(chosen):
            return None
        try:
            data, sampled = self._lines(chosen, shape, rank)
        except InputError as error:
            reason = str(error).removeprefix(f"{self.name}: ")
            self.remarks.append(f"separate calibration lines are not used ({reason})")
            return None
        return Scan(self.name, "ISMRMRD", data, sampled, keep=shape[-1])

    def _has(self, bits: int) -> np.ndarray:
        found: np.ndarray = (self.flags & np.uint64(bits)) != 0
        return found

    def _image_readouts(self) -> np.ndarray:
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

    def _centre_partition(self) -> int | None:
        return self.header.centre_partition

    def _offset(self, what: str, steps: np.ndarray, size: int, centre: int | None) -> np.ndarray:
        """Encoding steps as indices of the matrix, with the lowest frequency at size // 2."""
        if centre is None:
            centre = size // 2
            guess = f"the {what} {centre} is the middle of k-space"
            if size > 1 and guess not in self.guessed:
                self.guessed.append(guess)
        return steps.astype(int) - centre + size // 2

    def _readouts(self, chosen: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(number within chosen, complex64 (coils, samples)) of each chosen readout."""
        has_path = "traj" in (self.table.dtype.names or ())
        for begin in range(0, len(chosen), _CHUNK):
            part = chosen[begin : begin + _CHUNK]
            block = self.table[part[0] : part[-1] + 1]
            for number, at in enumerate(part, start=begin):
                head, record = self.heads[at], block[at - part[0]]
                if has_path and head["trajectory_dimensions"]:
                    self._require_on_grid(head, record["traj"])
                yield number, self._samples(head, record["data"])

    def _samples(self, head: np.void, values: np.ndarray) -> np.ndarray:
        coils, count = int(head["active_channels"]), int(head["number_of_samples"])
        if values.dtype != np.float32 or values.size != 2 * coils * count:
            raise InputError(
                f"{self.name}: a readout holds {values.size} numbers of {values.dtype}; its header announces {coils} "
                f"coils x {count} complex samples"
            )
        return np.ascontiguousarray(values).view(np.complex64).reshape(coils, count)

    def _require_on_grid(self, head: np.void, path: np.ndarray) -> None:
        """A trajectory that is given although the scan is Cartesian must be that of the encoding step."""
        assert self.header.encoded is not None
        points = path.reshape(-1, int(head["trajectory_dimensions"]))
        if len(points) != head["number_of_samples"] or not len(points):
            raise InputError(f"{self.name}: a trajectory does not fit its readout")
        steps = np.diff(points[:, 0]) * self.header.encoded.matrix[0]
        if np.abs(np.abs(steps) - 1).max(initial=0) > _GRID_TOLERANCE or np.ptp(points[:, 1:], axis=0).max(
            initial=0
        ) * self.header.encoded.matrix[1] > (_GRID_TOLERANCE):
            raise InputError(f"{self.name}: its trajectory does not follow the Cartesian grid; grid the data first")

    def _trimmed(self, samples: np.ndarray, head: np.void, columns: int) -> tuple[np.ndarray, int]:
        """The samples to keep, in order, and the column of the first."""
        pre, stop = int(head["discard_pre"]), samples.shape[1] - int(head["discard_post"])
        if pre >= stop:
            raise InputError(f"{self.name}: a readout discards all of its samples")
        first = columns // 2 - int(head["center_sample"]) + pre
        kept = samples[:, pre:stop]
        return (kept[:, ::-1] if int(head["flags"]) & _REVERSE else kept), first

    def _noise(self, readouts: np.ndarray, coils: int) -> np.ndarray | None:
        if not len(readouts):
            return None
        samples = [values for _, values in self._readouts(readouts)]
        if any(values.shape[0] != coils for values in samples):
            self.remarks.append("the noise scan has other coils and is not used")
            return None
        return np.concatenate(samples, axis=1)

    def _bandwidth(self, heads: np.ndarray, noise: np.ndarray) -> float:
        if not noise.any():
            return 1.0
        dwell, silent = float(heads["sample_time_us"][0]), float(self.heads["sample_time_us"][noise][0])
        return dwell / silent if dwell > 0 and silent > 0 else 1.0

    def _directions(self, head: np.void) -> np.ndarray:
        vectors = [np.asarray(head[key], dtype=float) for key in ("read_dir", "phase_dir", "slice_dir")]
        return np.stack(vectors, axis=1)

    def _along_slices(self, heads: np.ndarray, where: np.ndarray, slices: int) -> tuple[np.ndarray, np.ndarray]:
        """Each slice's position along the normal, ascending, and each slice's place in that order."""
        normal = np.asarray(heads["slice_dir"][0], dtype=float)
        along = np.array([heads["position"][where == n][0] @ normal for n in range(slices)])
        if len(np.unique(np.round(along, 3))) < slices:
            if slices > 1:
                self.guessed.append("order and distance of the slices (positions are not told)")
            return np.zeros(slices), np.arange(slices)
        order = np.empty(slices, dtype=int)
        order[np.argsort(along)] = np.arange(slices)
        return np.sort(along), order

    def _position(self, heads: np.ndarray, where: np.ndarray, order: np.ndarray, along: np.ndarray) -> np.ndarray:
        middle = int(np.flatnonzero(order == len(order) // 2)[0])
        position: np.ndarray = np.asarray(heads["position"][where == middle][0], dtype=float)
        return position

    def _spacing(self, along: np.ndarray) -> tuple[float, float, float]:
        encoded = self.header.encoded
        assert encoded is not None
        x, y, z = (length / n for length, n in zip(encoded.field_mm, encoded.matrix, strict=True))
        if encoded.matrix[2] == 1 and len(along) > 1 and np.ptp(along) > 0:
            z = float(np.mean(np.diff(along)))
        if min(x, y) <= 0:
            self.guessed.append("pixel spacing 1 x 1 mm (no field of view in the header)")
            x = y = 1.0
        if z <= 0:
            self.guessed.append("slice spacing 1 mm (no thickness in the header)")
            z = 1.0
        return x, y, z
