"""What an array does not say and its images do: an object cut apart, slices or coils, zeros that were measured."""

from __future__ import annotations

import json

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.describe import describe_scan
from DiffusionMBIRLib.io.scans import read_scan
from DiffusionMBIRLib.sensitivity import centred_fft, centred_ifft, root_sum_of_squares
from DiffusionMBIRLib.simulation.mr import coil_maps
from Testing.engine.helpers import body
from Testing.engine.kspace_files import (
    COILS,
    COLUMNS,
    IMAGES,
    KSPACE,
    LINES,
    ROWS,
    SLICES,
    assert_same,
    coil_images,
    header,
    kspace_of,
    oversampled,
    readouts,
    refusal,
    write_fastmri,
    write_ismrmrd,
)


def uncentred(images: np.ndarray, axes=(-2, -1)) -> np.ndarray:
    """As many write it: the transform of the image as it lies in memory, then the lowest frequency in the middle."""
    made = np.fft.fftshift(np.fft.fftn(images, axes=axes, norm="ortho"), axes=axes)
    rest = tuple(axis for axis in (-2, -1) if axis not in axes)
    return (centred_fft(made, axes=rest) if rest else made).astype(np.complex64)


# --- an image cut apart


@pytest.mark.parametrize(("rows", "columns"), [(48, 40), (47, 41), (64, 33)])
def test_a_transform_without_ifftshift_is_mended(tmp_path, rows, columns):
    images = coil_images(1, COILS, rows, columns)
    np.save(tmp_path / "scan.npy", uncentred(images)[0])
    read = read_scan(tmp_path / "scan.npy")
    assert_same(read.data, kspace_of(images), 1e-4)
    assert any("cut apart along rows and columns" in remark for remark in describe_scan(read)["remarks"])


@pytest.mark.parametrize("shifted", [True, False])
def test_no_shift_at_all_is_mended_twice(tmp_path, shifted):
    data = uncentred(IMAGES) if shifted else np.fft.fftn(IMAGES, axes=(-2, -1), norm="ortho").astype(np.complex64)
    np.save(tmp_path / "scan.npy", data)
    read = read_scan(tmp_path / "scan.npy")
    assert_same(read.data, KSPACE, 1e-4)
    assert any("comes first" in guess for guess in describe_scan(read)["guessed"]) is not shifted


def test_one_axis_and_few_lines(tmp_path):
    path = tmp_path / "scan.h5"
    assert_same(read_scan(write_fastmri(path, uncentred(IMAGES, (-1,)))).data, KSPACE, 1e-4)
    mask = np.isin(np.arange(ROWS), LINES)[:, None]
    np.save(tmp_path / "few.npy", uncentred(coil_images(1, 8, ROWS, COLUMNS))[0] * mask)
    read = read_scan(tmp_path / "few.npy")
    assert any("cut apart along columns" in remark for remark in describe_scan(read)["remarks"])


def test_what_is_told_is_believed(tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, uncentred(IMAGES))
    path.with_suffix(".json").write_text(json.dumps({"wrapped": False}))
    assert_same(read_scan(path).data, uncentred(IMAGES))
    path.with_suffix(".json").write_text(json.dumps({"wrapped": True}))
    assert_same(read_scan(path).data, KSPACE, 1e-4)
    assert describe_scan(read_scan(path))["remarks"] == []


@pytest.mark.parametrize("shift", [(0, 0), (9, 0), (-8, 7), (0, 12)])
def test_centred_and_off_centre_objects_stay(tmp_path, shift):
    moved = kspace_of(np.roll(IMAGES, shift, axis=(-2, -1)))
    np.save(tmp_path / "scan.npy", moved)
    read = read_scan(tmp_path / "scan.npy")
    assert_same(read.data, moved)
    assert describe_scan(read)["remarks"] == []


def test_two_legs_with_air_between_stay(tmp_path):
    y, x = np.meshgrid(np.linspace(-1, 1, ROWS), np.linspace(-1, 1, COLUMNS), indexing="ij")
    legs = 1.0 * (np.hypot((np.abs(x) - 0.5) / 0.4, y / 0.6) < 1)
    data = kspace_of(legs * coil_images(1)[0] / np.abs(coil_images(1)[0]).max())
    np.save(tmp_path / "scan.npy", data)
    assert_same(read_scan(tmp_path / "scan.npy").data[0], data)


