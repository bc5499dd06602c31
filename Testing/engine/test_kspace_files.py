"""K-space in HDF5 files, ours and fastMRI's: what is read was measured, and bad files end in one clear line."""

from __future__ import annotations

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import cli
from DiffusionMBIRLib.describe import describe_scan
from DiffusionMBIRLib.formats import write
from DiffusionMBIRLib.geometry import CartesianMRI, Grid
from DiffusionMBIRLib.io.scans import read_scan
from DiffusionMBIRLib.scans import KSpace
from Testing.engine.helpers import ROOT
from Testing.engine.kspace_files import (
    COILS,
    COLUMNS,
    IMAGES,
    KSPACE,
    LINES,
    OVERSAMPLING,
    ROWS,
    SLICES,
    assert_same,
    header,
    oversampled,
    refusal,
    write_fastmri,
)

# --- our own file


def small_kspace(**others) -> KSpace:
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[LINES] = True
    grid = Grid((SLICES, ROWS, COLUMNS), (1.5, 2.0, 4.0), (1.0, 2.0, 3.0))
    return KSpace(KSPACE * mask, CartesianMRI(mask, COILS), grid, provenance={"source": "a test"}, **others)


def test_own_file_keeps_everything(tmp_path):
    maps = np.full((1, COILS, ROWS, COLUMNS), 0.5 + 0.5j, np.complex64)
    made = small_kspace(maps=maps, noise_std=0.25, stored_grid=Grid((SLICES, ROWS, COLUMNS)))
    mbir.write(made, tmp_path / "scan.h5")
    read = mbir.read(tmp_path / "scan.h5")
    np.testing.assert_array_equal(read.data, made.data)
    np.testing.assert_array_equal(read.maps, maps)
    assert read.geometry == made.geometry
    assert (read.grid, read.stored_grid, read.noise_std) == (made.grid, made.stored_grid, 0.25)
    assert read.provenance == {"source": "a test"}


def test_own_file_is_checked(tmp_path):
    path = tmp_path / "scan.h5"

    def damaged(change) -> str:
        write(small_kspace(), path)
        with h5py.File(path, "r+") as file:
            change(file)
        return refusal(path)

    def replaced(name, values):
        def change(file):
            del file[name]
            if values is not None:
                file[name] = values

        return change

    assert "lacks the field 'mask'" in damaged(replaced("geometry/mask", None))
    assert "columns" in damaged(replaced("geometry/mask", np.ones((ROWS, COLUMNS + 1))))
    assert "complex" in damaged(replaced("data", np.ones((SLICES, COILS, ROWS, COLUMNS))))
    assert "(slices, coils, rows, columns)" in damaged(replaced("data", KSPACE[0]))
    assert "NaN" in damaged(replaced("data", np.where(small_kspace().data != 0, np.nan, 0).astype(np.complex64)))
    assert "nothing was sampled" in damaged(replaced("data", KSPACE))
    assert "newer" in damaged(lambda file: file.attrs.update(version=9))
    assert "lacks the group grid" in damaged(replaced("grid", None))
    path.write_bytes(path.read_bytes()[:2000])
    assert "truncated" in refusal(path)
    with pytest.raises(mbir.InputError, match="named"):
        write(small_kspace(), tmp_path / "scan.npy")


def test_wider_numbers_become_complex64(tmp_path):
    path = tmp_path / "wide.h5"
    write(small_kspace(), path)
    with h5py.File(path, "r+") as file:
        del file["data"]
        file["data"] = small_kspace().data.astype(np.complex128)
    assert read_scan(path).data.dtype == np.complex64


# --- fastMRI: rows are the readout


def test_fastmri_multi_coil_with_header(tmp_path):
    data = oversampled(IMAGES, axis=-2)
    xml = header(x=ROWS * OVERSAMPLING, y=COLUMNS, rx=ROWS, spacing=(2.0, 1.5, 4.0))
    read = read_scan(write_fastmri(tmp_path / "f.h5", data, xml=xml))
    assert_same(read.data, KSPACE)
    assert read.geometry.acceleration == 1
    assert read.grid.spacing_mm == pytest.approx((1.5, 2.0, 4.0))
    about = describe_scan(read)
    assert (about["format"], about["readout_oversampling"], about["oversampling_removed"]) == (
        "fastMRI HDF5",
        2.0,
        True,
    )


