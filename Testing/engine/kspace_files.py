"""Small k-space files of every kind, made from one known object, so that a shift or a flip by one voxel shows."""

from __future__ import annotations

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.io.scans import read_scan
from DiffusionMBIRLib.sensitivity import centred_fft

SLICES, COILS, ROWS, COLUMNS = 3, 4, 48, 40
OVERSAMPLING = 2
HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <subjectInformation><patientName>Nobody</patientName></subjectInformation>
  <encoding>
    <trajectory>{trajectory}</trajectory>
    <encodedSpace>
      <matrixSize><x>{x}</x><y>{y}</y><z>{z}</z></matrixSize>
      <fieldOfView_mm><x>{fx}</x><y>{fy}</y><z>{fz}</z></fieldOfView_mm>
    </encodedSpace>
    <reconSpace>
      <matrixSize><x>{rx}</x><y>{y}</y><z>{z}</z></matrixSize>
      <fieldOfView_mm><x>{frx}</x><y>{fy}</y><z>{fz}</z></fieldOfView_mm>
    </reconSpace>
    <encodingLimits>
      <kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum><center>{cy}</center></kspace_encoding_step_1>
      <kspace_encoding_step_2><minimum>0</minimum><maximum>{lastz}</maximum><center>{cz}</center></kspace_encoding_step_2>
    </encodingLimits>
    <parallelImaging><calibrationMode>{calibration}</calibrationMode></parallelImaging>
  </encoding>
