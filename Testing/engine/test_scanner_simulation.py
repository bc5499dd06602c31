"""Simulated scans of beams from a point: distances, an axis that is off, dead pixels; on the command line too."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import FanBeam
from DiffusionMBIRLib.operators import projector
from DiffusionMBIRLib.simulation import simulate, truth_for
from DiffusionMBIRLib.simulation.ct import split_slices
from DiffusionMBIRLib.volume import hu_to_attenuation
from Testing.engine.helpers import body


def projected(volume, scan) -> np.ndarray:
    """What the operator that reconstructs makes of the truth."""
    attenuation = np.maximum(hu_to_attenuation(truth_for(volume).axial()[0].array), 0)
    return projector(scan.geometry, scan.grid).forward(torch.from_numpy(attenuation)).numpy()


def apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_a_fan_is_simulated_at_the_distances_asked_for():
    volume = body((3, 48, 48))
    scan = simulate(volume, scanner="fan", views=10, sod_mm=200.0, sdd_mm=300.0)
    assert (scan.geometry.sod_mm, scan.geometry.sdd_mm) == (200.0, 300.0)
    assert scan.geometry.angles_deg == tuple(36.0 * k for k in range(10))
    assert scan.data.shape == (3, 10, scan.geometry.columns)
    assert scan.data[:, :, [0, -1]].max() < 0.02 * scan.data.max()  # the whole body is seen
    exact = projected(volume, scan)
    assert 1e-5 < apart(scan.data, exact) < 0.01  # from a finer object, not by the operator that reconstructs
    nearer = simulate(volume, scanner="fan", views=10, sod_mm=120.0, sdd_mm=220.0)
    assert apart(projected(volume, nearer), nearer.data) < 0.01
    usual = simulate(volume, scanner="fan", views=10)
    assert usual.geometry.sdd_mm == pytest.approx(1.75 * usual.geometry.sod_mm)


@pytest.mark.parametrize(("scanner", "views"), [("cone", 8), ("helical", 12)])
def test_cones_are_simulated_from_a_finer_object(scanner, views):
    volume = body((8, 24, 24))
    scan = simulate(volume, scanner=scanner, views=views, sod_mm=150.0, sdd_mm=260.0, pitch=0.8)
    assert scan.data.shape == scan.geometry.data_shape(8)
    assert (scan.geometry.sod_mm, scan.geometry.sdd_mm) == (150.0, 260.0)
    assert 1e-4 < apart(scan.data, projected(volume, scan)) < 0.03
    if scanner == "helical":
        assert scan.geometry.pitch == pytest.approx(0.8)
        assert scan.geometry.angles_deg[12] - scan.geometry.angles_deg[0] == pytest.approx(360.0)  # views are of a turn


def test_an_axis_error_moves_the_data_and_not_what_the_scan_says():
    volume = body((2, 48, 48))
    right = simulate(volume, scanner="fan", views=10)
    pitch = right.geometry.pitch_mm
    wrong = simulate(volume, scanner="fan", views=10, axis_error_mm=3 * pitch)
    assert wrong.geometry == right.geometry
    assert apart(wrong.data[:, :, :-3], right.data[:, :, 3:]) < 1e-5  # a detector farther along sees the next columns
    assert isinstance(wrong.geometry, FanBeam)
    true = replace(wrong, geometry=replace(wrong.geometry, offset_mm=3 * pitch))
    assert apart(projected(volume, true), wrong.data) < 0.01
    with pytest.raises(InputError, match="setting axis_error_mm: .*'posed-beam' cannot be shifted; use 0"):
        simulate(volume, scanner="posed", views=3, axis_error_mm=1.0)


def test_dead_pixels_count_nothing_in_any_view():
    volume = body((6, 32, 32))
    clean = simulate(volume, scanner="fan", views=10, photons=1e4, seed=5)
    spoilt = simulate(volume, scanner="fan", views=10, photons=1e4, seed=5, dead_pixels=0.1)
    nothing = np.float32(math.log(1e4 / 0.5))
    dead = (spoilt.data == nothing).all(axis=1)
    assert 0.06 < dead.mean() < 0.14
    assert dead.any(axis=1).all()
    np.testing.assert_array_equal(spoilt.data.transpose(1, 0, 2)[:, ~dead], clean.data.transpose(1, 0, 2)[:, ~dead])
    again = simulate(volume, scanner="fan", views=10, photons=1e4, seed=6, dead_pixels=0.1)
    assert not np.array_equal(dead, (again.data == nothing).all(axis=1))


def test_split_slices_keep_means_and_stay_positive():
    x = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(0))
    x[2, 1] = 0
    split = split_slices(x)
    assert torch.allclose(split.unflatten(0, (-1, 2)).mean(1), x, atol=1e-6)
    assert split.min() >= 0
    ramp = 5 + torch.arange(8.0).reshape(8, 1, 1)
    assert torch.allclose(split_slices(ramp)[2:-2, 0, 0], 5 + torch.arange(16.0)[2:-2] / 2 - 0.25)


def test_the_command_line_knows_scanners_by_their_short_names(tmp_path, capsys):
    body().save(tmp_path / "body.nrrd")
    options = ["--scanner", "fan", "--views", "6", "--sod", "150", "--sdd", "260", "--quiet"]
    assert main(["simulate", str(tmp_path / "body.nrrd"), "-o", str(tmp_path / "scan.h5"), *options]) == 0
    told = capsys.readouterr().out
    for part in ("fan-beam", "views 6", "sod_mm 150", "sdd_mm 260"):
        assert part in told, told
    assert mbir.read(tmp_path / "scan.h5").geometry.sdd_mm == 260.0
    wrong = ["--scanner", "fan", "--sod", "20", "--quiet"]
    assert main(["simulate", str(tmp_path / "body.nrrd"), "-o", str(tmp_path / "no.h5"), *wrong]) == 2
    assert "geometry.sod_mm 20 must be larger than 45.2548" in capsys.readouterr().err


def test_a_volume_is_scanned_and_reconstructed_in_one_command(tmp_path, capsys):
    volume = body((3, 24, 24))
    volume.save(tmp_path / "body.nrrd")
    words = ["--scanner", "fan", "--views", "60", "--sod", "120", "--sdd", "200", "--method", "fbp", "--seed", "3"]
    words += ["--photons", "1e6", "--quiet", "--json"]
    assert main(["reconstruct", str(tmp_path / "body.nrrd"), "-o", str(tmp_path / "out.nrrd"), *words]) == 0
    told = json.loads(capsys.readouterr().out)
    scan = simulate(volume, scanner="fan", views=60, sod_mm=120.0, sdd_mm=200.0, photons=1e6, seed=3)
    settings = mbir.ReconSettings.preset("sparse-view", method="fbp", seed=3)
    direct = mbir.reconstruct(scan, settings=settings).volume
    np.testing.assert_array_equal(mbir.read_volume(tmp_path / "out.nrrd").array, direct.array)
    assert told["metrics"]["axial"]["psnr"] == pytest.approx(mbir.evaluate(direct, truth_for(volume))["axial"]["psnr"])
    assert told["metrics"]["axial"]["psnr"] > 20
    scan.save(tmp_path / "scan.h5")
    wrong = ["reconstruct", str(tmp_path / "scan.h5"), "-o", str(tmp_path / "out.nrrd"), "--quiet"]
    assert main([*wrong, "--scanner", "fan"]) == 2
    assert "setting scanner is for the simulated scan of a volume; scan.h5 holds a scan" in capsys.readouterr().err