def test_a_scanner_format_is_said_and_its_object_not_cropped(tmp_path):
    path = tmp_path / "scan.h5"
    said = read_scan(write_ismrmrd(path, readouts(uncentred(IMAGES)), xml=header(x=COLUMNS)))
    assert_same(said.data, uncentred(IMAGES))
    assert "both borders of the image along rows and columns" in describe_scan(said)["remarks"][0]
    wide = oversampled(IMAGES)
    wide = wide * np.where(np.arange(2 * COLUMNS) % 2, -1, 1)  # half a field of view along the readout
    kept = read_scan(write_ismrmrd(path, readouts(wide)))
    assert_same(kept.data, KSPACE, 1e-4)
    assert "cut apart along columns" in describe_scan(kept)["remarks"][0]


# --- slices or coils


@pytest.mark.parametrize("last", [False, True])
def test_a_stack_of_slices_is_no_set_of_coils(tmp_path, last):
    scipy_io = pytest.importorskip("scipy.io")
    y, x = np.meshgrid(np.linspace(-1, 1, ROWS), np.linspace(-1, 1, COLUMNS), indexing="ij")
    sizes = 0.3 + 0.06 * np.arange(9)
    stack = np.stack([(np.hypot(x, y + 0.1 * size) < size) + (np.hypot(x - 0.4 * size, y) < 0.15) for size in sizes])
    data = kspace_of(stack.astype(np.complex64))
    if last:
        path = tmp_path / "scan.mat"
        scipy_io.savemat(path, {"ksp": data.transpose(1, 2, 0)})
    else:
        path = tmp_path / "scan.npy"
        np.save(path, data)
    read = read_scan(path)
    assert_same(read.data[:, 0], data)
    assert any("slice" in guess for guess in describe_scan(read)["guessed"])
    result = mbir.reconstruct(read, settings=mbir.ReconSettings.preset("mri", method="sense-cg"))
    assert result.volume.array.shape[0] == 9


@pytest.mark.parametrize("coils", [2, 8, 24])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_coils_stay_coils(tmp_path, coils, noise):
    volume = body((1, 64, 56))
    maps = coil_maps(volume.grid, coils)[0]
    generator = np.random.default_rng(coils)
    data = kspace_of((maps * (volume.array[0] + 1000.0)).astype(np.complex64))
    size = noise * np.abs(centred_ifft(data)).max()
    data = data + size * (generator.normal(size=data.shape) + 1j * generator.normal(size=data.shape))
    np.save(tmp_path / "scan.npy", data.astype(np.complex64))
    read = read_scan(tmp_path / "scan.npy")
    assert read.data.shape == (1, coils, 64, 56)
    assert "axes (coil, row, column)" in describe_scan(read)["guessed"]


def test_coils_before_slices_are_seen(tmp_path):
    slices = kspace_of(coil_images(6, 5) * (1 + np.arange(6))[:, None, None, None])
    y, x = np.meshgrid(np.linspace(-1, 1, ROWS), np.linspace(-1, 1, COLUMNS), indexing="ij")
    cut = np.stack([np.hypot(x - 0.05 * n, y) < 0.35 + 0.08 * n for n in range(6)])[:, None]
    slices = kspace_of((centred_ifft(slices) * cut).astype(np.complex64))
    np.save(tmp_path / "a.npy", slices)
    np.save(tmp_path / "b.npy", slices.swapaxes(0, 1))
    assert_same(read_scan(tmp_path / "b.npy").data, read_scan(tmp_path / "a.npy").data)


