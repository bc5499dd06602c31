"""Simulated scans against closed forms, symmetries and the statistics of photons."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from DiffusionMBIRLib.errors import Cancelled, InputError
from DiffusionMBIRLib.formats import write
from DiffusionMBIRLib.geometry import Grid, axial_order
from DiffusionMBIRLib.io.scans import read_scan
from DiffusionMBIRLib.io.volumes import read_volume, sample_data
from DiffusionMBIRLib.monitor import Silent
from DiffusionMBIRLib.operators import projector
from DiffusionMBIRLib.provenance import alias
from DiffusionMBIRLib.simulation import ct, simulate, truth_for
from DiffusionMBIRLib.simulation.ct import split_pixels
from DiffusionMBIRLib.tasks import CT_TASKS, task_info
from DiffusionMBIRLib.volume import MU_WATER_PER_MM, Volume, attenuation_to_hu, hu_to_attenuation
from Testing.engine.helpers import body, rotation

SEMI_AXES_MM, CENTRE_MM, TILT_DEG = (22.0, 12.0), (5.0, -7.0), 25.0


def ellipse(size: int, field_mm: float = 64.0, oversampling: int = 8) -> Volume:
    """Water in the shape of an ellipse; edge pixels hold the share of their area, so 2 x 2 means are exact as well."""
    fine = (np.arange(size * oversampling) + 0.5) * field_mm / (size * oversampling) - field_mm / 2
    x, y = fine[None, :] - CENTRE_MM[0], fine[:, None] - CENTRE_MM[1]
    cos, sin = math.cos(math.radians(TILT_DEG)), math.sin(math.radians(TILT_DEG))
    inside = ((x * cos + y * sin) / SEMI_AXES_MM[0]) ** 2 + ((y * cos - x * sin) / SEMI_AXES_MM[1]) ** 2 <= 1
    share = inside.reshape(size, oversampling, size, oversampling).mean(axis=(1, 3))[None]
    pixel = field_mm / size
    return Volume((share * 1000 - 1000).astype(np.float32), Grid((1, size, size), (pixel, pixel, 1.0)))


def ellipse_sinogram(geometry, parts: int = 50) -> np.ndarray:
    """Line integrals of the ellipse, averaged over each detector column; (views, columns)."""
    edge = -geometry.columns * geometry.pitch_mm / 2
    s = edge + (np.arange(geometry.columns * parts) + 0.5) * geometry.pitch_mm / parts
    rows = []
    for angle in np.radians(geometry.angles_deg):
        turned = angle - math.radians(TILT_DEG)
        half_width2 = (SEMI_AXES_MM[0] * math.cos(turned)) ** 2 + (SEMI_AXES_MM[1] * math.sin(turned)) ** 2
        t = s - CENTRE_MM[0] * math.cos(angle) - CENTRE_MM[1] * math.sin(angle)
        chord = 2 * SEMI_AXES_MM[0] * SEMI_AXES_MM[1] * np.sqrt(np.maximum(half_width2 - t**2, 0)) / half_width2
        rows.append(MU_WATER_PER_MM * chord.reshape(-1, parts).mean(axis=1))
    return np.array(rows)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def recon_operator_data(volume: Volume, measurement, coarsen: int) -> np.ndarray:
    """What the operator that reconstructs makes of the truth."""
    axial, _ = truth_for(volume, coarsen).axial()
    attenuation = np.maximum(hu_to_attenuation(axial.array), 0)
    return projector(measurement.geometry, measurement.grid).forward(torch.from_numpy(attenuation)).numpy()


@pytest.mark.parametrize(("size", "coarsen", "most"), [(64, 1, 0.01), (128, 2, 0.005), (128, 4, 0.015)])
def test_agrees_with_the_sinogram_of_an_ellipse(size, coarsen, most):
    scan = simulate(ellipse(size), views=12, coarsen=coarsen)
    assert relative_error(scan.data[0], ellipse_sinogram(scan.geometry)) < most


def test_mass_is_kept_in_every_view():
    volume = body((3, 48, 48))
    for coarsen, most in ((1, 1e-3), (2, 3e-3), (3, 8e-3)):  # what the mean of intensities takes away
        scan = simulate(volume, views=9, coarsen=coarsen)
        attenuation = np.maximum(hu_to_attenuation(volume.array), 0)
        mass = attenuation.sum(axis=(1, 2), dtype=float) * volume.grid.spacing_mm[0] * volume.grid.spacing_mm[1]
        found = scan.data.sum(axis=2, dtype=float) * scan.geometry.pitch_mm / mass[:, None]
        assert found.max() < 1 + 1e-5
        assert found.min() > 1 - most


def test_a_turned_object_gives_the_turned_scan():
    volume = body((2, 32, 32))
    turned = replace(volume, array=np.rot90(volume.array, axes=(1, 2)))
    straight, quarter = simulate(volume, views=8).data, simulate(turned, views=8).data
    assert np.allclose(quarter[:, :4], straight[:, 4:], atol=1e-5)
    assert np.allclose(quarter[:, 4:], straight[:, :4, ::-1], atol=1e-5)


@pytest.mark.parametrize("degrees", [(90, 0, 0), (0, -90, 0), (90, 90, 0), (0, 180, 90)])
@pytest.mark.parametrize("coarsen", [1, 2])
def test_another_axis_order_gives_the_same_scan(degrees, coarsen):
    axial = body((3, 16, 20))
    direction = np.rint(rotation(degrees)).reshape(-1)
    order = axial_order(Grid((1, 1, 1), direction=tuple(direction))).inverse()
    stored = replace(axial, array=order.apply(axial.array), grid=order.apply_to_grid(axial.grid))
    scan, twin = simulate(axial, coarsen=coarsen), simulate(stored, coarsen=coarsen)
    assert np.array_equal(scan.data, twin.data)
    assert twin.grid.shape == scan.grid.shape
    assert twin.grid.origin_mm == pytest.approx(scan.grid.origin_mm)
    truth = truth_for(stored, coarsen)
    assert twin.stored_grid == truth.grid
    given_back = twin.volume(truth_for(axial, coarsen).array, "volume")
    assert np.array_equal(given_back.array, truth.array)
    assert given_back.grid == truth.grid


def test_truth_is_the_block_mean_with_padding_as_air():
    volume = body((2, 6, 8))
    padded = replace(volume, array=np.where(volume.array < -990, -3024, volume.array).astype(np.int16))
    before = padded.array.copy()
    truth = truth_for(padded, 2)
    expected = np.maximum(padded.array, -1000.0).reshape(2, 3, 2, 4, 2).mean(axis=(2, 4))
    assert truth.array == pytest.approx(expected, abs=1e-3)
    assert truth.array.dtype == np.float32
    assert np.array_equal(padded.array, before)
    aired = replace(volume, array=np.maximum(padded.array, -1000))
    assert np.array_equal(simulate(padded).data, simulate(aired).data)
    assert np.array_equal(padded.array, before)


@pytest.mark.parametrize(("coarsen", "least"), [(1, 5e-4), (2, 2e-3)])
@pytest.mark.parametrize("task", CT_TASKS)
def test_data_are_near_to_but_not_from_the_operator_that_reconstructs(coarsen, least, task):
    sample = read_volume(sample_data("ct_chest.nrrd"))
    two = replace(sample, array=sample.array[10:12], grid=replace(sample.grid, shape=(2, 256, 256)))
    scan = simulate(two, task=task, views=6, coarsen=coarsen)
    assert least < relative_error(scan.data, recon_operator_data(two, scan, coarsen)) < 0.01


def test_split_pixels_keep_means_and_stay_positive():
    x = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0))
    x[0, 2] = 0
    split = split_pixels(x)
    blocks = split.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    assert torch.allclose(blocks.mean(dim=(2, 4)), x, atol=1e-6)
    assert split.min() >= 0
    assert (blocks.amax(dim=(2, 4)) > blocks.amin(dim=(2, 4))).float().mean() > 0.8
    assert torch.allclose(split_pixels(x.transpose(1, 2)), split.transpose(1, 2))
    assert torch.allclose(split_pixels(x.flip(1)), split.flip(1))
    ramp = 5 + torch.arange(8.0).reshape(1, 1, 8)
    assert torch.allclose(split_pixels(ramp)[0, :, 2:-2], 5 + torch.arange(16.0)[2:-2].expand(2, -1) / 2 - 0.25)
    assert torch.equal(split_pixels(x[:, :1, :1]), x[:, :1, :1].expand(2, 2, 2))
    assert not split_pixels(torch.zeros(1, 3, 3)).any()


def test_detector_cells_add_photons():
    fine = torch.tensor([[[1.0, 3.0, 50.0, 50.0, 200.0, 300.0]]])
    merged = ct._merged(fine, (1, 2))
    assert float(merged[0, 0, 0]) == pytest.approx(-math.log((math.exp(-1) + math.exp(-3)) / 2), rel=1e-6)
    assert float(merged[0, 0, 1]) == 50.0
    assert float(merged[0, 0, 2]) == pytest.approx(200 + math.log(2))
    assert torch.allclose(ct._merged(fine.transpose(0, 2), (2, 1)), merged.transpose(0, 2))


@pytest.mark.parametrize(("photons", "electronic_noise"), [(2e3, 0.0), (1e5, 0.0), (2e4, 60.0)])
def test_noise_has_the_statistics_of_photons(photons, electronic_noise):
    volume = body((6, 32, 32))
    clean = simulate(volume, views=40).data.astype(float)
    noisy = simulate(volume, views=40, photons=photons, electronic_noise=electronic_noise).data.astype(float)
    expected = photons * np.exp(-clean)
    deviation = (photons * np.exp(-noisy) - expected) / np.sqrt(expected + electronic_noise**2)
    count = deviation.size
    assert abs(deviation.mean()) < 4 / math.sqrt(count)
    assert abs(deviation.var() - 1) < 4 * math.sqrt(2 / count) + 2 / photons
    neighbours = (deviation[:, :, 1:] * deviation[:, :, :-1]).mean()
    assert abs(neighbours) < 4 / math.sqrt(count)


def test_seeds():
    volume = body((3, 16, 16))
    first = simulate(volume, photons=1e4, seed=3)
    assert np.array_equal(first.data, simulate(volume, photons=1e4, seed=3).data)
    assert not np.array_equal(first.data, simulate(volume, photons=1e4, seed=4).data)
    flat = replace(volume, array=np.repeat(volume.array[:1], 3, axis=0))
    noise = simulate(flat, photons=1e4).data - simulate(flat).data
    assert not np.array_equal(noise[0], noise[1])


def test_memory_chunks_do_not_change_the_data(monkeypatch):
    volume = body((5, 16, 16))
    whole = simulate(volume, views=7, photons=1e4)
    monkeypatch.setattr(ct, "_PIXELS_AT_ONCE", 2 * 32 * 32)
    monkeypatch.setattr(ct, "_ENTRIES_AT_ONCE", 3 * 4 * 32 * 32)
    assert np.allclose(simulate(volume, views=7).data, simulate(volume, views=7).data)
    assert np.allclose(simulate(volume, views=7, photons=1e4).data, whole.data, atol=1e-5)


def test_dark_rays_stay_finite():
    dense = body((1, 16, 16), (20.0, 20.0, 1.0))
    metal = replace(dense, array=np.where(dense.array > 0, 30000, dense.array))
    assert simulate(metal).data.max() > 100
    noisy = simulate(metal, photons=100.0, electronic_noise=5.0)
    assert noisy.data.max() == pytest.approx(math.log(100 / ct.FEWEST_PHOTONS), rel=1e-6)


@pytest.mark.parametrize("shape", [(1, 9, 15), (1, 1, 1), (3, 31, 16)])
def test_any_size_and_pixels_that_are_not_square(shape):
    volume = body(shape, (1.0, 1.5, 2.0))
    scan = simulate(volume)
    assert scan.data.shape == scan.geometry.data_shape(shape[0])
    assert scan.data.dtype == np.float32
    assert scan.geometry.pitch_mm == 1.0
    assert scan.grid == volume.grid


@pytest.mark.parametrize("task", CT_TASKS)
def test_views_are_equidistant_and_as_usual_for_the_task(task):
    scan, usual = simulate(body((1, 8, 8)), task=task), task_info(task).usual
    assert scan.task == task
    assert len(scan.geometry.angles_deg) == usual["views"]
    assert np.diff([*scan.geometry.angles_deg, usual["angle_range_deg"]]) == pytest.approx(
        usual["angle_range_deg"] / usual["views"]
    )
    assert simulate(body((1, 8, 8)), task=task, views=3, angle_range_deg=60.0).geometry.angles_deg == (0, 20, 40)


def test_water_value_scales_the_data():
    volume = body((1, 16, 16))
    doubled = simulate(volume, mu_water_per_mm=2 * MU_WATER_PER_MM)
    assert relative_error(doubled.data, 2 * simulate(volume).data) < 0.01
    assert attenuation_to_hu(hu_to_attenuation(volume.array, 0.03), 0.03) == pytest.approx(volume.array, abs=1e-2)


def test_provenance_holds_no_folder_and_the_file_keeps_all(tmp_path):
    volume = replace(body((2, 8, 8)), name="/home/somebody/Doe_Jane/case.nrrd", metadata={"units": "HU"})
    scan = simulate(volume, photons=1e4, seed=5, views=4)
    record = json.dumps(scan.provenance)
    assert "Jane" not in record
    assert scan.provenance["source"] == alias("case.nrrd")
    assert scan.provenance["seed"] == 5
    assert scan.provenance["settings"]["views"] == 4
    assert scan.provenance["version"]
    write(scan, tmp_path / "scan.h5")
    back = read_scan(tmp_path / "scan.h5")
    assert np.array_equal(back.data, scan.data)
    for field in ("geometry", "grid", "stored_grid", "photons", "provenance"):
        assert getattr(back, field) == getattr(scan, field)


class Impatient(Silent):
    def tick(self, stage, done, total, **metrics):
        assert stage == "simulate"
        assert 0 < done <= total
        raise Cancelled


def test_the_monitor_may_end_it():
    with pytest.raises(Cancelled):
        simulate(body((1, 8, 8)), monitor=Impatient())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("task", "mri"),
        ("views", 0),
        ("views", 2.5),
        ("angle_range_deg", 0.0),
        ("angle_range_deg", math.nan),
        ("coarsen", 3),
        ("coarsen", 0),
        ("photons", -1.0),
        ("photons", 0.2),
        ("photons", math.nan),
        ("photons", 1e30),
        ("electronic_noise", -1.0),
        ("electronic_noise", 2.0),
        ("seed", -1),
        ("mu_water_per_mm", 0.0),
        ("mu_water_per_mm", math.nan),
    ],
)
def test_senseless_settings_are_named(setting, value):
    with pytest.raises(InputError, match=setting):
        simulate(body((1, 8, 8)), **{setting: value})


def test_other_units_are_refused():
    volume = replace(body((1, 8, 8)), unit="1/mm")
    for call in (simulate, truth_for):
        with pytest.raises(InputError, match="HU"):
            call(volume)
    with pytest.raises(InputError, match="coarsen"):
        truth_for(body((1, 9, 8)), 2)
