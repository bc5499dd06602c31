"""Siemens raw data (twix, ``.dat``); the blocks are read through twixtools (extra ``mri``).

Of the protocol only the numbers named here are looked up, in its ASCCONV text; names and dates are never parsed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError
from ..formats import MR, Format, register
from ..scans import KSpace
from .kspace_scan import Acquisition, Lines, finish
from .ramps import Ramp
from .readouts import Marks, Placer
from .stack import SliceStack, stacked
from .trajectory_scan import ASKS, ToldTrajectory, told_of
from .twix_trajectory import read_twix_trajectory

_LARGEST_HEADER = 64 << 20
_RAID_ENTRY = struct.Struct("<IIQQ128x")
_SMALLEST_BLOCK = 32  # bytes
_NO_IMAGE = ("RTFEEDBACK", "HPFEEDBACK", "REFPHASESTABSCAN", "PHASESTABSCAN", "PHASCOR")
_COUNTERS = {"Eco": "contrast", "Phs": "phase", "Rep": "repetition", "Set": "set"}
_NOT_CARTESIAN = (
    "its trajectory is not Cartesian (sKSpace.ucTrajectory = {}: {}) and the file does not tell where samples lie; "
    "give {}, or convert it to ISMRMRD with its trajectory"
)
_KINDS = {2: ("radial", "--angles golden, tiny-N, uniform or degrees a spoke"), 4: ("spiral", "--sequence FILE.seq")}


def looks_like_twix(path: Path) -> bool:
    """True if the file begins as Siemens raw data of the software lines VD, VE or XA, or VB, do."""
    with path.open("rb") as stream:
        first, second = struct.unpack("<II", stream.read(8).ljust(8, b"\0"))
    size = path.stat().st_size
    return (first < 10000 and 1 <= second <= 64) or (32 < first < min(size, _LARGEST_HEADER) and 1 <= second <= 32)


def read_twix(path: Path, told: ToldTrajectory | None = None) -> KSpace:
    """The last measurement in the file: its first contrast, phase, repetition and set.

    told: of readouts along a trajectory that the file does not tell.

    Raises InputError where twixtools is missing, for a truncated file and for what is not Cartesian.
    """
    block_type = _block_type(path)
    with path.open("rb") as stream:
        measurements, modern = _measurements(stream, path)
        noise: list[Any] = []
        blocks: list[Any] = []
        protocol = _Protocol("")
        for begin, end in measurements:
            protocol, first = _protocol(stream, begin, path)
            blocks = list(_blocks(stream, begin + first, end, block_type, modern, path))
            noise += [b for b in blocks if b.is_flag_set("NOISEADJSCAN")]
        along = told is not None and bool(told.angles or told.sequence)
        reader = _Reader(path, protocol, blocks, noise, any_trajectory=along)
        return read_twix_trajectory(reader, told) if told and along else finish(reader.scan())


def _block_type(path: Path) -> Any:
    try:
        from twixtools.mdb import Mdb
    except ImportError:
        raise InputError(
            f'{path}: Siemens raw data need twixtools: pip install "diffusionmbir[mri]", or convert it to ISMRMRD'
        ) from None
    return Mdb


def _measurements(stream: BinaryIO, path: Path) -> tuple[list[tuple[int, int]], bool]:
    """Begin and end of each measurement in bytes, and whether blocks are those of VD and later."""
    size = path.stat().st_size
    first, count = struct.unpack("<II", stream.read(8).ljust(8, b"\0"))
    if not (first < 10000 and count <= 64):
        return [(0, size)], False
    table = stream.read(_RAID_ENTRY.size * count)
    if len(table) < _RAID_ENTRY.size * count:
        raise InputError(f"{path}: its table of measurements is cut; copy the file again")
    found = []
    for _, _, offset, length in _RAID_ENTRY.iter_unpack(table):
        end = offset + length if length else size
        if end > size or end <= offset:
            raise InputError(f"{path}: has {size} of {end} bytes that its table announces; copy the file again")
        found.append((offset, end))
    if not found:
        raise InputError(f"{path}: holds no measurement")
    return found, True


class _Protocol:
    """Numbers of the ASCCONV text by their key; those of the gradient from the text before it."""

    def __init__(self, text: str, before: str = "") -> None:
        self._text, self._before = text, before

    def number(self, key: str, default: float | None = None) -> float | None:
        found = re.search(rf"^{re.escape(key)}\s*=\s*([-+0-9.eExA-Fa-f]{{1,40}})\s*$", self._text, re.MULTILINE)
        if found is None:
            return default
        text = found.group(1)
        try:
            return float(int(text, 16)) if text.lower().startswith("0x") else float(text)
        except ValueError:
            return default

    @property
    def of_pulseq(self) -> bool:
        """True for a sequence that Pulseq's interpreter played; the protocol does not describe it."""
        found = re.search(r"^tSequenceFileName\s*=\s*\"*([^\"\n]*)", self._text, re.MULTILINE)
        return found is not None and "pulseq" in found.group(1).lower()

    def ramp(self, samples: int) -> Ramp | None:
        """The readout gradient in microseconds, where samples were taken on its ramps."""
        mode = self._regridding("alRegridMode")
        if mode not in (2.0, 4.0):  # straight, sine
            return None
        names = ("RampupTime", "FlattopTime", "RampdownTime", "DelaySamplesTime")
        up, flat, down, delay = (self._regridding(f"alRegrid{name}") for name in names)
        dwell = self._regridding("aflRegridADCDuration") / samples
        return Ramp(up, flat, down, dwell, delay, sine=mode == 4.0)

    def _regridding(self, key: str) -> float:
        """The first number of an entry such as <ParamLong."alRegridMode"> { 2 2 }, 0 if there is none."""
        found = re.search(rf'"{key}">\s*{{\s*(?:<[^>]*>\s*[-+0-9]*\s*)*([-+0-9.eE]{{1,40}})', self._before)
        try:
            return float(found.group(1)) if found else 0.0
        except ValueError:
            return 0.0


