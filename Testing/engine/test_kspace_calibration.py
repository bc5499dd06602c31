"""Separate calibration scans: they tell the coils' maps of data whose own middle of k-space is not sampled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.geometry import CartesianMRI
from DiffusionMBIRLib.io.kspace import describe, read_kspace, write_kspace
from DiffusionMBIRLib.problem_mr import MRProblem
from DiffusionMBIRLib.sensitivity import compress_coils, estimate_maps, root_sum_of_squares
from Testing.engine.kspace_files import (
    COILS,
    COLUMNS,
    IMAGES,
    KSPACE,
    ROWS,
    SLICES,
    header,
    oversampled,
    readouts,
    twix_block,
    twix_lines,
    write_ismrmrd,
    write_twix,
)

CALIBRATION = 1 << 19
MIDDLE = list(range(ROWS // 2 - 9, ROWS // 2 + 9))


def whole() -> CartesianMRI:
    return CartesianMRI(np.ones((ROWS, COLUMNS), bool), COILS)


def check_calibrated(read):
    """Every other line of an image, whose maps come from a scan beside it."""
    assert read.geometry.acceleration == 2
    assert read.calibration is not None
    assert read.calibration.shape == (SLICES, COILS, len(MIDDLE), COLUMNS)
    np.testing.assert_allclose(read.calibration, KSPACE[:, :, MIDDLE], atol=2e-3)
    assert "separate calibration" in describe(read)["maps"]
    expected = estimate_maps(replace(read, data=KSPACE, geometry=whole()))
    truth = root_sum_of_squares(IMAGES)
    inside = truth > 0.3 * truth.max()
    agreement = np.abs(np.sum(expected.conj() * estimate_maps(read), axis=1))
    assert agreement[inside].min() > 0.98
    result = mbir.reconstruct(read, settings=ReconSettings.preset("mri", method="sense-cg"))
    assert np.abs(result.volume.array - truth)[inside].mean() < 0.03 * truth[inside].mean()


def test_ismrmrd_separate_calibration_scan(tmp_path):
    data, path = oversampled(IMAGES), tmp_path / "scan.h5"
    lines = readouts(data, range(0, ROWS, 2)) + readouts(data, MIDDLE, flags=CALIBRATION)
    xml = header(calibration="separate")
    read = read_kspace(write_ismrmrd(path, lines, xml=xml))
    check_calibrated(read)
    own = tmp_path / "own.h5"
    write_kspace(read, own)
    again = read_kspace(own)
    assert again.calibration is not None
    np.testing.assert_array_equal(again.calibration, read.calibration)
    few = compress_coils(read, 2)
    assert few.calibration is not None
    assert few.calibration.shape[1] == 2
    # Lines of two slices only: the third one's maps would be missing.
    some = readouts(data, range(0, ROWS, 2)) + readouts(data[:2], MIDDLE, flags=CALIBRATION)
    partly = read_kspace(write_ismrmrd(path, some, xml=xml))
    assert partly.calibration is None
    assert any("not used (1 of 3 slices are empty" in remark for remark in describe(partly)["remarks"])


def test_separate_calibration_serves_the_phase_too(tmp_path):
    lines = readouts(KSPACE, range(0, ROWS, 2)) + readouts(KSPACE, MIDDLE, flags=CALIBRATION)
    read = read_kspace(write_ismrmrd(tmp_path / "scan.h5", lines, xml=header(x=COLUMNS, calibration="separate")))
    chosen = ReconSettings.preset("mri", method="sense-cg")
    with torch.inference_mode():
        half = MRProblem.build(read, chosen, None, torch.device("cpu"))
        full = MRProblem.build(
            replace(read, calibration=None, data=KSPACE, geometry=whole()), chosen, None, half.A.device
        )
        assert isinstance(half, MRProblem)
        assert isinstance(full, MRProblem)
        turned = torch.polar(torch.ones_like(half.phase()), half.phase() - full.phase())
    truth = root_sum_of_squares(IMAGES)
    off = turned.numpy()[truth > 0.3 * truth.max()]
    assert np.abs(np.angle(off * np.conj(off.mean()))).mean() < 0.1


def test_twix_separate_calibration_scan(tmp_path):
    pytest.importorskip("twixtools")
    data = oversampled(IMAGES)
    # The counter of the calibration begins anew, around a centre of its own.
    blocks = twix_lines(data, range(0, ROWS, 2))
    for n, line in enumerate(MIDDLE):
        for k in range(SLICES):
            blocks.append(twix_block(data[k, :, line], line=n, where=k, flags=["PATREFSCAN"], centre_line=9))
    check_calibrated(read_kspace(write_twix(tmp_path / "meas.dat", blocks)))
