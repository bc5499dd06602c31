"""What measured scans are reconstructed with by themselves; and total variation that goes from coarse to fine grids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import ConeBeam, FanBeam, Grid, ParallelBeam
from DiffusionMBIRLib.jobs.asking import ask
from DiffusionMBIRLib.methods.dual import usual_first_level
from DiffusionMBIRLib.methods.starts import coarse_to_fine, total_variation
from DiffusionMBIRLib.models import find
from DiffusionMBIRLib.monitor import NoCheckpoint, Silent
from DiffusionMBIRLib.operators import projector
from DiffusionMBIRLib.preparation.binning import binned, bins, view_stride, with_wider_columns
from DiffusionMBIRLib.preparation.flat_dark import photons_counted
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.problems import build_problem
from DiffusionMBIRLib.scans import HOLED_DISC, Measurement
from DiffusionMBIRLib.usual import BOUNDED, DISCS, METAL, instead_of_hours, usual_settings

GRID = Grid((2, 16, 16))


def measured(geometry, water: str | None = "not known", grid: Grid = GRID, **changes) -> Measurement:
    data = changes.pop("data", np.zeros(geometry.data_shape(grid.shape[0]), np.float32))
    provenance = {} if water is None else {"water": water}
    return Measurement(data, geometry, grid, provenance=provenance, **changes)


def turn(views: int, degrees: float) -> tuple[float, ...]:
    return tuple(np.arange(views) * degrees / views)


@pytest.mark.parametrize(
    ("scan", "method", "why"),
    [
        (measured(ParallelBeam(turn(12, 180), 16, 1.0)), "fbp", "12 views all around are enough for 16 columns"),
        (measured(ParallelBeam(turn(6, 180), 16, 1.0)), "admm-tv", "6 views of 16 columns"),
        (measured(ParallelBeam(turn(40, 90), 16, 1.0)), "admm-tv", "views of 90 degrees only"),
        (measured(FanBeam(turn(40, 180), 16, 2.0, 50.0, 90.0)), "admm-tv", "views of 180 degrees only"),
        (measured(FanBeam(turn(40, 220), 16, 2.0, 50.0, 90.0)), "fbp", "40 views"),
        (measured(ParallelBeam(turn(12, 180), 16, 1.0), "known"), "fbp", "12 views"),
        (measured(ParallelBeam(turn(6, 180), 16, 1.0), "known"), "dual", ""),
        (measured(ParallelBeam(turn(12, 180), 16, 1.0), None), "dual", ""),
    ],
)
def test_measured_scans_get_a_method_that_suits_them(scan, method, why):
    usual = usual_settings(scan)
    assert usual.settings.method == method
    assert why in usual.why
    assert bool(usual.why) == bool(why)
    request, _ = ask(scan)
    assert request.settings["method"] == method
    assert ask(scan, choices={"method": "sirt"})[0].settings["method"] == "sirt"


@pytest.mark.parametrize(("degrees", "preset"), [(30, DISCS), (70, DISCS), (80, BOUNDED), (90, BOUNDED)])
def test_discs_with_holes_have_a_prior_where_it_does_better(degrees, preset):
    scan = measured(FanBeam(turn(2 * degrees, degrees), 16, 2.0, 50.0, 90.0))
    disc = replace(scan, provenance={**scan.provenance, "object": HOLED_DISC})
    assert usual_settings(disc).settings == mbir.ReconSettings.preset(preset)
    around = replace(scan.geometry, angles_deg=turn(scan.geometry.views, 360))
    disc = replace(disc, geometry=around, most_per_mm=np.ones((1, 1, 1), np.float32))
    assert usual_settings(disc).settings == mbir.ReconSettings.preset(BOUNDED)
    assert find(mbir.ReconSettings.preset(DISCS).prior).is_file()


def test_metal_gets_a_preset_of_its_own_where_views_are_all_around():
    around, wedge = (measured(ParallelBeam(turn(40, degrees), 16, 1.0), "known") for degrees in (180, 90))
    usual = usual_settings(around, metal_hu=3000.0)
    assert usual.settings == mbir.ReconSettings.preset(METAL, metal_hu=3000.0)
    assert "metal" in usual.why
    assert usual.settings.cg_steps > mbir.ReconSettings.preset("sparse-view").cg_steps
    assert usual_settings(wedge, metal_hu=3000.0) == usual_settings(wedge)
    assert ask(around, choices={"metal_hu": 3000.0})[0].settings == usual.settings.__dict__


@pytest.mark.parametrize(
    ("fewest", "degrees", "side", "level"),
    [
        (0.1, 180, 16, 0.4),
        (0.625, 180, 128, 0.625),
        (0.625, 180, 256, 1.25),
        (0.16, 180, 512, 0.64),
        (0.1, 90, 256, 1.6),
    ],
)
def test_the_first_level_rises_with_the_pixels_where_much_is_missing(fewest, degrees, side, level):
    scan = measured(ParallelBeam(turn(40, degrees), side, 1.0), grid=Grid((1, side, side)))
    assert usual_first_level(fewest, scan) == pytest.approx(level)


def test_nobody_waits_for_hours_unasked():
    few, poses = measured(ParallelBeam(turn(6, 180), 16, 1.0)), ConeBeam(turn(6, 360), 8, 16, 1.0, 1.0, 50.0, 90.0)
    usual = usual_settings(few)
    assert instead_of_hours(few, usual, 3000.0) == usual
    quick = instead_of_hours(few, usual, 8000.0)
    assert quick.settings.method == "fbp"
    assert "admm-tv would take about 2 h" in quick.why
    assert instead_of_hours(measured(poses), usual, 8000.0).settings.method == "fbp"
    simulated = measured(ParallelBeam(turn(6, 180), 16, 1.0), None)
    assert instead_of_hours(simulated, usual_settings(simulated), 8000.0).settings.method == "dual"


@pytest.mark.parametrize("bounded", [False, True])
def test_coarse_to_fine_has_the_same_limit_and_with_bounds_is_near_to_it_after_few_sweeps(bounded):
    grid = Grid((1, 32, 32))
    y, x = np.mgrid[:32, :32] - 15.5
    truth = (0.02 * (np.hypot(x, y) < 12) - 0.02 * (np.hypot(x - 3, y - 2) < 4)).astype(np.float32)[None]
    beam = ParallelBeam.covering(grid, np.linspace(0, 60, 61))
    data = projector(beam, grid).forward(torch.from_numpy(truth)).numpy()
    scan = Measurement(data, beam, grid, unit="1/mm", mu_water_per_mm=0.02)
    if bounded:
        scan = replace(scan, most_per_mm=np.full((1, 1, 1), 0.02, np.float32))
    settings = mbir.ReconSettings(method="admm-tv")
    problem = build_problem(scan, settings, None, torch.device("cpu"))
    run = (Silent(), NoCheckpoint())
    with torch.inference_mode():
        limit = total_variation(problem, 1e-4, 1500, *run)
        plain = total_variation(problem, 1e-4, 15, *run)
        coarse = coarse_to_fine(problem, 1e-4, 15, 3, *run)
        late = coarse_to_fine(problem, 1e-4, 1500, 2, *run)
    assert float((late - limit).abs().max()) < 0.02 * float(limit.max() - limit.min())
    if bounded:
        assert float((coarse - limit).norm()) < 0.7 * float((plain - limit).norm())
        assert problem.most is not None
        assert (coarse <= problem.most).all()


@pytest.mark.parametrize(
    "geometry",
    [
        ParallelBeam(turn(5, 180), 301, 0.5, 1.5),
        FanBeam(turn(5, 360), 301, 0.5, 200.0, 400.0, -3.0),
        ConeBeam(turn(5, 360), 21, 301, 0.5, 0.7, 200.0, 400.0, offset_mm=2.0, row_offset_mm=1.0),
    ],
)
def test_bins_are_the_means_of_their_pixels_where_these_are(geometry):
    """A function that is linear on the detector is told by the bins as by the pixels."""
    by = bins(geometry)
    assert by == 4
    rows = 8 if geometry.STACKED else geometry.detector[0]

    def seen(of, rows):
        poses = of.poses()
        j = np.arange(of.detector[1]) - (of.detector[1] - 1) / 2
        k = np.arange(rows) - (rows - 1) / 2
        z = k[:, None, None] * (0 if of.STACKED else of.row_pitch_mm) + poses.centre[None, :, None, 2]
        along = poses.u[None, :, None, :2] * j[None, None, :, None] + poses.centre[None, :, None, :2]
        return (along @ np.array([0.3, -0.7]) + 0.1 * z).astype(np.float64)

    line, coarse = binned(seen(geometry, rows), geometry, by)
    assert line.shape == coarse.data_shape(rows // by)
    np.testing.assert_allclose(line, seen(coarse, rows // by), atol=1e-4)


def test_wider_columns_are_the_means_of_their_pixels():
    geometry = FanBeam(turn(5, 360), 300, 0.5, 200.0, 400.0, -3.0)
    data = np.random.default_rng(0).random((2, 5, 300), np.float32)
    scan = measured(geometry, data=data, photons=1e4, weights=1 + data)
    wide = with_wider_columns(scan, 3)
    np.testing.assert_allclose(wide.data[1, 2, 7], data[1, 2, 21:24].mean(), rtol=1e-6)
    np.testing.assert_allclose(wide.weights, 1 + wide.data, rtol=1e-6)
    assert wide.photons == 3e4
    for column in (0, 99):
        middle = wide.geometry.poses().centre + (column - 49.5) * wide.geometry.poses().u
        fine = geometry.poses().centre + (3 * column + 1 - 149.5) * geometry.poses().u
        np.testing.assert_allclose(middle, fine)
    with pytest.raises(InputError, match="300 columns"):
        with_wider_columns(scan, 7)


def disc_scan() -> Measurement:
    grid = Grid((1, 32, 32))
    y, x = np.mgrid[:32, :32] - 15.5
    truth = (0.02 * (np.hypot(x, y) < 12) - 0.02 * (np.hypot(x - 3, y - 2) < 4)).astype(np.float32)[None]
    beam = ParallelBeam.covering(grid, np.linspace(0, 60, 31))
    beam = replace(beam, columns=beam.columns // 2 * 2)
    data = projector(beam, grid).forward(torch.from_numpy(truth)).numpy()
    most = (0.02 * (np.hypot(x, y) < 14)).astype(np.float32)[None]
    least = (0.015 * (abs(np.hypot(x, y) - 10) < 1)).astype(np.float32)[None]
    return Measurement(data, beam, grid, unit="1/mm", mu_water_per_mm=0.02, most_per_mm=most, least_per_mm=least)


@pytest.mark.parametrize(("method", "left"), [("dual", 0.0), ("dds", 0.2)])  # the last step of dds is onto the data
def test_diffusion_stays_within_what_voxels_can_have(method, left):
    scan, prior = disc_scan(), GaussianPrior(0.4, 0.2)
    settings = mbir.ReconSettings(method=method, steps=4, start="fbp", sigma_start=0.5)
    inside = mbir.reconstruct(scan, prior=prior, settings=settings).volume.array
    unbounded = replace(scan, most_per_mm=None, least_per_mm=None)
    free = mbir.reconstruct(unbounded, prior=prior, settings=settings).volume.array

    def beyond(array: np.ndarray) -> float:
        return float((np.maximum(array - scan.most_per_mm, 0) + np.maximum(scan.least_per_mm - array, 0)).sum())

    assert beyond(free) > 0.1
    assert beyond(inside) <= left * beyond(free) + 1e-5


def test_samples_on_wider_pixels_are_those_of_a_scan_that_has_them():
    scan, prior = disc_scan(), GaussianPrior(0.4, 0.2)
    settings = mbir.ReconSettings(steps=3, start="fbp", sigma_start=0.5, samples=2)
    found = mbir.reconstruct(scan, prior=prior, settings=replace(settings, bin_pixels=2))
    bounds = {
        name: getattr(scan, name).reshape(1, 16, 2, 16, 2).mean(axis=(2, 4)) for name in ("most_per_mm", "least_per_mm")
    }
    wide = replace(with_wider_columns(scan, 2), grid=scan.grid.coarsened(2), stored_grid=None, **bounds)
    alone = mbir.reconstruct(wide, prior=prior, settings=settings)
    for fine, coarse in ((found.volume, alone.volume), (found.deviation, alone.deviation)):
        expected = torch.nn.functional.interpolate(torch.from_numpy(coarse.array)[None], size=(32, 32), mode="bilinear")
        np.testing.assert_allclose(fine.array, expected[0].numpy(), atol=1e-6)
    assert found.nfe == alone.nfe
    with pytest.raises(InputError, match="bin_pixels: 3 does not divide"):
        mbir.reconstruct(scan, prior=prior, settings=replace(settings, bin_pixels=3))


def test_small_or_well_seen_detectors_are_not_binned():
    assert bins(ParallelBeam(turn(5, 180), 128, 1.0)) == 1
    assert bins(ParallelBeam(turn(40, 180), 600, 1.0)) == 1
    assert view_stride(ParallelBeam(turn(60, 180), 512, 1.0), Grid((1, 512, 512))) == 1
    assert view_stride(ParallelBeam(turn(721, 180), 512, 1.0), Grid((1, 512, 512))) == 3


@pytest.mark.parametrize("gain", [1.0, 0.05, 30.0])
def test_photons_follow_from_the_scatter_of_flat_images(gain):
    generator = np.random.default_rng(5)
    beam = 4000 * (1 + 0.3 * np.linspace(-1, 1, 80))[None] * np.ones((60, 1))
    brighter = 1 + 0.02 * generator.standard_normal((9, 1, 1))  # the beam as a whole changes
    flats = gain * generator.poisson(beam * brighter) + 100.0
    photons, profile = photons_counted(flats, np.full((60, 80), 100.0))
    assert photons == pytest.approx(4000, rel=0.05)
    assert profile is not None
    np.testing.assert_allclose(profile[0].mean(0), beam[0] / 4000, rtol=0.02)
    assert photons_counted(flats[:3], np.zeros((60, 80))) == (0.0, None)
    assert photons_counted(np.full((9, 60, 80), 1000.0), np.zeros((60, 80))) == (0.0, None)