def test_fastmri_mask_and_single_coil(tmp_path):
    mask = np.zeros(COLUMNS, bool)
    mask[::4] = mask[COLUMNS // 2 - 4 : COLUMNS // 2 + 4] = True
    for shape in ((COLUMNS,), (1, 1, COLUMNS, 1)):
        read = read_scan(write_fastmri(tmp_path / "f.h5", KSPACE[:, 0] * mask, mask=mask.astype("f4").reshape(shape)))
        assert read.geometry.coils == 1
        assert read.geometry.phase_axis == 1
        assert read.geometry.acs[1] == 9
        np.testing.assert_array_equal(read.geometry.mask, np.broadcast_to(mask, (ROWS, COLUMNS)))
        assert_same(read.data[:, 0], KSPACE[:, 0] * mask)


def test_fastmri_mask_is_seen_in_the_data_and_may_leave_out_more(tmp_path):
    mask = np.arange(COLUMNS) % 2 == 0
    seen = read_scan(write_fastmri(tmp_path / "f.h5", KSPACE * mask))
    assert seen.geometry.acceleration == 2
    told = read_scan(write_fastmri(tmp_path / "f.h5", KSPACE, mask=mask))
    np.testing.assert_array_equal(told.data, seen.data)
    assert "left out by the mask" in describe_scan(told)["remarks"][0]


def test_fastmri_padding_is_not_sampled(tmp_path):
    data = KSPACE.copy()
    data[..., :3] = 0
    read = read_scan(write_fastmri(tmp_path / "f.h5", data, mask=np.ones(COLUMNS)))
    assert not read.geometry.mask[:, :3].any()
    assert read.geometry.mask[:, 3:].all()


def test_bad_fastmri(tmp_path):
    path = tmp_path / "f.h5"
    xml = header(x=ROWS, y=COLUMNS, rx=ROWS)
    assert "exchanged" in refusal(write_fastmri(path, KSPACE.swapaxes(-1, -2), xml=xml))
    assert "header encodes" in refusal(write_fastmri(path, KSPACE.transpose(0, 2, 3, 1), xml=xml))
    assert "(slices, rows, columns)" in refusal(write_fastmri(path, KSPACE[0, 0]))
    assert "complex numbers" in refusal(write_fastmri(path, np.abs(KSPACE)))
    assert "one entry for each of the" in refusal(write_fastmri(path, KSPACE, mask=np.ones(COLUMNS - 1)))
    assert "another file's mask" in refusal(write_fastmri(path, KSPACE, mask=np.zeros(COLUMNS)))
    assert "lowest frequency centred" in refusal(write_fastmri(path, np.fft.ifftshift(KSPACE, axes=(-2, -1))))
    empty = KSPACE.copy()
    empty[1] = 0
    assert "1 of 3 slices are empty (1)" in refusal(write_fastmri(path, empty))
    assert "nothing was measured" in refusal(write_fastmri(path, 0 * KSPACE))
    empty[1] = np.inf
    assert "NaN or infinite" in refusal(write_fastmri(path, empty))
    assert "only Cartesian" in refusal(write_fastmri(path, KSPACE, xml=header(trajectory="radial")))


def test_links_to_other_files_are_not_followed(tmp_path):
    write_fastmri(tmp_path / "other.h5", KSPACE)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "kspace")
    assert "another file" in refusal(tmp_path / "f.h5")


def test_a_header_with_entities_is_refused(tmp_path):
    bomb = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'
    for xml in (bomb, bomb.replace("version", "encoding='utf-16' version").encode("utf-16")):
        with h5py.File(tmp_path / "f.h5", "w") as file:
            file["kspace"] = KSPACE
            file["ismrmrd_header"] = np.void(xml) if isinstance(xml, bytes) else xml
        text = refusal(tmp_path / "f.h5")
        assert "document type" in text or "no text" in text
    assert "damaged" in refusal(write_fastmri(tmp_path / "f.h5", KSPACE, xml="<x><y></x>"))
    assert "nested" in refusal(write_fastmri(tmp_path / "f.h5", KSPACE, xml="<x>" * 100))
    assert "no encoding" in refusal(write_fastmri(tmp_path / "f.h5", KSPACE, xml="<x/>"))


# --- dispatch, command line, missing extras


def test_foreign_and_missing_files(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.npy")
    (tmp_path / "text.txt").write_text("x")
    assert "no file of a scan" in refusal(tmp_path / "text.txt")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["y"] = 1
    assert "no scan" in refusal(tmp_path / "x.h5")
    with pytest.raises(mbir.InputError, match="no scan of a layout"):
        mbir.read(tmp_path / "x.h5")


def test_info_tells_what_was_guessed(tmp_path, capsys):
    np.save(tmp_path / "scan.npy", KSPACE[0])
    assert cli.main(["info", str(tmp_path / "scan.npy")]) == 0
    text = capsys.readouterr().out
    assert f"matrix {ROWS} x {COLUMNS}" in text
    assert "guessed: axes (coil, row, column)" in text
    assert cli.main(["info", "--json", str(tmp_path / "scan.npy")]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["kind"], about["coils"], about["acceleration"]) == ("k-space", COILS, 1.0)


def test_a_missing_extra_is_named(tmp_path):
    path = tmp_path / "scan.dat"
    path.write_bytes((0).to_bytes(4, "little") + (1).to_bytes(4, "little") + bytes(2000))
    code = (
        f"import sys\nsys.modules['twixtools'] = None\nfrom DiffusionMBIRLib import cli\n"
        f"sys.exit(cli.main(['info', {str(path)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "diffusionmbir[mri]" in done.stderr
