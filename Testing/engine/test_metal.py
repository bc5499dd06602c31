"""Rays that cannot be trusted: weights a ray, metal left out and put back, and the usual ways to bridge it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import FanBeam, Grid, ParallelBeam, view_angles
from DiffusionMBIRLib.operators import projector
from DiffusionMBIRLib.problems import build_problem
from DiffusionMBIRLib.problems.metal import Metal, bridge
from DiffusionMBIRLib.scans import Measurement
from DiffusionMBIRLib.volume import hu_to_attenuation
from Testing.engine.helpers import body
from Testing.engine.mri import head

N = 48
GRID = Grid((2, N, N), (2.0, 2.0, 3.0))
METAL_HU = 3000.0


def discs(metal_hu: float) -> np.ndarray:
    """Water with a bone, and two pins of metal, HU."""
    y, x = np.meshgrid(*2 * [(np.arange(N) - (N - 1) / 2) / (N / 2)], indexing="ij")
    hu = np.where(x**2 / 0.7 + y**2 / 0.5 < 1, 0.0, -1000.0)
    hu[(x + 0.1) ** 2 + (y - 0.4) ** 2 < 0.02] = 600.0
    for place in (-0.45, 0.4):
        hu[(x - place) ** 2 + (y + 0.1) ** 2 < 0.006] = metal_hu
    return np.stack([hu, hu[::-1]])


def scan(
    kind: type[ParallelBeam] | type[FanBeam] = ParallelBeam, hardening: float = 0.75
) -> tuple[Measurement, np.ndarray]:
    """A scan whose long integrals are too low, as beam hardening makes them, and where its metal is."""
    geometry = kind.covering(GRID, view_angles(60, kind.EVERY_LINE_DEG))
    hu = discs(8000.0)
    p = (projector(geometry, GRID) @ torch.from_numpy(hu_to_attenuation(hu))).contiguous().numpy()
    soft = (projector(geometry, GRID) @ torch.from_numpy(hu_to_attenuation(discs(0.0)))).contiguous().numpy()
    return Measurement(soft + (p - soft) ** hardening, geometry, GRID, name="pins"), hu > 4000


def settings(**changes) -> ReconSettings:
    usual = {"method": "admm-tv", "tv_lam": 3e-4, "tv_sweeps": 40, "device": "cpu"}
    return ReconSettings(**usual | changes)


def error(volume: np.ndarray, metal: np.ndarray) -> float:
    """Of all but the metal and its rim."""
    rim = np.zeros_like(metal)
    for dy in (-2, -1, 0, 1, 2):
        for dx in (-2, -1, 0, 1, 2):
            rim |= np.roll(metal, (dy, dx), (1, 2))
    return float(np.sqrt(np.mean((volume - discs(8000.0))[~rim] ** 2)))


@pytest.mark.parametrize("kind", [ParallelBeam, FanBeam])
def test_rays_through_metal_are_left_out_and_the_metal_is_put_back(kind):
    measured, metal = scan(kind)
    with_all = mbir.reconstruct(measured, settings=settings())
    without = mbir.reconstruct(measured, settings=settings(metal_hu=METAL_HU))
    assert error(without.volume.array, metal) < 0.6 * error(with_all.volume.array, metal)
    first = mbir.reconstruct(measured, settings=settings(method="fbp", fbp_filter="hann")).volume.array
    found = first > METAL_HU
    assert (found & metal).sum() > 0.5 * metal.sum()
    np.testing.assert_allclose(without.volume.array[found], first[found], rtol=1e-4)
    (line,) = (r for r in without.provenance["remarks"] if "metal" in r)
    assert f"{found.sum()} voxels" in line
    assert without.residual < with_all.residual


def test_the_rays_left_out_are_those_that_see_the_mask_or_a_pixel_beside_it():
    measured, _ = scan()
    operator = projector(measured.geometry, GRID)
    found = Metal(measured, operator, METAL_HU)
    mask = found.mask.numpy()
    grown = mask.copy()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            grown |= np.roll(mask, (dy, dx), (1, 2))
    lengths = (operator @ operator.domain.laid_out(torch.from_numpy(grown.astype(np.float32)))).numpy()
    assert np.array_equal(found.trace.numpy(), lengths > 1e-3 * lengths.max())
    problem = build_problem(measured, settings(metal_hu=METAL_HU), None, torch.device("cpu"))
    assert isinstance(problem.scan, Measurement)
    assert np.array_equal(problem.scan.weights == 0, found.trace.numpy())


@pytest.mark.parametrize("method", ["admm-tv", "dds"])
def test_rays_of_weight_zero_do_not_matter(method):
    from Testing.engine.sampling import network

    measured, _ = scan(hardening=1.0)
    weights = np.ones((1, *measured.data.shape[1:]), np.float32)
    weights[:, :, 20:26] = 0
    spoilt = measured.data.copy()
    spoilt[:, :, 20:26] += 7.0
    results = [
        mbir.reconstruct(
            replace(measured, data=data, weights=weights), prior=network(), settings=settings(method=method, steps=2)
        )
        for data in (measured.data, spoilt)
    ]
    assert np.array_equal(results[0].volume.array, results[1].volume.array)
    assert results[0].residual == results[1].residual


def test_equal_weights_are_none():
    measured, _ = scan(hardening=1.0)
    plain = mbir.reconstruct(measured, settings=settings()).volume.array
    equal = replace(measured, weights=np.full((1, 1, 1), 3.0, np.float32))
    np.testing.assert_allclose(mbir.reconstruct(equal, settings=settings()).volume.array, plain, atol=0.5)


def test_a_bridge_is_a_line_between_the_neighbours():
    data = np.random.default_rng(0).normal(size=(2, 3, 30)).astype(np.float32)
    holes = np.zeros(data.shape, bool)
    holes[0, 1, 10:14] = holes[1, 2, :5] = True
    holes[1, 0] = True  # nothing to bridge from
    found = bridge(torch.from_numpy(data), torch.from_numpy(holes)).numpy()
    line = data[0, 1, 9] + (data[0, 1, 14] - data[0, 1, 9]) * np.arange(1, 5) / 5
    np.testing.assert_allclose(found[0, 1, 10:14], line, rtol=1e-5)
    assert np.all(found[1, 2, :5] == data[1, 2, 5])
    assert np.array_equal(found[1, 0], data[1, 0])
    assert np.array_equal(found[~holes], data[~holes])


def test_normalised_interpolation_knows_what_its_prior_image_holds():
    """Of water and metal alone the prior image is the truth, so that the bridge is; linear interpolation is not."""
    measured, metal = scan()
    errors = {}
    for method in ("fbp", "metal-linear", "nmar"):
        volume = mbir.reconstruct(measured, settings=settings(method=method, metal_hu=METAL_HU)).volume.array
        errors[method] = error(volume, metal)
    clean = replace(measured, data=scan(hardening=1.0)[0].data)
    best = error(mbir.reconstruct(clean, settings=settings(method="nmar", metal_hu=METAL_HU)).volume.array, metal)
    assert errors["nmar"] < errors["metal-linear"] < errors["fbp"]
    assert errors["nmar"] < 1.1 * best


def test_what_cannot_be_done_is_refused(tmp_path):
    measured, _ = scan()
    line = "needs raw projections: in a finished volume"
    with pytest.raises(InputError, match=line):
        mbir.reconstruct(mbir.simulate(body((2, 32, 32)), views=8), settings=settings(metal_hu=2000.0))
    with pytest.raises(InputError, match="only raw projections of CT"):
        mbir.reconstruct(
            mbir.simulate(head((2, 32, 32)), task="compressed-sensing-mri"), settings=settings(metal_hu=9.0)
        )
    with pytest.raises(InputError, match="nmar needs to know what is metal"):
        mbir.reconstruct(measured, settings=settings(method="nmar"))
    with pytest.raises(InputError, match="every ray sees"):
        _all_metal()
    none = mbir.reconstruct(measured, settings=settings(metal_hu=90000.0, tv_sweeps=1))
    assert any("all rays count" in remark for remark in none.provenance["remarks"])


def _all_metal() -> None:
    water = discs(0.0) * 0 + 500.0
    geometry = ParallelBeam((0.0, 90.0), 20, 2.0)
    data = (projector(geometry, GRID) @ torch.from_numpy(hu_to_attenuation(water))).contiguous().numpy()
    mbir.reconstruct(Measurement(data, geometry, GRID, name="block"), settings=settings(metal_hu=1.0, tv_sweeps=1))


def test_weights_come_from_a_file_with_any_scan(tmp_path, capsys):
    from DiffusionMBIRLib.cli import main

    measured, _ = scan()
    measured.save(tmp_path / "scan.h5")
    weights = np.ones(measured.data.shape, np.float32)
    weights[:, 3] = 0
    np.save(tmp_path / "weights.npy", weights)
    read = mbir.read(tmp_path / "scan.h5", weights=tmp_path / "weights.npy")
    assert np.array_equal(read.weights, weights)
    read.save(tmp_path / "weighed.h5")
    assert np.array_equal(mbir.read(tmp_path / "weighed.h5").weights, weights)
    command = ["reconstruct", str(tmp_path / "scan.h5"), "-o", str(tmp_path / "out.nrrd"), "--method", "sirt"]
    command += ["--sirt-iterations", "2", "--quiet", "--weights"]
    assert main([*command, str(tmp_path / "weights.npy")]) == 0
    np.save(tmp_path / "short.npy", weights[:, :5])
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "negative.npy", -weights)
    for name, line in (
        ("short", "does not spread over data"),
        ("text", "is no array of numbers"),
        ("negative", "or posi"),
    ):
        assert main([*command, str(tmp_path / f"{name}.npy")]) == 2
        assert line in capsys.readouterr().err
