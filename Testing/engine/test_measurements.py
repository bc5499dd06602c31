"""Measurement files: round trip, foreign and damaged files, full disks."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
from dataclasses import replace

import h5py
import numpy as np
import pytest

from DiffusionMBIRLib.errors import EngineError, InputError
from DiffusionMBIRLib.formats import write
from DiffusionMBIRLib.geometry import Grid, ParallelBeam, axial_order
from DiffusionMBIRLib.io.scan_fields import FORMAT
from DiffusionMBIRLib.io.scans import read_scan
from DiffusionMBIRLib.provenance import alias
from DiffusionMBIRLib.scans import Measurement
from Testing.engine.helpers import rotation, run_with_file_limit

STORED = Grid((8, 3, 6), (0.5, 0.75, 2.0), (10.0, -20.0, 30.0), tuple(rotation((85, 3, -4)).reshape(-1)))


def make_measurement() -> Measurement:
    grid = axial_order(STORED).apply_to_grid(STORED)
    beam = ParallelBeam((0.0, 30.5, 100.0), 11, 0.6, -0.25)
    data = np.random.default_rng(0).normal(size=beam.data_shape(grid.shape[0])).astype(np.float32)
    return Measurement(
        data,
        beam,
        grid,
        task="limited-angle-ct",
        stored_grid=STORED,
        mu_water_per_mm=0.02,
        photons=1e5,
        electronic_noise=3.5,
        provenance={"seed": 7, "settings": {"views": 3}, "maps": "Größe"},
    )


@pytest.fixture
def path(tmp_path):
    """A good measurement file, to be damaged."""
    target = tmp_path / "scan.h5"
    write(make_measurement(), target)
    return target


def refusal(path) -> str:
    """The message with which a file is refused: one line that names it."""
    with pytest.raises(InputError, match=re.escape(str(path))) as caught:
        read_scan(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "")


def test_round_trip_keeps_everything(path):
    made, read = make_measurement(), read_scan(path)
    assert np.array_equal(read.data, made.data)
    assert read.data.dtype == np.float32
    for field in ("geometry", "grid", "stored_grid", "task", "mu_water_per_mm", "photons", "electronic_noise"):
        assert getattr(read, field) == getattr(made, field)
    assert read.provenance == made.provenance
    assert [p.name for p in path.parent.iterdir()] == ["scan.h5"]


def test_known_bounds_are_kept(tmp_path):
    made = make_measurement()
    most = np.full((1, *made.grid.in_plane), 0.04, np.float32)
    bounded = replace(made, most_per_mm=most, least_per_mm=most / 2)
    write(bounded, tmp_path / "scan.h5")
    assert np.array_equal(read_scan(tmp_path / "scan.h5").most_per_mm, most)
    assert np.array_equal(read_scan(tmp_path / "scan.h5").least_per_mm, most / 2)
    with pytest.raises(InputError, match="least_per_mm is above most_per_mm"):
        replace(bounded, least_per_mm=2 * most)
    for wrong, said in ((most[:, 1:], "does not spread over the grid"), (-most, "must be 0 or positive")):
        with pytest.raises(InputError, match=said):
            replace(made, most_per_mm=wrong)


def test_same_measurement_same_bytes(path, tmp_path):
    write(make_measurement(), tmp_path / "again.hdf5")
    assert (tmp_path / "again.hdf5").read_bytes() == path.read_bytes()


def test_provenance_is_written_without_folders(tmp_path):
    made = make_measurement()
    made.provenance["source"] = "/home/somebody/case.nrrd"
    write(made, tmp_path / "scan.h5")
    assert read_scan(tmp_path / "scan.h5").provenance["source"] == alias("case.nrrd")


@pytest.mark.parametrize(("named", "version"), [(FORMAT, 2), ("DiffusionMBIR measurement", 1)])
def test_a_file_by_another_program_needs_little(tmp_path, named, version):
    path = tmp_path / "theirs.h5"
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["version"] = np.bytes_(named), float(version)
        if named == FORMAT:
            file.attrs["kind"] = "ct"
        file["data"] = np.ones((2, 3, 5), ">f8")
        geometry = file.create_group("geometry")
        geometry.attrs.update(kind=np.bytes_("parallel-beam"), columns=np.int16(5), pitch_mm=1)
        geometry["angles_deg"] = np.array([0, 60, 120])
        grid = file.create_group("grid")
        grid.attrs.update(shape=[2, 4, 4], spacing_mm=[1, 1, 1], origin_mm=[0, 0, 0], direction=np.eye(3).reshape(-1))
    read = read_scan(path)
    assert read.geometry == ParallelBeam((0.0, 60.0, 120.0), 5, 1.0)
    assert read.data.dtype == np.dtype("float32")
    assert read.stored_grid is None
    assert (read.photons, read.task, read.provenance) == (0.0, "sparse-view-ct", {})


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_file_is_refused(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "truncated" in refusal(path)


def test_flipped_bytes_are_refused_or_harmless(path):
    whole = path.read_bytes()
    for seed in range(60):
        damaged = bytearray(whole)
        generator = np.random.default_rng(seed)
        for at in generator.integers(0, len(whole), 8):
            damaged[at] = generator.integers(0, 256)
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(InputError, EngineError):  # and no other exception
            read_scan(path)


@pytest.mark.parametrize("content", [b"a letter to a friend", pickle.dumps({"data": [1, 2]}), b"\x93NUMPY\x01\x00"])
def test_foreign_files_are_refused(tmp_path, content):
    (tmp_path / "scan.h5").write_bytes(content)
    assert "HDF5" in refusal(tmp_path / "scan.h5")


def test_missing_file_and_foreign_hdf5(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["entry/data"] = np.zeros((2, 2))
    assert "no scan" in refusal(tmp_path / "other.h5")


@pytest.mark.parametrize("name", ["data", "geometry", "geometry/angles_deg", "grid"])
def test_missing_datasets_are_named(path, name):
    with h5py.File(path, "a") as file:
        del file[name]
    lacking = {"data": "dataset data", "geometry/angles_deg": "field 'angles_deg'"}.get(name, f"group {name}")
    assert f"lacks the {lacking}" in refusal(path)


@pytest.mark.parametrize(
    ("owner", "key"),
    [("geometry", "kind"), ("geometry", "columns"), ("geometry", "pitch_mm"), ("grid", "shape"), ("grid", "direction")],
)
def test_missing_attributes_are_named(path, owner, key):
    with h5py.File(path, "a") as file:
        del file[owner].attrs[key]
    assert ("lacks the field grid." + key if owner == "grid" else f"geometry lacks the field '{key}'") in refusal(path)


@pytest.mark.parametrize(
    ("owner", "key", "value", "words"),
    [
        ("/", "version", 3, "update this software"),
        ("/", "version", 0.5, "version"),
        ("/", "version", "one", "version"),
        ("/", "photons", -1.0, "photons"),
        ("/", "photons", np.nan, "photons"),
        ("/", "photons", "many", "photons"),
        ("/", "photons", [1.0, 2.0], "photons"),
        ("/", "photons", h5py.Empty("f"), "photons"),
        ("/", "mu_water_per_mm", 0.0, "mu_water_per_mm"),
        ("/", "task", "mri", "task"),
        ("geometry", "kind", "magic-beam", "geometry.kind"),
        ("geometry", "columns", 10, "detector columns"),
        ("geometry", "columns", "wide", "geometry.columns"),
        ("geometry", "pitch_mm", 0.0, "geometry.pitch_mm"),
        ("grid", "shape", [2, 2], "grid.shape"),
        ("grid", "spacing_mm", "thin", "grid.spacing_mm"),
        ("grid", "spacing_mm", 1.0, "grid"),
        ("stored_grid", "shape", [3, 8, 7], "stored_grid"),
        ("stored_grid", "origin_mm", [0, 0, np.nan], "stored_grid"),
    ],
)
def test_senseless_fields_are_named(path, owner, key, value, words):
    with h5py.File(path, "a") as file:
        del file[owner].attrs[key]
        file[owner].attrs[key] = value
    assert words in refusal(path)


def replaced(path, name, value) -> str:
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = value
    return refusal(path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("data", np.zeros((3, 11), np.float32), "2 axes"),
        ("data", np.zeros((5, 3, 11), np.float32), "slices"),
        ("data", np.zeros((3, 4, 11), np.float32), "angles"),
        ("data", np.zeros((3, 3, 12), np.float32), "detector columns"),
        ("data", np.zeros((3, 3, 11), np.complex64), "complex64"),
        ("data", np.full((3, 3, 11), np.nan, np.float32), "99 of 99 values are NaN"),
        ("data", np.full((3, 3, 11), 1e300), "99 of 99 values are NaN or infinite"),
        ("data", "text", "real numbers"),
        ("geometry/angles_deg", np.zeros(2), "angles"),
        ("geometry/angles_deg", np.zeros((3, 1)), "angles_deg must hold numbers"),
        ("geometry/angles_deg", np.zeros(0), "angles_deg"),
        ("geometry/angles_deg", np.array([0.0, np.nan, 2.0]), "angles_deg"),
        ("provenance", "{not json", "provenance"),
        ("provenance", "[1, 2]", "provenance"),
        ("provenance", 3.0, "provenance"),
    ],
)
def test_senseless_datasets_are_named(path, name, value, words):
    assert words in replaced(path, name, value)


def test_objects_and_groups_are_no_data(path):
    with h5py.File(path, "a") as file:
        del file["data"]
        file.create_dataset("data", (3,), dtype=h5py.vlen_dtype(np.float32))
    assert "object" in refusal(path)
    with h5py.File(path, "a") as file:
        del file["data"]
        file.create_group("data")
    assert "must be a dataset" in refusal(path)


def test_links_to_other_files_are_not_followed(path):
    other = path.with_name("other.h5")
    with h5py.File(other, "w") as file:
        file["data"] = make_measurement().data
    with h5py.File(path, "a") as file:
        del file["data"]
        file["data"] = h5py.ExternalLink(str(other), "data")
    assert "another file" in refusal(path)
    with h5py.File(path, "a") as file:
        del file["data"]
        file.create_dataset("data", (3, 3, 11), "f4", external=[(str(other), 0, h5py.h5f.UNLIMITED)])
    assert "another file" in refusal(path)


def test_a_huge_announcement_is_refused_before_it_is_read(path):
    with h5py.File(path, "a") as file:
        del file["data"]
        file.create_dataset("data", (1 << 40, 3, 11), "f4", chunks=(1, 3, 11))
    assert "announces" in refusal(path)


def test_writing_names_what_is_wrong(tmp_path):
    for name, words in (("scan.nrrd", "h5"), ("none/scan.h5", "folder")):
        with pytest.raises(InputError, match=words):
            write(make_measurement(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_full_disk_leaves_the_old_file_alone(path):
    whole = path.read_bytes()
    code = (
        "from DiffusionMBIRLib.errors import EngineError\n"
        "from DiffusionMBIRLib.io.scans import read_scan\n"
        "from DiffusionMBIRLib.formats import write\n"
        f"measurement = read_scan({str(path)!r})\n"
        f"try:\n    write(measurement, {str(path)!r})\n"
        "except EngineError as error:\n    print(error)\n"
    )
    message = run_with_file_limit(code, len(whole) - 1)
    assert str(path) in message
    assert "disk full" in message
    assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == ["scan.h5"]


def test_provenance_is_plain_json(path):
    with h5py.File(path) as file:
        assert json.loads(file["provenance"].asstr()[()])["maps"] == "Größe"
