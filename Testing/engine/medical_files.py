"""Synthetic DICOM-CT-PD, NXtomo and Zeiss files, written by their published descriptions."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np

from Testing.engine.ray_files import BALLS, BEAM, COLUMNS, PITCH, ROWS, SDD, SOD, chords, counts_of, expected

WATER = 0.02


def write_ct_pd(
    folder: Path, views: int = 48, *, turns: float = 1.0, travel: float = 0.0, flying: bool = False,
    rows: int = ROWS, columns: int = COLUMNS, balls: np.ndarray = BALLS, photons: np.ndarray | None = None,
    shape: str = "CYLINDRICAL", sod: float = SOD, sdd: float = SDD, pitch: float = PITCH,
) -> Path:  # fmt: skip
    """By the dictionary: x = -rho sin(phi), y = rho cos(phi); columns towards larger angles from the focal centre.

    flying: the source jumps by +- 0.01 rad, 0.3 mm outwards and 0.4 mm along z from view to view.
    """
    folder.mkdir(parents=True, exist_ok=True)
    middle = (columns / 2 + 0.25, (rows + 1) / 2)  # column and row, from 1
    fan = (np.arange(columns) + 1 - middle[0]) * pitch / sdd
    up = (np.arange(rows) + 1 - middle[1]) * pitch
    for k in range(views):
        phi, z = 2 * np.pi * turns * k / views, travel * (turns * k / views - turns / 2)
        spot = np.array([0.01, 0.3, 0.4]) * (1 if k % 2 else -1) if flying else np.zeros(3)
        focal = np.array([-sod * np.sin(phi), sod * np.cos(phi), z])
        radius, angle = sod + spot[1], phi + spot[0]
        source = np.array([-radius * np.sin(angle), radius * np.cos(angle), z + spot[2]])
        if shape == "CYLINDRICAL":
            turned = phi + fan
            points = focal + sdd * np.stack([np.sin(turned), -np.cos(turned), 0 * fan], axis=1)
        else:
            along = np.array([np.cos(phi), np.sin(phi), 0])
            ahead = np.array([np.sin(phi), -np.cos(phi), 0])
            points = focal + sdd * ahead + (fan * sdd)[:, None] * along
        points = points[None] + up[:, None, None] * np.array([0, 0, 1.0])
        tags = {"place": (phi, z, sod), "spot": spot, "middle": middle, "photons": photons}
        _write_view(folder / f"{views - k:05}.dcm", k + 1, chords(source, points, balls), tags, shape, sdd, pitch)
    return folder


def _write_view(path: Path, number: int, lines: np.ndarray, tags: dict, shape: str, sdd: float, pitch: float) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    slope = 1e-4
    ds.InstanceNumber, ds.RescaleSlope, ds.RescaleIntercept = number, slope, -0.5
    ds.Rows, ds.Columns = lines.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelData = np.rint((lines + 0.5) / slope).astype("<u2").tobytes()
    phi, z, rho = tags["place"]
    floats = {
        (0x7029, 0x1002): pitch, (0x7029, 0x1006): pitch, (0x7031, 0x1001): phi, (0x7031, 0x1002): z,
        (0x7031, 0x1003): rho, (0x7031, 0x1031): sdd, (0x7031, 0x1033): list(tags["middle"]),
        (0x7033, 0x100B): tags["spot"][0], (0x7033, 0x100C): tags["spot"][1], (0x7033, 0x100D): tags["spot"][2],
        (0x7041, 0x1001): WATER,
    }  # fmt: skip
    if tags["photons"] is not None:
        floats[(0x7033, 0x1065)] = [float(p) for p in tags["photons"]]
    for tag, value in floats.items():
        ds.add_new(tag, "FL", value)
    ds.add_new((0x7029, 0x100B), "CS", shape)
    ds.add_new((0x7029, 0x1010), "US", lines.shape[0])
    ds.add_new((0x7029, 0x1011), "US", lines.shape[1])
    ds.save_as(path, enforce_file_format=True)


def write_nxtomo(path: Path, geometry, *, drift: float = 0.0, linked: str = "", virtual: bool = False) -> np.ndarray:
    """Two flat images before and after the views, a dark one first; linked: the frames lie in that file.

    drift: by which the beam has grown at the end.  Gives the line integrals (rows, views, columns).
    """
    lines = np.repeat(expected(geometry), 3, axis=0)
    views = lines.swapaxes(0, 1)
    beam = BEAM * (1 + drift * np.arange(len(views)) / len(views))[:, None, None]
    flat = np.full((2, *views.shape[1:]), BEAM)
    frames = np.concatenate([np.full((1, *views.shape[1:]), 100.0), flat + 100, beam * np.exp(-views) + 100])
    frames = np.concatenate([frames, flat * (1 + drift) + 100]).astype(np.uint16)
    angles = np.concatenate([np.zeros(3), geometry.angles_deg, np.full(2, geometry.angles_deg[-1])])
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry1/tomo_entry")
        if linked:
            with h5py.File(path.parent / linked, "w") as other:
                other["stored"] = frames
                layout = h5py.VirtualLayout(frames.shape, frames.dtype)
                layout[:] = h5py.VirtualSource(other["stored"])
                if virtual:
                    other.create_virtual_dataset("frames", layout)
                else:
                    other["frames"] = h5py.SoftLink("/stored")
            entry["instrument/detector/data"] = h5py.ExternalLink(linked, "frames")
        else:
            entry["instrument/detector/data"] = frames
        entry["instrument/detector/image_key"] = np.array([2, 1, 1, *[0] * len(views), 1, 1])
        entry["instrument/detector/x_pixel_size"] = geometry.pitch_mm * 1000
        entry["instrument/detector/x_pixel_size"].attrs["units"] = "um"
        entry["sample/rotation_angle"] = angles
        entry["sample/rotation_angle"].attrs["units"] = "degree"
    return lines


def write_txrm(path: Path, geometry) -> np.ndarray:
    """A cone beam with its reference image; gives the line integrals (rows, views, columns)."""
    lines = expected(geometry)
    rows, views, columns = lines.shape
    numbers = {
        "ImageInfo/NoOfImages": struct.pack("<i", views), "ImageInfo/ImageHeight": struct.pack("<i", rows),
        "ImageInfo/ImageWidth": struct.pack("<i", columns), "ImageInfo/DataType": struct.pack("<i", 5),
        "ImageInfo/XrayGeometry": struct.pack("<i", 1),
        "ImageInfo/PixelSize": struct.pack("<f", PITCH * SOD / SDD * 1000),
        "ImageInfo/StoRADistance": struct.pack("<f", -SOD), "ImageInfo/DtoRADistance": struct.pack("<f", SDD - SOD),
        "ImageInfo/Angles": np.asarray(geometry.angles_deg, "<f4").tobytes(),
        "ReferenceData/Image": np.full((rows, columns), BEAM, "<f4").tobytes(),
    }  # fmt: skip
    for k in range(views):
        numbers[f"ImageData{k // 100 + 1}/Image{k + 1}"] = counts_of(lines[::-1, k]).astype("<u2").tobytes()
    path.write_bytes(_compound_file(numbers))
    return lines


def _compound_file(streams: dict[str, bytes]) -> bytes:
    """A Compound File (OLE) of streams in folders one deep, each padded so that it needs no small sectors."""
    free, end, none, table = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD
    names: list[tuple[str, int, bytes | None, int]] = [("Root Entry", 5, None, none)]
    folders = list(dict.fromkeys(name.split("/")[0] for name in streams))
    inside: dict[int, list[int]] = {}
    for folder in folders:
        names.append((folder, 1, None, none))
        inside.setdefault(0, []).append(len(names) - 1)
    for k, folder in enumerate(folders, 1):
        for name, content in streams.items():
            if name.startswith(f"{folder}/"):
                names.append((name.split("/")[1], 2, content.ljust(4096, b"\0"), none))
                inside.setdefault(k, []).append(len(names) - 1)
    right: dict[int, int] = {}
    child: dict[int, int] = {}
    for parent, children in inside.items():  # a chain to the right, in the order of length and name
        ordered = sorted(children, key=lambda n: (len(names[n][0]), names[n][0].upper()))
        child[parent] = ordered[0]
        right |= dict(pairwise(ordered))
    directory_sectors = -(-len(names) * 128 // 512)
    sizes = [-(-len(content) // 512) if content else 0 for _, _, content, _ in names]
    used = directory_sectors + sum(sizes)
    table_sectors = 1
    while table_sectors * 128 < used + table_sectors:
        table_sectors += 1
    chain = [table] * table_sectors

    def run(length: int) -> int:
        first = len(chain)
        chain.extend([*range(first + 1, first + length), end])
        return first

    directory_at = run(directory_sectors)
    starts = [run(n) if n else end for n in sizes]
    chain += [free] * (table_sectors * 128 - len(chain))
    header = bytes.fromhex("D0CF11E0A1B11AE1") + b"\0" * 16 + struct.pack("<HHHHH", 62, 3, 0xFFFE, 9, 6) + b"\0" * 6
    header += struct.pack("<IIIIIIIII", 0, table_sectors, directory_at, 0, 4096, end, 0, end, 0)
    header += struct.pack("<109I", *range(table_sectors), *[free] * (109 - table_sectors))
    directory = b""
    for k, (name, kind, held, _) in enumerate(names):
        text = name.encode("utf-16-le") + b"\0\0"
        directory += text.ljust(64, b"\0") + struct.pack("<HBB", len(text), kind, 1)
        directory += struct.pack("<III", none, right.get(k, none), child.get(k, none)) + b"\0" * 36
        directory += struct.pack("<IQ", starts[k] if kind == 2 else (end if kind == 5 else 0), len(held or b""))
    body = struct.pack(f"<{len(chain)}I", *chain) + directory.ljust(directory_sectors * 512, b"\0")
    return (
        header + body + b"".join((entry[2] or b"").ljust(n * 512, b"\0") for entry, n in zip(names, sizes, strict=True))
    )
