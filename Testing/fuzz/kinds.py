"""One small valid file of every kind that we read, how it is read, and where it is best damaged."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import models
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.describe import describe_file
from DiffusionMBIRLib.formats import write
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.jobs.request import Request
from DiffusionMBIRLib.models import ModelCard
from DiffusionMBIRLib.priors.adm import ADMConfig, ADMUNet
from DiffusionMBIRLib.priors.checkpoints import load_prior, save_prior
from DiffusionMBIRLib.priors.ncsnpp import NCSNpp, NCSNppConfig
from DiffusionMBIRLib.scans import KSpace
from Testing.engine import kspace_files, scans
from Testing.engine.helpers import body
from Testing.engine.jobs_helpers import request, small_prior
from Testing.engine.published_files import score_sde
from Testing.engine.test_dicom import make_series
from Testing.fuzz.scanner_kinds import MAKERS

Damage = Callable[[bytes], bytes]


def whole(content: bytes, damage: Damage) -> bytes:
    """All of a file may be hit."""
    return damage(content)


def within_header(content: bytes, damage: Damage) -> bytes:
    """Of safetensors: the header, with a length that is right; else damage seldom gets past the first check."""
    (length,) = struct.unpack("<Q", content[:8])
    header = damage(content[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def within_members(content: bytes, damage: Damage) -> bytes:
    """Of a zip: all its members in one go, so that checksums are right again; what grows or shrinks is the last one."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    joined = damage(b"".join(members.values()))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for k, (name, member) in enumerate(members.items()):
            last = k + 1 == len(members)
            archive.writestr(name, joined if last else joined[: len(member)])
            joined = joined[len(member) :]
    return out.getvalue()


