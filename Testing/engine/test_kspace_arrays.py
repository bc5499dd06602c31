"""K-space in arrays of NumPy and MATLAB: axes that are told, guessed, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from DiffusionMBIRLib.describe import describe_scan
from DiffusionMBIRLib.io.scans import read_scan
from Testing.engine.kspace_files import (
    COLUMNS,
    IMAGES,
    KSPACE,
    ROWS,
    assert_same,
    oversampled,
    refusal,
)

# --- arrays


def sidecar(path: Path, **entries) -> Path:
    path.with_suffix(".json").write_text(json.dumps(entries))
    return path


def test_npy_with_sidecar(tmp_path):
    path = tmp_path / "scan.npy"
    wide = oversampled(IMAGES)
    np.save(path, np.fft.ifftshift(wide, axes=(-2, -1)).transpose(3, 2, 0, 1))
    axes = ["column", "row", "slice", "coil"]
    read = read_scan(sidecar(path, axes=axes, centred=False, oversampling=2, spacing_mm=[1.5, 2, 4], noise_std=0.1))
    assert_same(read.data, KSPACE)
    assert read.grid.spacing_mm == (1.5, 2.0, 4.0)
    assert read.noise_std == 0.1
    assert describe_scan(read)["guessed"] == []


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
@pytest.mark.parametrize("centred", [True, False])
def test_npy_axes_are_guessed_and_said(tmp_path, order, centred):
    path = tmp_path / "scan.npy"
    data = KSPACE[0] if centred else np.fft.ifftshift(KSPACE[0], axes=(-2, -1))
    np.save(path, data.transpose(order))
    read = read_scan(path)
    wanted = KSPACE[0] if list(order).index(1) < list(order).index(2) else KSPACE[0].swapaxes(-1, -2)
    assert_same(read.data[0], wanted)
    guessed = " ".join(describe_scan(read)["guessed"])
    assert "axes" in guessed
    assert ("shifted" in guessed) is not centred


def test_npy_mask_beside_it(tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, KSPACE)
    mask = np.isin(np.arange(COLUMNS), range(0, COLUMNS, 2))
    np.save(tmp_path / "mask.npy", mask)
    read = read_scan(sidecar(path, mask="mask.npy"))
    np.testing.assert_array_equal(read.geometry.mask, np.broadcast_to(mask, (ROWS, COLUMNS)))
    np.save(tmp_path / "mask.npy", mask[1:])
    assert "mask has the shape" in refusal(path)
    assert "same folder" in refusal(sidecar(path, mask="../mask.npy"))


def test_bad_npy(tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, np.abs(KSPACE))
    assert "complex" in refusal(path)
    np.save(path, IMAGES)
    assert "is it an image" in refusal(path)
    np.save(path, KSPACE[None])
    assert "name them in scan.json" in refusal(path)
    np.save(path, np.full((64, 64), np.nan + 0j))
    assert "NaN" in refusal(path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    assert "pickled" in refusal(path)
    np.save(path, KSPACE)
    path.write_bytes(path.read_bytes()[:-100])
    assert "truncated" in refusal(path)
    begin = path.read_bytes()[:10]
    claim = str({"descr": "<c8", "fortran_order": False, "shape": (10**9, 10**9)}).ljust(117) + "\n"
    path.write_bytes(begin[:8] + len(claim).to_bytes(2, "little") + claim.encode())
    assert "truncated" in refusal(path)


def test_bad_sidecar(tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, KSPACE)
    for entries, part in (
        ({"axis": 1}, "'axis' is not known"),
        ({"axes": ["row", "row", "coil", "slice"]}, "once each"),
        ({"axes": ["row", "column"]}, "lists 2 axes"),
        ({"axes": ["row", "column", "coil", "slice"]}, "exchange them"),
        ({"spacing_mm": [1, 2]}, "three numbers"),
        ({"spacing_mm": [1, 2, "x"]}, "spacing_mm must be a list, each entry a number"),
        ({"oversampling": 0}, "oversampling must be a number from"),
        ({"centred": 1}, "true or false"),
    ):
        assert part in refusal(sidecar(path, **entries))
    path.with_suffix(".json").write_text("{")
    assert "is no JSON" in refusal(path)


def test_real_pairs_become_complex(tmp_path):
    np.save(tmp_path / "scan.npy", np.stack([KSPACE[0].real, KSPACE[0].imag], axis=-1))
    read = read_scan(tmp_path / "scan.npy")
    assert_same(read.data[0], KSPACE[0])
    assert "real and imaginary" in describe_scan(read)["guessed"][0]


def test_matlab_5_and_73(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    ksp = KSPACE[0].transpose(1, 2, 0).astype(np.complex128)  # (rows, columns, coils), as MATLAB's users have it
    scipy_io.savemat(tmp_path / "v5.mat", {"ksp": ksp, "note": "text", "te": 3.0}, do_compression=True)
    with h5py.File(tmp_path / "v73.mat", "w", userblock_size=512) as file:
        pairs = np.empty(ksp.T.shape, [("real", "<f8"), ("imag", "<f8")])
        pairs["real"], pairs["imag"] = ksp.T.real, ksp.T.imag
        file["ksp"] = pairs
        file["te"] = 3.0
    for name in ("v5.mat", "v73.mat"):
        read = read_scan(tmp_path / name)
        assert_same(read.data[0], KSPACE[0])
        assert "axes (row, column, coil)" in describe_scan(read)["guessed"]


def test_bad_matlab(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    path = tmp_path / "scan.mat"
    ksp = KSPACE[0]
    scipy_io.savemat(path, {"one": ksp, "two": 2 * ksp})
    assert "not clear (one, two)" in refusal(path)
    assert_same(read_scan(sidecar(path, variable="two")).data[0], 2 * ksp)
    assert "no variable 'three'" in refusal(sidecar(path, variable="three"))
    path.with_suffix(".json").unlink()
    scipy_io.savemat(path, {"x": np.abs(ksp)})
    assert "not clear (x)" in refusal(path)
    scipy_io.savemat(path, {"ksp": KSPACE.transpose(2, 3, 1, 0)})
    assert "name them in scan.json" in refusal(path)
    scipy_io.savemat(path, {"CtDataLimited": {"sinogram": np.ones((2, 2))}})
    assert "lacks sinogram" in refusal(path)
    scipy_io.savemat(path, {"ksp": ksp})
    path.write_bytes(path.read_bytes()[:-1000])
    assert "truncated" in refusal(path)
