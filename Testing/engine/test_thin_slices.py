"""Thin slices from thick ones: profiles, their operator, the way back in closed form, and whole reconstructions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline

from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.denoisers import SliceDenoiser
from DiffusionMBIRLib.errors import Cancelled, InputError
from DiffusionMBIRLib.geometry import Grid, SliceProfiles, geometry_from_dict
from DiffusionMBIRLib.models import ModelCard
from DiffusionMBIRLib.operators.slices import SliceMeans
from DiffusionMBIRLib.preparation.thick_slices import thick_slices
from DiffusionMBIRLib.problems.slices import noise_of_slices
from DiffusionMBIRLib.reconstruction import reconstruct
from DiffusionMBIRLib.scans import ThickSlices
from DiffusionMBIRLib.simulation import simulate, truth_for
from DiffusionMBIRLib.solvers.slices import SliceProjection, spline
from DiffusionMBIRLib.volume import Volume
from Testing.engine.helpers import body, rotation
from Testing.engine.memory import LiveBytes
from Testing.engine.operators_contract import assert_operator
from Testing.engine.sampling import Keeper, network

GRID = Grid((23, 4, 5), (1.1, 0.9, 0.8), (3.0, -2.0, 7.0))
TABLE = {"profile": "table", "offsets_mm": (-3.0, -1.0, 0.0, 2.5), "response": (0.0, 0.7, 1.0, 0.1)}
PROFILES = {
    "integer": (2.4, 2.4, {}),
    "not integer": (2.9, 2.9, {}),
    "gaps": (3.0, 2.1, {}),
    "overlap": (2.4, 4.1, {}),
    "gaussian": (2.4, 2.4, {"profile": "gaussian"}),
    "table": (2.4, 3.0, TABLE),
}


def stack(name: str, grid: Grid = GRID) -> SliceProfiles:
    distance, thickness, more = PROFILES[name]
    count = int(grid.shape[0] * grid.spacing_mm[2] / distance)
    return SliceProfiles(
        tuple((k - (count - 1) / 2) * distance for k in range(count)), thickness, grid.in_plane, **more
    )


@pytest.mark.parametrize("name", PROFILES)
def test_the_adjoint_is_exact_and_constants_stay(name):
    operator = SliceMeans(stack(name), GRID, dtype=torch.float64)
    assert_operator(operator, name)
    torch.testing.assert_close(operator @ operator.domain.ones(), operator.range.ones(), rtol=0, atol=1e-12)

    assert geometry_from_dict(stack(name).to_dict()) == stack(name)


@pytest.mark.parametrize("name", PROFILES)
def test_shares_are_integrals_of_the_profile(name):
    """By a sum over fine steps of the profile as the class's words describe it."""
    geometry, fine = stack(name), 4000
    edge, spacing = GRID.shape[0] * 0.8 / 2, 0.8
    places = (np.arange(GRID.shape[0] * fine) + 0.5) * spacing / fine - edge
    for shares, middle in zip(geometry.matrix(GRID), geometry.places_mm, strict=True):
        off = places - middle
        if geometry.profile == "gaussian":
            weight = 0.5 ** ((2 * off / geometry.thickness_mm) ** 2)
        elif geometry.profile == "table":
            weight = np.interp(off, geometry.offsets_mm, geometry.response, left=0, right=0)
        else:
            weight = (np.abs(off) < geometry.thickness_mm / 2).astype(float)
        expected = weight.reshape(-1, fine).sum(1)
        np.testing.assert_allclose(shares, expected / expected.sum(), atol=3e-4)


def test_with_an_integer_factor_thick_slices_are_means_of_their_thin_ones():
    geometry = SliceProfiles((-2.4, 0.0, 2.4), 2.4, (4, 5))
    expected = np.kron(np.eye(3), np.full(3, 1 / 3))
    np.testing.assert_allclose(geometry.matrix(Grid((9, 4, 5), (1, 1, 0.8))), expected, atol=1e-12)