@dataclass(frozen=True)
class Kind:
    """make: writes the file into an empty folder and gives what is to be read: a file of it, or the folder.

    read: what a user does with it.  hit: the file to damage, of a folder; by default what is read.  where: which part.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any] = describe_file
    hit: Callable[[Path], Path] = lambda path: path
    where: Callable[[bytes, Damage], bytes] = whole


def _saved(thing: Callable[[], Any], name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write(thing(), folder / name)
        return folder / name

    return make


def _scan() -> Any:
    return mbir.simulate(body((2, 8, 8)), views=4, photons=1e4)


def _kspace() -> np.ndarray:
    return kspace_files.kspace_of(kspace_files.coil_images(1, 2, 16, 12))


def _mr() -> KSpace:
    return KSpace.zero_filled(_kspace(), Grid((1, 16, 12)), name="scan")


def _fastmri(folder: Path) -> Path:
    return kspace_files.write_fastmri(folder / "a.h5", _kspace(), xml=kspace_files.header(x=16, y=12, rx=16))


def _ismrmrd(folder: Path) -> Path:
    xml = kspace_files.header(x=12, y=16, rx=12)
    return kspace_files.write_ismrmrd(folder / "a.h5", kspace_files.readouts(_kspace()), xml=xml)


def _twix(folder: Path) -> Path:
    text = kspace_files.protocol(base=12, lines=16)
    return kspace_files.write_twix(folder / "a.dat", kspace_files.twix_lines(_kspace(), centre_line=8), text)


def _array(folder: Path) -> Path:
    np.save(folder / "a.npy", _kspace())
    entries = {"axes": ["slice", "coil", "row", "column"], "spacing_mm": [1.0, 1.5, 3.0], "noise_std": 0.1}
    (folder / "a.json").write_text(json.dumps(entries))
    return folder / "a.npy"


def _matlab(folder: Path) -> Path:
    from scipy import io as scipy_io

    scipy_io.savemat(folder / "a.mat", {"ksp": _kspace()[0]}, do_compression=False)
    (folder / "a.json").write_text(json.dumps({"axes": ["coil", "row", "column"]}))
    return folder / "a.mat"


def _network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "adm":
        return ADMUNet(ADMConfig(width=32, multipliers=(1,), attention_levels=(), head_channels=32))
    return NCSNpp(NCSNppConfig(width=8, multipliers=(1,), blocks=1))


def _published(kind: str) -> Callable[[Path], Path]:
    """A prior of ours with a published network."""

    def make(folder: Path) -> Path:
        network: Any = _network(kind)
        save_prior(
            network, ModelCard(id="a", modality="CT", network=network.config.to_dict()), folder / "a.safetensors"
        )
        return folder / "a.safetensors"

    return make


def _without_card(folder: Path) -> Path:
    save_file(_network("ncsnpp").state_dict(), str(folder / "a.safetensors"))
    return folder / "a.safetensors"


def _torch_file(kind: str) -> Callable[[Path], Path]:
    """A checkpoint as its makers write it."""

    def make(folder: Path) -> Path:
        network: Any = _network(kind)
        torch.save(network.state_dict() if kind == "adm" else score_sde(network, network), folder / "a.pt")
        return folder / "a.pt"

    return make


def _torch_pickle(folder: Path) -> Path:
    """Of torch before 1.6: no zip file."""
    weights = _network("ncsnpp").state_dict()
    torch.save(weights, folder / "a.pt", _use_new_zipfile_serialization=False)
    return folder / "a.pt"


_ANGLES = np.arange(0.0, 180.0, 15.0)


def _lines() -> np.ndarray:
    discs = ((0.0, 1.0, 5.0, 0.05),)
    return scans.lines_of(_ANGLES, rows=2, columns=16, axis=7.5, discs=discs)


def _exchange(folder: Path) -> Path:
    counts, flat, dark = scans.counted(_lines())
    with h5py.File(folder / "a.h5", "w") as file:
        fields = {"data": counts, "data_white": flat[None], "data_dark": dark[None], "theta": _ANGLES}
        for key, values in fields.items():
            file[f"exchange/{key}"] = values
    return folder / "a.h5"


def _tiffs(folder: Path) -> Path:
    return scans.write_folder(folder / "a", [f"{k:03}.tif" for k in range(len(_ANGLES))], _ANGLES, _lines())


def _sinogram(folder: Path) -> Path:
    scans.write_images(folder, ["a.tif"], [_lines()[:, 0]], np.float32)
    (folder / "angles.txt").write_text("\n".join(map(str, _ANGLES)))
    return folder / "a.tif"


def _dicom(folder: Path) -> Path:
    make_series(folder / "a")
    return folder / "a"


def _first(pattern: str) -> Callable[[Path], Path]:
    return lambda path: sorted(path.rglob(pattern))[0]


def _beside(name: str) -> Callable[[Path], Path]:
    return lambda path: path.with_name(name)


def _preset(folder: Path) -> Path:
    (folder / "Presets").mkdir()
    bundled = models.resources() / "Presets" / "sparse-view.toml"
    (folder / "Presets" / "own.toml").write_bytes(bundled.read_bytes())
    return folder / "Presets" / "own.toml"


def _read_preset(path: Path) -> Any:
    """In a process of its own: the folder of presets is another one for the moment."""
    bundled = models.resources
    models.resources = lambda: path.parent.parent
    try:
        return ReconSettings.preset(path.stem)
    finally:
        models.resources = bundled


def _job(folder: Path) -> Path:
    made = replace(request(folder), name="a job")
    (folder / "job.json").write_text(made.to_json())
    return folder / "job.json"


def _read_job(path: Path) -> Any:
    return Request.from_json(path.read_text(encoding="utf-8", errors="replace"), path)


KINDS = {
    "scan.h5": Kind(_saved(_scan, "a.h5")),
    "scan.npz": Kind(_saved(_scan, "a.npz")),
    "scan.npz, members": Kind(_saved(_scan, "a.npz"), where=within_members),
    "k-space.h5": Kind(_saved(_mr, "a.h5")),
    "k-space.npz, members": Kind(_saved(_mr, "a.npz"), where=within_members),
    "fastMRI": Kind(_fastmri),
    "ISMRMRD": Kind(_ismrmrd),
    "twix": Kind(_twix),
    "array": Kind(_array),
    "sidecar": Kind(_array, hit=_beside("a.json")),
    "MATLAB": Kind(_matlab),
    "Data Exchange": Kind(_exchange),
    "TIFF folder, view": Kind(_tiffs, hit=_first("views/*.tif")),
    "TIFF folder, angles": Kind(_tiffs, hit=_first("angles.txt")),
    "sinogram": Kind(_sinogram),
    "volume.nrrd": Kind(_saved(lambda: body((2, 8, 8)), "a.nrrd")),
    "volume.nii.gz": Kind(_saved(lambda: body((2, 8, 8)), "a.nii.gz")),
    "volume.nii": Kind(_saved(lambda: body((2, 8, 8)), "a.nii")),
    "volume.mha": Kind(_saved(lambda: body((2, 8, 8)), "a.mha")),
    "DICOM": Kind(_dicom, hit=_first("*.dcm")),
    "prior": Kind(small_prior, load_prior),
    "prior, header": Kind(small_prior, load_prior, where=within_header),
    "NCSN++, header": Kind(_published("ncsnpp"), load_prior, where=within_header),
    "ADM, header": Kind(_published("adm"), load_prior, where=within_header),
    "weights without card, header": Kind(_without_card, load_prior, where=within_header),
    "NCSN++ of torch": Kind(_torch_file("ncsnpp"), load_prior),
    "NCSN++ of torch, members": Kind(_torch_file("ncsnpp"), load_prior, where=within_members),
    "ADM of torch, members": Kind(_torch_file("adm"), load_prior, where=within_members),
    "weights of old torch": Kind(_torch_pickle, load_prior),
    "preset": Kind(_preset, _read_preset),
    "job.json": Kind(_job, _read_job),
}


def _hit_beside(pattern: str) -> Callable[[Path], Path]:
    """The file of a pattern in a file's folder; the file itself where there is no pattern."""
    return (lambda path: _first(pattern)(path.parent)) if pattern else (lambda path: path)


KINDS |= {name: Kind(make, hit=_hit_beside(pattern)) for name, (make, pattern) in MAKERS.items()}