def test_what_cannot_be_told_is_asked_or_said(tmp_path):
    same = np.repeat(KSPACE[0, :1], 5, axis=0)
    np.save(tmp_path / "same.npy", same)
    assert "slices or coils cannot be told" in refusal(tmp_path / "same.npy")
    (tmp_path / "same.json").write_text(json.dumps({"axes": ["slice", "row", "column"]}))
    assert read_scan(tmp_path / "same.npy").data.shape == (5, 1, ROWS, COLUMNS)
    np.save(tmp_path / "gaps.npy", KSPACE[0] * (np.arange(ROWS) % 2 == 0)[:, None])
    assert any("could not be told" in guess for guess in describe_scan(read_scan(tmp_path / "gaps.npy"))["guessed"])


def test_coils_in_the_place_of_fastmri_slices_are_said(tmp_path):
    path = tmp_path / "scan.h5"
    read = read_scan(write_fastmri(path, KSPACE[0]))
    assert read.data.shape == (COILS, 1, ROWS, COLUMNS)
    assert any("look like those of coils" in guess for guess in describe_scan(read)["guessed"])
    assert not any("coils" in guess for guess in describe_scan(read_scan(write_fastmri(path, KSPACE[:, 0])))["guessed"])


# --- zeros


def counts(data: np.ndarray, largest: float, dtype="int16") -> np.ndarray:
    """Whole numbers with real and imaginary parts in the last axis."""
    scaled = data * (largest / np.abs(data).max())
    return np.rint(np.stack([scaled.real, scaled.imag], axis=-1)).astype(dtype)


@pytest.mark.parametrize("largest", [300, 3000, 30000])
@pytest.mark.parametrize("coils", [1, COILS])
def test_zeros_of_whole_numbers_were_measured(tmp_path, largest, coils):
    generator = np.random.default_rng(1)
    noise = 1.5 / largest * np.abs(KSPACE).max()
    data = KSPACE[:, :coils] + noise * (
        generator.normal(size=(SLICES, coils, ROWS, COLUMNS))
        + 1j * generator.normal(size=(SLICES, coils, ROWS, COLUMNS))
    )
    whole = counts(data, largest)
    assert coils > 1 or (whole == 0).all(axis=-1).any()
    path = tmp_path / "scan.npy"
    path.with_suffix(".json").write_text(json.dumps({"axes": ["slice", "coil", "row", "column"]}))
    for stored in (whole, (whole[..., 0] + 1j * whole[..., 1]).astype(np.complex64) * np.float32(0.37)):
        np.save(path, stored)
        read = read_scan(path)
        assert read.geometry.mask.all()
        assert coils > 1 or any("zero and count as measured" in guess for guess in describe_scan(read)["guessed"])


@pytest.mark.parametrize("largest", [300, 30000])
def test_patterns_of_whole_numbers_stay_patterns(tmp_path, largest):
    generator = np.random.default_rng(2)
    y, x = np.meshgrid(np.linspace(-1, 1, ROWS), np.linspace(-1, 1, COLUMNS), indexing="ij")
    mask = (generator.random((ROWS, COLUMNS)) < 0.4) | (np.hypot(x, y) < 0.3)
    noise = 2.0 / largest * np.abs(KSPACE).max()
    shape = KSPACE.shape
    data = KSPACE + noise * (generator.normal(size=shape) + 1j * generator.normal(size=shape))
    np.save(tmp_path / "scan.npy", counts(data * mask, largest))
    assert abs(read_scan(tmp_path / "scan.npy").geometry.mask.mean() - mask.mean()) < 0.01
    lines = np.isin(np.arange(ROWS), LINES)[:, None]
    np.save(tmp_path / "scan.npy", counts(data * lines, largest))
    np.testing.assert_array_equal(read_scan(tmp_path / "scan.npy").geometry.mask, lines & np.ones(COLUMNS, bool))


def test_pairs_in_a_structure_are_complex(tmp_path):
    whole = counts(KSPACE, 30000)
    pairs = np.empty(KSPACE.shape, [("real", ">i2"), ("imag", ">i2")])
    pairs["real"], pairs["imag"] = whole[..., 0], whole[..., 1]
    np.save(tmp_path / "scan.npy", pairs)
    read = read_scan(tmp_path / "scan.npy")
    image, truth = root_sum_of_squares(centred_ifft(read.data)), root_sum_of_squares(IMAGES)
    np.testing.assert_allclose(image / image.max(), truth / truth.max(), atol=0.01)
