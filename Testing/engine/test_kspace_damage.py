"""Files of k-space that are damaged, hostile or odd end in one line, before memory is taken or anything is run."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import cli
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.io import sizes
from DiffusionMBIRLib.io.scans import read_scan
from Testing.engine.helpers import ROOT
from Testing.engine.kspace_files import (
    COILS,
    COLUMNS,
    KSPACE,
    ROWS,
    SLICES,
    assert_same,
    header,
    readouts,
    refusal,
    write_fastmri,
    write_ismrmrd,
)


def line_of(path, capsys) -> str:
    """The one line on stderr that the command line ends in."""
    assert cli.main(["info", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Traceback" not in said
    return said


# --- what is no file with an end


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes by name")
@pytest.mark.parametrize("suffix", [".npy", ".mat", ".h5", ".mrd", ".dat"])
def test_a_pipe_does_not_hang(tmp_path, suffix, capsys):
    path = tmp_path / f"scan{suffix}"
    os.mkfifo(path)
    assert "no regular file" in line_of(path, capsys)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes by name")
def test_a_pipe_for_a_mask_does_not_hang(tmp_path):
    np.save(tmp_path / "scan.npy", KSPACE)
    os.mkfifo(tmp_path / "mask.npy")
    (tmp_path / "scan.json").write_text('{"mask": "mask.npy"}')
    with pytest.raises(InputError, match=r"mask.npy: is no regular file"):
        read_scan(tmp_path / "scan.npy")


@pytest.mark.parametrize("suffix", [".npy", ".mat", ".h5", ".dat"])
def test_empty_and_foreign_bytes(tmp_path, suffix, capsys):
    path = tmp_path / f"scan{suffix}"
    for content in (b"", b"\0" * 700, b"x" * 700, b"\x89HDF\r\n\x1a\n" + b"\0" * 700, b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        line_of(path, capsys)


# --- names


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names are Unicode on this system")
@pytest.mark.parametrize("suffix", [".npy", ".mat", ".h5", ".mrd"])
def test_names_that_are_no_utf8(tmp_path, suffix):
    path = os.fsencode(tmp_path) + b"/K\xf6pf" + suffix.encode()
    if suffix == ".npy":
        with open(path, "wb") as stream:
            np.save(stream, KSPACE)
    elif suffix == ".mat":
        buffer = io.BytesIO()
        pytest.importorskip("scipy.io").savemat(buffer, {"ksp": KSPACE[0]})
        with open(path, "wb") as stream:
            stream.write(buffer.getvalue())
    else:
        made = write_fastmri(tmp_path / "made.h5", KSPACE)
        os.rename(made, path)
    assert_same(read_scan(os.fsdecode(path)).data[0], KSPACE[0])
    with open(path, "wb") as stream:
        stream.write(b"damaged")
    code = "import sys, os\nfrom DiffusionMBIRLib import cli\nsys.exit(cli.main(['info', os.fsdecode(sys.argv[1])]))"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1


# --- sizes


def test_hdf5_that_announces_more_than_it_has(tmp_path, capsys):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace", (40, 16, 640, 4000), "c8", chunks=(1, 1, 640, 400))
    assert "announces 13.1 GB" in line_of(path, capsys)


def test_sparse_but_honest_hdf5_is_read(tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        node = file.create_dataset("kspace", KSPACE.shape, "c8", chunks=(SLICES, COILS, ROWS, 1), compression="gzip")
        node[..., ::2] = KSPACE[..., ::2]
    assert read_scan(path).geometry.acceleration == 2


def test_tables_of_readouts_that_announce_more(tmp_path, capsys):
    path = write_ismrmrd(tmp_path / "scan.h5", readouts(KSPACE), xml=header(x=COLUMNS))
    with h5py.File(path, "r+") as file:
        file["dataset/data"].resize((1 << 33,))
    assert "announces" in line_of(path, capsys)


def test_memory_is_that_which_is_free(tmp_path, monkeypatch):
    np.save(tmp_path / "scan.npy", KSPACE)
    monkeypatch.setattr(sizes, "free_memory", lambda: KSPACE.nbytes)
    assert "of free memory" in refusal(tmp_path / "scan.npy")
    assert "of free memory" in refusal(write_fastmri(tmp_path / "scan.h5", KSPACE))
    assert "of free memory" in refusal(write_ismrmrd(tmp_path / "s.mrd", readouts(KSPACE), xml=header(x=COLUMNS)))


def test_matlab_that_announces_more(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    path = tmp_path / "scan.mat"
    scipy_io.savemat(path, {"ksp": KSPACE[0]})
    raw = path.read_bytes()
    at = raw.index(np.array([COILS, ROWS, COLUMNS], "<i4").tobytes())
    path.write_bytes(raw[:at] + np.array([30000, 3000, 400], "<i4").tobytes() + raw[at + 12 :])
    assert "announces" in refusal(path)


# --- links


def linked(path, kind: str) -> None:
    other = write_fastmri(path.with_name("other.h5"), KSPACE)
    with h5py.File(path, "w") as file:
        if kind == "external link":
            file["kspace"] = h5py.ExternalLink(str(other), "kspace")
        elif kind == "soft link to one":
            file["there"] = h5py.ExternalLink(str(other), "/")
            file["kspace"] = h5py.SoftLink("/there/kspace")
        elif kind == "raw storage":
            raw = path.with_name("raw.bin")
            raw.write_bytes(KSPACE.tobytes())
            file.create_dataset("kspace", KSPACE.shape, "c8", external=[(str(raw), 0, KSPACE.nbytes)])
        elif kind == "virtual dataset":
            layout = h5py.VirtualLayout(KSPACE.shape, "c8")
            layout[:] = h5py.VirtualSource(str(other), "kspace", KSPACE.shape)
            file.create_virtual_dataset("kspace", layout)
        else:
            file["kspace"] = h5py.SoftLink("/kspace")


@pytest.mark.parametrize("kind", ["external link", "soft link to one", "raw storage", "virtual dataset"])
def test_data_in_another_file_is_refused(tmp_path, kind, capsys):
    linked(tmp_path / "scan.h5", kind)
    assert "lies in another file" in line_of(tmp_path / "scan.h5", capsys)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes by name")
def test_links_to_a_pipe_do_not_hang(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.h5")
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = h5py.ExternalLink("pipe.h5", "kspace")
        file["dataset"] = h5py.ExternalLink("pipe.h5", "dataset")
        file["grid"] = h5py.ExternalLink("pipe.h5", "grid")
    assert "lies in another file" in line_of(path, capsys)
    mat = tmp_path / "scan.mat"
    with h5py.File(mat, "w", userblock_size=512) as file:
        file["ksp"] = h5py.ExternalLink("pipe.h5", "ksp")
    assert "not clear" in line_of(mat, capsys)


def test_links_within_the_file(tmp_path, capsys):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["inner/data"] = KSPACE
        file["kspace"] = h5py.SoftLink("/inner/data")
    assert_same(read_scan(path).data, KSPACE)
    linked(path, "in a circle")
    line_of(path, capsys)


# --- objects and odd types


class Dangerous:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("kind", ["array", "bare pickle", "archive", "field"])
def test_nothing_is_unpickled(tmp_path, kind, capsys):
    path, mark = tmp_path / "scan.npy", tmp_path / "it_ran"
    if kind == "array":
        np.save(path, np.array([[Dangerous(str(mark))]], dtype=object), allow_pickle=True)
    elif kind == "bare pickle":
        path.write_bytes(pickle.dumps(Dangerous(str(mark))))
    elif kind == "field":
        pairs = np.empty((2, 2), [("real", object), ("imag", object)])
        pairs["real"] = Dangerous(str(mark))
        np.save(path, pairs, allow_pickle=True)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", pickle.dumps(Dangerous(str(mark))))
    line_of(path, capsys)
    assert not mark.exists()


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a", "b"]),
        np.array([["2020-01-01"] * 4] * 4, dtype="datetime64[D]"),
        np.zeros((40, 40), bool),
        np.zeros((40, 40), [("a", "c8"), ("b", "c8")]),
        np.zeros((40, 40), [("real", "S4"), ("imag", "f4")]),
        np.zeros((40, 40), "V8"),
        np.zeros((0, 40), "c8"),
        np.array(1 + 1j),
        np.zeros((), [("real", "f4"), ("imag", "f4")]),
        np.zeros((40, 40, 2), "f2"),
    ],
)
def test_arrays_of_odd_types(tmp_path, array, capsys):
    np.save(tmp_path / "scan.npy", array)
    line_of(tmp_path / "scan.npy", capsys)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["kspace"] = array if array.dtype.kind not in "UM" else "text"
    line_of(tmp_path / "scan.h5", capsys)


@pytest.mark.parametrize("dtype", ["<c16", ">c8", ">c16", "clongdouble"])
def test_complex_numbers_of_any_width(tmp_path, dtype):
    np.save(tmp_path / "scan.npy", KSPACE.astype(dtype))
    read = read_scan(tmp_path / "scan.npy")
    assert read.data.dtype == np.dtype("c8")
    assert_same(read.data, KSPACE)


def test_matlab_objects_are_left_alone(tmp_path, capsys):
    scipy_io = pytest.importorskip("scipy.io")
    path = tmp_path / "scan.mat"
    cells = np.empty(3, dtype=object)
    cells[:] = [KSPACE[0], "text", {"a": 1}]
    scipy_io.savemat(path, {"ksp": cells, "s": {"real": KSPACE.real, "imag": KSPACE.imag}})
    assert "not clear" in line_of(path, capsys)
    path.with_suffix(".json").write_text('{"variable": "ksp"}')
    assert "no variable" in line_of(path, capsys)


def test_ismrmrd_with_other_fields(tmp_path, capsys):
    path = tmp_path / "scan.h5"
    for table in (
        np.zeros(4, [("head", [("flags", "<u8")]), ("data", "<f4")]),
        np.zeros(4, [("head", "<u8"), ("data", "<f4")]),
        np.zeros((2, 2), [("head", "<u8"), ("data", "<f4")]),
        np.zeros(4, "<f4"),
    ):
        with h5py.File(path, "w") as file:
            file["dataset/data"] = table
            file["dataset/xml"] = header(x=COLUMNS)
        line_of(path, capsys)


def test_ismrmrd_cut_at_any_place(tmp_path):
    """Damage in the middle of a file is no crash of the reader; what still reads is k-space."""
    path = write_ismrmrd(tmp_path / "scan.h5", readouts(KSPACE[:1]), xml=header(x=COLUMNS))
    raw = bytearray(path.read_bytes())
    generator = np.random.default_rng(5)
    for _ in range(25):
        damaged = bytearray(raw)
        for at in generator.integers(0, 6000, 8):
            damaged[at] = int(generator.integers(256))
        path.write_bytes(damaged)
        with contextlib.suppress(mbir.InputError):
            assert np.isfinite(read_scan(path).data).all()


@pytest.mark.parametrize("scale", [1e-14, 1e13])
def test_any_unit_of_measurement(tmp_path, scale):
    np.save(tmp_path / "scan.npy", KSPACE[0] * np.float32(scale))
    assert_same(read_scan(tmp_path / "scan.npy").data[0], KSPACE[0] * np.float32(scale))


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_units_whose_squares_leave_single_precision_are_refused(tmp_path, scale, capsys):
    np.save(tmp_path / "scan.npy", KSPACE[0] * np.float32(scale))
    assert "is its unit right?" in line_of(tmp_path / "scan.npy", capsys)