def _protocol(stream: BinaryIO, begin: int, path: Path) -> tuple[_Protocol, int]:
    """The protocol of the measurement that begins there, and the length of its header."""
    stream.seek(begin)
    length = int.from_bytes(stream.read(4), "little")
    if not 8 <= length <= _LARGEST_HEADER:
        raise InputError(f"{path}: its header claims {length} bytes; is it Siemens raw data?")
    stream.seek(begin)
    text = stream.read(length).decode("latin-1")
    if len(text) < length:
        raise InputError(f"{path}: ends within its header; copy the file again")
    parts = re.findall(r"### ASCCONV BEGIN[^\n]*\n(.*?)### ASCCONV END", text, re.DOTALL)
    return _Protocol(next((p for p in parts if "sKSpace.lBaseResolution" in p), ""), text), length


def _blocks(stream: BinaryIO, at: int, end: int, block_type: Any, modern: bool, path: Path) -> Iterator[Any]:
    """The readouts up to the mark of the end."""
    while at + 128 < end:
        stream.seek(at)
        try:
            block = block_type(stream, modern)
        except (ValueError, OSError):
            block = None
        if block is not None and block.is_flag_set("ACQEND"):  # whatever length it claims
            return
        if block is None or int(block.dma_len) < _SMALLEST_BLOCK or at + int(block.dma_len) > end:
            raise InputError(f"{path}: is cut or damaged at byte {at}; copy the file again")
        if not block.is_flag_set("SYNCDATA"):
            if not (block.mdh.SamplesInScan and block.mdh.UsedChannels):
                raise InputError(f"{path}: is cut or damaged at byte {at}; copy the file again")
            yield block
        at += int(block.dma_len)
    raise InputError(f"{path}: ends without the mark of a finished measurement; copy the file again")