@pytest.mark.parametrize("name", ["integer", "gaps", "gaussian"])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_the_data_step_is_the_minimum_that_it_says(name, ridge):
    """By dense least squares on [S / noise; 1 / sigma]; without noise by the pseudo-inverse."""
    means = SliceMeans(stack(name), GRID, dtype=torch.float64)
    norm, generator = means.norm(), np.random.default_rng(4)
    x, y = generator.normal(size=GRID.shape), generator.normal(size=means.range.shape)
    step = SliceProjection(means.scaled(1 / norm), torch.from_numpy(y), means, noise=math.sqrt(ridge) * 0.2)
    found = step(torch.from_numpy(x), 0.2).numpy()
    shares, flat, data = means.shares / norm, x.reshape(len(x), -1), y.reshape(len(y), -1)
    if ridge:
        system = np.concatenate([shares / math.sqrt(ridge), np.eye(len(x))])
        expected = np.linalg.lstsq(system, np.concatenate([data / math.sqrt(ridge), flat]), rcond=None)[0]
    else:
        expected = flat + np.linalg.pinv(shares) @ (data - shares @ flat)
    np.testing.assert_allclose(found.reshape(len(x), -1), expected, atol=1e-4 if not ridge else 1e-6)


def test_the_spline_is_the_natural_one_through_mirrored_slices():
    geometry = stack("not integer")
    values = np.random.default_rng(1).normal(size=len(geometry.places_mm))
    mirrored = np.concatenate([values[3::-1], values, values[:-5:-1]])
    first, distance = geometry.places_mm[0], geometry.distance_mm
    curve = CubicSpline(first + distance * (np.arange(len(mirrored)) - 4), mirrored, bc_type="natural")
    wanted = (np.arange(23) - 11) * 0.8
    np.testing.assert_allclose(spline(geometry, GRID) @ values, curve(wanted), atol=1e-10)


def test_planes_are_seen_in_turn_and_in_chunks():
    seen = []

    class Watcher:
        sigma_min, sigma_max, card = 0.01, 10.0, ModelCard(id="w", modality="any")

        def denoise(self, x, sigma):
            seen.append(tuple(x.shape))
            return x * 2

    denoise = SliceDenoiser(Watcher(), 2, axes=(1, 2))
    x = torch.randn(6, 3, 4)
    for _ in range(2):
        assert torch.equal(denoise(x, 0.1), x * 2)
    assert seen == [(2, 1, 6, 4), (1, 1, 6, 4), (2, 1, 6, 3), (2, 1, 6, 3)]
    resumed = SliceDenoiser(Watcher(), 9, axes=(1, 2))
    resumed.counter.evaluations = 1
    resumed(x, 0.1)
    assert seen[-1] == (4, 1, 6, 3)


def thin(shape=(12, 24, 20)) -> Volume:
    return body(shape, (1.0, 1.0, 1.0))


def settings(**changes) -> ReconSettings:
    return ReconSettings.preset("thin-slices", steps=3, device="cpu", precision="float32", **changes)


@pytest.mark.parametrize("method", ["spline-projected", "planes", "admm-tv"])
def test_measured_slices_come_back(method):
    scan = simulate(thin(), task="thin-slices", thickness_mm=3.0)
    changes = {"tv_lam": 1e-5, "tv_sweeps": 40} if method == "admm-tv" else {}
    result = reconstruct(scan, prior=network(), settings=settings(method=method, noise_weight=0.0, **changes))
    found = result.volume.array.reshape(4, 3, 24, 20).mean(1)
    assert np.abs(found - scan.data).max() < (0.05 if method != "admm-tv" else 20.0)
    assert np.abs(scan.data - thin().array.reshape(4, 3, 24, 20).mean(1)).max() < 1e-3
    assert result.volume.grid == truth_for(thin(), task="thin-slices").grid


def test_noisy_slices_come_back_within_their_noise():
    noise = 40.0
    clean = thin((24, 40, 40))
    noisy = replace(clean, array=clean.array + np.random.default_rng(0).normal(0, noise * 3**0.5, clean.array.shape))
    scan = simulate(noisy, task="thin-slices", thickness_mm=3.0)
    found = reconstruct(scan, prior=network(), settings=settings(noise_weight=1.0)).volume.array
    off = found.reshape(8, 3, 40, 40).mean(1) - scan.data
    assert 0.01 * noise < off.std() < noise