</ismrmrdHeader>"""


def header(
    x=COLUMNS * OVERSAMPLING, y=ROWS, z=1, rx=COLUMNS, spacing=(1.5, 2.0, 4.0), trajectory="cartesian", **others
) -> str:
    """An ISMRMRD header of a readout of x samples, rx of them wanted, y lines and z partitions."""
    sx, sy, sz = spacing
    values = {"x": x, "y": y, "z": z, "rx": rx, "fx": x * sx, "frx": rx * sx, "fy": y * sy, "fz": z * sz}
    values |= {"last": y - 1, "lastz": z - 1, "cy": y // 2, "cz": z // 2, "calibration": "other"}
    return HEADER.format(**{**values, "trajectory": trajectory, **others})


def coil_images(slices=SLICES, coils=COILS, rows=ROWS, columns=COLUMNS) -> np.ndarray:
    """Complex images (slices, coils, rows, columns) of an object without symmetry, seen by smooth coils."""
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    angles = 2 * np.pi * np.arange(coils) / coils
    seen = np.stack(
        [np.exp(-((x - np.cos(a)) ** 2 + (y - np.sin(a)) ** 2) / 2 + 1j * (a + x * np.sin(a))) for a in angles]
    )
    images = []
    for k in range(slices):
        disc = 1 / (1 + np.exp(25 * (np.hypot((x + 0.1) / 0.75, (y - 0.05) / 0.8) - 1)))
        spots = 2 * np.exp(-(((x - 0.3) / 0.1) ** 2) - ((y + 0.35 - 0.05 * k) / 0.15) ** 2)
        images.append((disc + spots * (1 + 0.2 * k)) * np.exp(0.5j * (x + y * y)))
    return (np.stack(images)[:, None] * seen).astype(np.complex64)


def kspace_of(images: np.ndarray) -> np.ndarray:
    return centred_fft(images).astype(np.complex64)


def oversampled(images: np.ndarray, axis: int = -1, factor: int = OVERSAMPLING) -> np.ndarray:
    """K-space of the images in a field of view that is ``factor`` times as wide."""
    n = images.shape[axis]
    wide = np.zeros([n * factor if k == images.ndim + axis else s for k, s in enumerate(images.shape)], images.dtype)
    first = n * factor // 2 - n // 2
    np.moveaxis(wide, axis, -1)[..., first : first + n] = np.moveaxis(images, axis, -1)
    return kspace_of(wide)


# --- fastMRI


def write_fastmri(path: Path, kspace: np.ndarray, *, xml: str | None = None, mask=None) -> Path:
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        file.attrs["patient_id"] = "nobody"
        if xml is not None:
            file["ismrmrd_header"] = xml
        if mask is not None:
            file["mask"] = mask
    return path


# --- ISMRMRD

_IDX: list[tuple] = [
    (n, "<u2") for n in ("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast", "phase")
]
_IDX += [("repetition", "<u2"), ("set", "<u2"), ("segment", "<u2"), ("user", "<u2", (8,))]
_COUNTERS = [entry[0] for entry in _IDX]
_HEAD = np.dtype(
    [("version", "<u2"), ("flags", "<u8"), ("measurement_uid", "<u4"), ("scan_counter", "<u4")]
    + [("acquisition_time_stamp", "<u4"), ("physiology_time_stamp", "<u4", (3,)), ("number_of_samples", "<u2")]
    + [("available_channels", "<u2"), ("active_channels", "<u2"), ("channel_mask", "<u8", (16,))]
    + [("discard_pre", "<u2"), ("discard_post", "<u2"), ("center_sample", "<u2"), ("encoding_space_ref", "<u2")]
    + [
        ("trajectory_dimensions", "<u2"),
        ("sample_time_us", "<f4"),
        ("position", "<f4", (3,)),
        ("read_dir", "<f4", (3,)),
    ]
    + [("phase_dir", "<f4", (3,)), ("slice_dir", "<f4", (3,)), ("patient_table_position", "<f4", (3,))]
    + [("idx", _IDX), ("user_int", "<i4", (8,)), ("user_float", "<f4", (8,))]
)


def readout(samples: np.ndarray, *, line=0, part=0, where=0, flags=0, position=None, traj=None, **others):
    """(head, trajectory, data) of one readout (coils, samples); others are fields of the head or counters."""
    head = np.zeros((), _HEAD)
    head["version"], head["flags"] = 1, flags
    head["active_channels"], head["number_of_samples"] = samples.shape
    head["available_channels"], head["center_sample"], head["sample_time_us"] = (
        samples.shape[0],
        samples.shape[1] // 2,
        5,
    )
    head["read_dir"], head["phase_dir"], head["slice_dir"] = np.eye(3)
    head["position"] = (10, 20, 30 + 5 * where) if position is None else position
    head["idx"]["kspace_encode_step_1"], head["idx"]["kspace_encode_step_2"], head["idx"]["slice"] = line, part, where
    path = np.zeros(0, np.float32)
    if traj is not None:
        head["trajectory_dimensions"], path = traj.shape[1], traj.astype(np.float32).ravel()
    for key, value in others.items():
        (head["idx"] if key in _COUNTERS else head)[key] = value
    return head, path, np.ascontiguousarray(samples, np.complex64).view(np.float32).ravel()


def readouts(kspace: np.ndarray, lines=None, **others) -> list:
    """Readouts of (slices, coils, rows, columns), all lines or those given."""
    lines = range(kspace.shape[2]) if lines is None else lines
    return [readout(kspace[s, :, r], line=r, where=s, **others) for s in range(len(kspace)) for r in lines]


def write_ismrmrd(path: Path, acquisitions: list, *, xml: str | None = None) -> Path:
    kind = h5py.vlen_dtype(np.float32)
    table = np.empty(len(acquisitions), np.dtype([("head", _HEAD), ("traj", kind), ("data", kind)]))
    for n, acquisition in enumerate(acquisitions):
        table[n]["head"], table[n]["traj"], table[n]["data"] = acquisition
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset/data", data=table, maxshape=(None,), chunks=(16,))
        text = h5py.string_dtype()
        file.create_dataset("dataset/xml", data=np.array([xml if xml is not None else header()], object), dtype=text)
    return path


# --- Siemens twix, as the software lines VD and VE write it

PROTOCOL = """### ASCCONV BEGIN object=MrProtDataImpl ###
tPatientName = "nobody"
sSliceArray.asSlice[0].dThickness = 4.0
sSliceArray.asSlice[0].dPhaseFOV = {phase}
sSliceArray.asSlice[0].dReadoutFOV = {read}
sKSpace.dPhaseResolution = {resolution}
sKSpace.lBaseResolution = {base}
sKSpace.lPhaseEncodingLines = {lines}
sKSpace.ucDimension = {dimension}
sKSpace.lPartitions = {partitions}
sKSpace.ucTrajectory = {trajectory}
### ASCCONV END ###
"""


def protocol(**others) -> str:
    values = {"phase": 96.0, "read": 60.0, "resolution": 0.75, "base": COLUMNS, "lines": ROWS, "dimension": 2}
    return PROTOCOL.format(**{**values, "partitions": 1, "trajectory": 1, **others})


def twix_block(
    samples: np.ndarray,
    *,
    line=0,
    where=0,
    flags=(),
    centre_line=ROWS // 2,
    average=0,
    end=False,
    centre=None,
    turned=(1.0, 0.0, 0.0, 0.0),
) -> bytes:
    """One readout (coils, samples), or the mark of the end, in the layout that twixtools declares.

    centre: the sample of the lowest frequency.  turned: the slice's orientation as a quaternion.
    """
    import ctypes

    from twixtools import mdh_def

    head = mdh_def.Scan_header()
    coils, count = samples.shape
    head.SamplesInScan, head.UsedChannels, head.CenterCol, head.CenterLin = count, coils, count // 2, centre_line
    head.CenterCol = count // 2 if centre is None else centre
    head.Counter.Lin, head.Counter.Sli, head.Counter.Ave = line, where, average
    position = head.SliceData.SlicePos
    position.Sag, position.Cor, position.Tra = 1.0, 2.0, 3.0 + 5.0 * where
    for k, q in enumerate(turned):
        head.SliceData.Quaternion[k] = q
    for flag in (*flags, *(["ACQEND"] if end else [])):
        mdh_def.set_flag(head, flag, True)
    channel = bytes(ctypes.sizeof(mdh_def.Channel_header))
    size = ctypes.sizeof(mdh_def.Scan_header) + coils * (len(channel) + 8 * count)
    mdh_def.set_dma_len(head, size)
    return bytes(head) + b"".join(channel + row.astype(np.complex64).tobytes() for row in samples)


def twix_lines(kspace: np.ndarray, lines=None, **others) -> list[bytes]:
    lines = range(kspace.shape[2]) if lines is None else lines
    return [twix_block(kspace[s, :, r], line=r, where=s, **others) for s in range(len(kspace)) for r in lines]


def write_twix(path: Path, blocks: list[bytes], text: str | None = None) -> Path:
    end = twix_block(np.zeros((1, 16)), end=True)
    body = (text if text is not None else protocol()).encode("latin-1")
    head = struct.pack("<II", len(body) + 16, 1) + bytes(8) + body
    measurement = head + b"".join(blocks) + end + bytes(256)
    table = struct.pack("<II", 0, 1) + struct.pack("<IIQQ128x", 1, 1, 10240, len(measurement))
    path.write_bytes(table.ljust(10240, b"\0") + measurement)
    return path


# --- what the tests of all formats share

IMAGES = coil_images()
KSPACE = kspace_of(IMAGES)
LINES = [r for r in range(ROWS) if r % 3 == 0 or abs(r - ROWS // 2) < 5]  # a third, and a middle without gaps


def refusal(path: Path) -> str:
    """The one line that reading the file ends in; it names the file."""
    with pytest.raises(InputError) as caught:
        read_scan(path)
    text = str(caught.value)
    assert "\n" not in text
    assert path.stem in text
    return text.replace(str(path), "")


def assert_same(found: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-5) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()