class _Reader:
    def __init__(
        self, path: Path, protocol: _Protocol, blocks: list[Any], noise: list[Any], *, any_trajectory: bool = False
    ) -> None:
        self.name, self.protocol, self.noise = str(path), protocol, noise
        self.guessed: list[str] = []
        self.remarks: list[str] = []
        self.apart: list[Any] = []
        trajectory = int(protocol.number("sKSpace.ucTrajectory", 1.0) or 0)
        if trajectory not in (1, 0) and not any_trajectory:
            kind, option = _KINDS.get(trajectory, ("another", "--sequence FILE.seq"))
            raise InputError(f"{path}: {_NOT_CARTESIAN.format(trajectory, kind, option)}")
        self.blocks = self._image_blocks(blocks)

    def _image_blocks(self, blocks: list[Any]) -> list[Any]:
        kept = [b for b in blocks if not b.is_flag_set("NOISEADJSCAN") and not any(map(b.is_flag_set, _NO_IMAGE))]
        apart = [b for b in kept if b.is_flag_set("PATREFSCAN") and not b.is_flag_set("PATREFANDIMASCAN")]
        if apart and self.protocol.number("sPat.ucRefScanMode", 1.0) != 2.0:  # 2: lines of the image itself
            kept = [b for b in kept if b not in apart]
            self.apart = apart
        if not kept:
            raise InputError(f"{self.name}: holds no readouts of an image")
        for key, what in _COUNTERS.items():
            values = sorted({int(getattr(b.mdh.Counter, key)) for b in kept})
            if len(values) > 1:
                self.remarks.append(f"the first of {len(values)} {what}s is read")
                kept, self.apart = (
                    [b for b in blocks if int(getattr(b.mdh.Counter, key)) == values[0]]
                    for blocks in (kept, self.apart)
                )
        return kept

    def scan(self) -> Acquisition:
        first = self.blocks[0].mdh
        columns, coils = int(first.SamplesInScan), int(first.UsedChannels)
        rows, row = self._along("Lin", "CenterLin", "sKSpace.lPhaseEncodingLines")
        partitions, part = self._along("Par", "CenterPar", self._partitions_key())
        columns, base = self._columns(columns)
        where, stack = self.stack()
        slices = len(stack.order)
        shape = (slices, partitions, coils, rows, columns)
        self.placer.learn(
            lambda: ((self.samples(b), _marks(b)) for b in self.blocks),
            any(b.is_flag_set("REFLECT") for b in self.blocks),
        )
        data, sampled = self._lines(self.blocks, shape, zip(where, part, row, strict=True))
        return Acquisition(
            self.name,
            "Siemens twix",
            data,
            sampled,
            keep=base,
            spacing_mm=self._spacing(base, rows, partitions, stack.spacing_mm),
            directions=self.directions(self.blocks[0]),
            centre_mm=self.position(self.blocks[int(np.flatnonzero(where == slices // 2)[0])]),
            noise=self.noise_scan(coils),
            calibration=self._calibration(shape, where),
            axes="rows are phase encoding, columns are readout",
            guessed=[*self.guessed, *self.placer.guessed],
            remarks=[*self.remarks, *self.placer.remarks],
        )

    def _columns(self, samples: int) -> tuple[int, int]:
        """Columns of the encoded matrix and of the image; makes the placer of readouts."""
        base = int(self.protocol.number("sKSpace.lBaseResolution", 0.0) or 0)
        ramp = self.protocol.ramp(samples)
        if ramp is not None and not ramp.on_flat_top(samples):
            if not 0 < base <= samples:
                raise InputError(f"{self.name}: its protocol lacks the base resolution of an echo-planar readout")
            # The samples cover base cycles per field of view; the field of view is encoded twice as wide.
            self.placer = Placer(self.name, 2 * base, base, ramp)
            return 2 * base, base
        # An echo that is not centred has fewer samples before its centre than the matrix.
        centre = int(self.blocks[0].mdh.CenterCol)
        columns = max(samples, 2 * centre, 2 * (samples - centre))
        if self.protocol.of_pulseq:
            self._require_described(columns, base)
        if not 0 < base <= columns:
            base = columns
            self.guessed.append("no oversampling of the readout (no base resolution in the protocol)")
        elif abs(columns / base - round(columns / base)) * base > 1:
            self.guessed.append(f"readouts of {columns} samples hold {base} columns (no whole factor of oversampling)")
        self.placer = Placer(self.name, columns, base)
        return columns, base

    def _require_described(self, columns: int, base: int) -> None:
        lines = int(self.protocol.number("sKSpace.lPhaseEncodingLines", 0.0) or 0)
        most = max(int(b.mdh.Counter.Lin) for b in self.blocks) + 1
        if base and (columns not in (base, 2 * base) or most > lines):
            raise InputError(
                f"{self.name}: was measured by Pulseq, and its protocol ({base} columns, {lines} lines) does not "
                f"describe its {columns} samples and {most} lines; convert it to ISMRMRD with the sequence's trajectory"
            )
        self.guessed.append("matrix, field of view and even sampling (Pulseq leaves the protocol as it was)")

    def _partitions_key(self) -> str:
        return "sKSpace.lPartitions" if self.protocol.number("sKSpace.ucDimension") == 4.0 else ""

    def _lines(
        self, blocks: list[Any], shape: tuple[int, int, int, int, int], places: Iterable[tuple[int, int, int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Readouts at (slice, partition, row) on the encoded matrix, and what they sampled."""
        lines = Lines(self.name, shape, len(blocks))
        for block, (where, part, row) in zip(blocks, places, strict=True):
            samples, begin = self.placer.place(self.samples(block), _marks(block))
            lines.add(samples, (int(where), int(part), int(row)), begin)
        return lines.finish()

    def _calibration(self, shape: tuple[int, int, int, int, int], where: np.ndarray) -> Acquisition | None:
        """Separate calibration lines, whose counters run around a centre of their own."""
        rank = {int(b.mdh.Counter.Sli): int(place) for b, place in zip(self.blocks, where, strict=True)}
        blocks = [b for b in self.apart if int(b.mdh.Counter.Sli) in rank]
        if not blocks:
            return None
        centred = [
            [int(getattr(b.mdh.Counter, counter)) - int(getattr(b.mdh, centre)) + size // 2 for b in blocks]
            if size > 1
            else [0] * len(blocks)
            for counter, centre, size in (("Par", "CenterPar", shape[1]), ("Lin", "CenterLin", shape[3]))
        ]
        places = [rank[int(b.mdh.Counter.Sli)] for b in blocks]
        try:
            data, sampled = self._lines(blocks, shape, zip(places, *centred, strict=True))
        except InputError as error:
            reason = str(error).removeprefix(f"{self.name}: ")
            self.remarks.append(f"separate calibration lines are not used ({reason})")
            return None
        return Acquisition(self.name, "Siemens twix", data, sampled, keep=shape[-1])

    def _along(self, counter: str, centre: str, key: str) -> tuple[int, np.ndarray]:
        """Size of an encoded direction and the index of each readout in it, with the centre at size // 2."""
        steps = np.array([int(getattr(b.mdh.Counter, counter)) for b in self.blocks])
        middle = int(getattr(self.blocks[0].mdh, centre))
        if steps.max() == 0:
            return 1, steps
        size = int(self.protocol.number(key, 0.0) or 0) if key else 0
        # Lines beyond the protocol's number (oversampling, partial Fourier) widen the matrix evenly.
        size = max(size, 2 * middle, 2 * (int(steps.max()) - middle + 1))
        return size, steps - middle + size // 2

    def samples(self, block: Any) -> np.ndarray:
        samples = np.asarray(block.data)
        if samples.dtype != np.complex64 or samples.ndim != 2:
            raise InputError(f"{self.name}: a readout is damaged; copy the file again")
        return samples

    def noise_scan(self, coils: int) -> np.ndarray | None:
        fitting = [np.asarray(b.data) for b in self.noise if int(b.mdh.UsedChannels) == coils]
        if self.noise and not fitting:
            self.remarks.append("the noise scan has other coils and is not used")
        return np.concatenate(fitting, axis=1) if fitting else None

    def number(self, key: str) -> float:
        """Of the protocol, 0 where it does not tell."""
        return self.protocol.number(key, 0.0) or 0.0

    # --- geometry

    def position(self, block: Any) -> np.ndarray:
        place = block.mdh.SliceData.SlicePos
        return np.array([place.Sag, place.Cor, place.Tra], dtype=float)

    def stack(self) -> tuple[np.ndarray, SliceStack]:
        """The place of each readout's slice along the normal, and the stack of slices."""
        numbers = np.array([int(b.mdh.Counter.Sli) for b in self.blocks])
        _, first, where = np.unique(numbers, return_index=True, return_inverse=True)
        slices = [self.blocks[n] for n in first]
        directions = np.stack([self.directions(b) for b in slices])
        stack = stacked(self.name, np.stack([self.position(b) for b in slices]), directions, self.guessed)
        return stack.order[where], stack

    def directions(self, block: Any) -> np.ndarray:
        """Unit vectors (LPS) of readout, phase and slice in the columns, from a readout's quaternion."""
        w, i, j, k = (float(q) for q in block.mdh.SliceData.Quaternion)
        if abs(w * w + i * i + j * j + k * k - 1) > 1e-2:
            return np.zeros((3, 3))
        phase = [w * w + i * i - j * j - k * k, 2 * (i * j + k * w), 2 * (i * k - j * w)]
        readout = [2 * (i * j - k * w), w * w - i * i + j * j - k * k, 2 * (j * k + i * w)]
        normal = [2 * (i * k + j * w), 2 * (j * k - i * w), w * w - i * i - j * j + k * k]
        return np.stack([-np.array(readout), -np.array(phase), np.array(normal)], axis=1)

    def _spacing(self, base: int, rows: int, partitions: int, apart_mm: float) -> tuple[float, float, float]:
        prefix = "sSliceArray.asSlice[0]."
        x, y, z = (self.protocol.number(prefix + key, 0.0) or 0.0 for key in ("dReadoutFOV", "dPhaseFOV", "dThickness"))
        resolution = self.protocol.number("sKSpace.dPhaseResolution", 1.0) or 1.0
        if min(x, y) <= 0:
            self.guessed.append("pixel spacing 1 x 1 mm (no field of view in the protocol)")
            x = y = 1.0
        else:
            x /= base
            y = x / resolution  # rows beyond those of the field of view are phase oversampling
        z = apart_mm or z / partitions
        if z <= 0:
            self.guessed.append("slice spacing 1 mm (no thickness in the protocol)")
            z = 1.0
        self.remarks.append(f"{rows} lines over {rows * y:.0f} mm along the phase encoding")
        return x, y, z


def _read(path: Path, **told: Any) -> KSpace:
    if not looks_like_twix(path):
        raise InputError(f"{path}: is no Siemens raw data; what wrote this file?")
    with np.errstate(over="ignore"):  # twixtools adds up what a damaged header says
        return read_twix(path, told_of(**told))


register(Format("Siemens twix", MR, (".dat",), _read, asks=("angles", "sequence", *ASKS[1:])))


def _marks(block: Any) -> Marks:
    cut = block.mdh.CutOff
    return Marks(int(cut.Pre), int(cut.Post), int(block.mdh.CenterCol), bool(block.is_flag_set("REFLECT")))