def test_noise_is_told_from_structure():
    clean = body((8, 64, 64), (1.0, 1.0, 1.0)).array.astype(np.float32)
    noisy = clean + np.random.default_rng(0).normal(0, 25.0, clean.shape)
    assert noise_of_slices(noisy, -800.0) == pytest.approx(25.0, rel=0.1)
    assert noise_of_slices(clean, -800.0) < 2.0
    assert noise_of_slices(noisy[:, :2], -800.0) == 0.0


def test_a_run_that_is_taken_up_ends_in_the_same_volume():
    scan = simulate(thin(), task="thin-slices", thickness_mm=3.0)

    class Stop:
        def tick(self, stage, done, total, **metrics):
            if stage == "diffusion" and done == 2:
                raise Cancelled("enough")

        def preview(self, estimate, step):
            previews.append(step)

        def poll(self):
            return None

    previews: list[int] = []
    keeper, chosen = Keeper(), settings(samples=2)
    whole = reconstruct(scan, prior=network(), settings=chosen)
    with pytest.raises(Cancelled):
        reconstruct(scan, prior=network(), settings=chosen, monitor=Stop(), checkpoint=keeper)
    again = reconstruct(scan, prior=network(), settings=chosen, checkpoint=keeper)
    assert np.array_equal(again.volume.array, whole.volume.array)
    assert np.array_equal(again.deviation.array, whole.deviation.array)
    assert again.nfe == whole.nfe == 6
    assert previews[0] == 0  # the projected spline


def test_a_scan_survives_its_file_and_the_thick_volume_makes_the_same_scan(tmp_path):
    from DiffusionMBIRLib import read, read_volume

    scan = simulate(thin(), task="thin-slices", thickness_mm=2.0, distance_mm=3.0, profile="gaussian")
    scan.save(tmp_path / "scan.h5")
    back = read(tmp_path / "scan.h5")
    assert back.geometry == scan.geometry
    assert np.array_equal(back.data, scan.data)
    scan.thick().save(tmp_path / "thick.nrrd")
    volume = read_volume(tmp_path / "thick.nrrd")
    again = thick_slices(volume, spacing_mm=1.0, profile="gaussian")
    assert again.geometry == scan.geometry
    assert again.geometry.thickness_mm == 2.0
    assert again.grid == scan.grid
    assert any("gaps" in note for note in again.notes)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_oblique_volumes_stay_where_they_lie(axis):
    """The middle of each thick slice is that of its thin ones, in the world, whatever axis is thick."""
    shape, spacing = [20, 20, 20], [1.0, 1.0, 1.0]
    shape[axis], spacing[2 - axis] = 5, 3.0
    direction = tuple(rotation((20, -35, 50)).reshape(-1))
    grid = Grid(tuple(shape), tuple(spacing), (11.0, -3.0, 8.0), direction)
    array = np.random.default_rng(2).normal(0, 100, shape).astype(np.float32)
    scan = thick_slices(Volume(array, grid), spacing_mm=1.0)
    found = reconstruct(scan, settings=settings(method="spline-projected")).volume
    expected = list(shape)
    expected[axis] = 15
    assert found.grid.shape == tuple(expected)
    assert found.grid.spacing_mm == (1.0, 1.0, 1.0)
    middle = [
        np.asarray(g.origin_mm) + g.matrix @ ((np.asarray(g.shape[::-1]) - 1) / 2 * np.asarray(g.spacing_mm))
        for g in (grid, found.grid)
    ]
    np.testing.assert_allclose(middle[0], middle[1], atol=1e-9)
    parts = np.moveaxis(found.array, axis, 0).reshape(5, 3, *np.delete(shape, axis)).mean(1)
    np.testing.assert_allclose(parts, np.moveaxis(array, axis, 0), atol=2e-3)  # float32 around -1000 HU
    np.testing.assert_allclose(scan.thick().array, array, atol=1e-6)
    assert np.allclose(scan.thick().grid.origin_mm, grid.origin_mm)


def thick(spacing=5.0, count=6, **metadata) -> Volume:
    volume = body((count, 12, 12), (1.0, 1.0, spacing))
    return replace(volume, metadata={k: str(v) for k, v in metadata.items()})


REFUSED = {
    "one slice": (thick(count=1), {"spacing_mm": 2.0}, "holds one slice"),
    "thickness against distance": (thick(slice_thickness_mm=40), {"spacing_mm": 2.0}, "SliceThickness of 40 mm contra"),
    "given thickness": (thick(), {"thickness_mm": 1.0, "spacing_mm": 2.0}, "thickness_mm of 1 mm contradicts"),
    "coarser": (thick(), {"spacing_mm": 6.0}, "would be no thinner"),
    "too fine": (thick(), {"spacing_mm": 1.0}, "CT carries 4; use 1.25 mm or more"),
    "no unit": (replace(thick(), unit=""), {"spacing_mm": 2.0, "task": "thin-slices-mri"}, ""),
    "profile": (thick(), {"spacing_mm": 2.0, "profile": "triangle"}, "is neither box, gaussian nor a file"),
    "isotropic": (thick(spacing=1.0), {}, "would be no thinner"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_told_in_one_line(name):
    volume, given, line = REFUSED[name]
    if not line:
        assert thick_slices(volume, **given).task == "thin-slices-mri"
        return
    with pytest.raises(InputError) as caught:
        thick_slices(volume, **given)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_uneven_slices_and_tables_that_are_none_are_refused(tmp_path):
    with pytest.raises(InputError, match="slices lie 2 to 4 mm apart"):
        SliceProfiles((0.0, 2.0, 6.0), 2.0, (4, 4))
    for text in ("1 2 3\n4 5 6\n", "a b\n", "1 2\n"):
        (tmp_path / "profile.txt").write_text(text)
        with pytest.raises(InputError, match="must hold two columns"):
            thick_slices(thick(), spacing_mm=2.0, profile=str(tmp_path / "profile.txt"))
    (tmp_path / "profile.txt").write_text("-3,0\n0,1\n3,0\n")
    scan = thick_slices(thick(), spacing_mm=2.5, profile=str(tmp_path / "profile.txt"))
    assert scan.geometry.response == (0.0, 1.0, 0.0)
    with pytest.raises(InputError, match="lies outside the grid"):
        ThickSlices(np.zeros((2, 4, 4), np.float32), SliceProfiles((0.0, 90.0), 3.0, (4, 4)), Grid((6, 4, 4)))


def test_guesses_are_told_and_limits_can_be_left():
    scan = thick_slices(thick())
    assert scan.grid.spacing_mm[2] == 1.25  # a quarter of 5 mm, as pixels of 1 mm are beyond the limit
    assert any("thin slices 1.25 mm apart" in note for note in scan.notes)
    assert any("tells no SliceThickness" in note for note in scan.notes)
    far = thick_slices(thick(slice_thickness_mm=5), spacing_mm=0.5, beyond_limit=True)
    assert far.grid.shape[0] == 60
    assert any("mostly the prior's" in note for note in far.notes)
    assert not any("SliceThickness" in note for note in far.notes)
    positive = replace(thick(), array=np.abs(thick().array))
    assert thick_slices(positive, spacing_mm=2.5).task == "thin-slices-mri"
    assert any("names no modality" in note for note in thick_slices(positive, spacing_mm=2.5).notes)


def test_mri_counts_in_its_own_unit():
    """The same volume in other units gives the same result in these units."""
    volume = replace(thin(), array=(thin().array + 1000.0).astype(np.float32), unit="")
    results = []
    for gain in (1.0, 50.0):
        scan = simulate(replace(volume, array=volume.array * gain), task="thin-slices-mri", thickness_mm=3.0)
        prior = network()
        prior.card = replace(prior.card, modality="any")
        chosen = ReconSettings.preset("thin-slices-mri", steps=2, device="cpu", precision="float32")
        results.append(reconstruct(scan, prior=prior, settings=chosen).volume)
    np.testing.assert_allclose(results[1].array, 50 * results[0].array, rtol=1e-3, atol=1.0)
    assert results[0].unit == ""


def test_a_run_holds_four_volumes_at_most_beside_the_network():
    """Counted with a prior that keeps nothing and planes in small chunks."""

    class Shrinking:
        sigma_min, sigma_max, card = 0.01, 10.0, ModelCard(id="s", modality="CT")

        def denoise(self, x, sigma):
            return x * 0.9

    scan = simulate(body((48, 40, 40), (1.0, 1.0, 1.0)), task="thin-slices", thickness_mm=4.0)
    with LiveBytes() as live:
        reconstruct(scan, prior=Shrinking(), settings=settings(slices_per_batch=2))
    assert live.peak < 4 * 4 * 48 * 40 * 40
