"""Steps from counts to line integrals: each on a scan with one known fault, and on a clean one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.preparation.angles import in_degrees, perhaps_radians
from DiffusionMBIRLib.preparation.bad_pixels import dead_pixels
from DiffusionMBIRLib.preparation.consistency import check_views
from DiffusionMBIRLib.preparation.lost_views import lost_views
from DiffusionMBIRLib.preparation.parallel import ParallelScan, measurement_of
from DiffusionMBIRLib.preparation.rotation_axis import is_full_turn
from DiffusionMBIRLib.preparation.told import Told
from DiffusionMBIRLib.preparation.zingers import without_zingers
from Testing.engine.scans import DISCS, counted, lines_of, told

HALF_TURN = np.arange(60) * 3.0


def noisy_counts(line: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    counts, flat, dark = counted(line)
    return np.random.default_rng(seed).poisson(counts).astype(float), flat, dark


def scan(counts, flat, dark, angles=HALF_TURN, told=None, **more):
    return measurement_of(ParallelScan("scan", "test", counts, flat, dark, np.asarray(angles), **more), told or Told())


@pytest.mark.parametrize("views", [8, 60, 181])
@pytest.mark.parametrize("noise", [False, True])
def test_a_clean_scan_is_left_as_it_is(views, noise):
    angles = np.arange(views) * 180 / views
    line = lines_of(angles)
    counts, flat, dark = noisy_counts(line) if noise else counted(line)
    measured = scan(counts, flat, dark, angles)
    expected = -np.log((counts - dark) / (flat - dark)).swapaxes(0, 1)
    np.testing.assert_allclose(measured.data, expected, atol=1e-5)
    assert measured.provenance["remarks"] == []
    found = check_views(measured.data, angles)
    assert found.stray < 0.1
    assert found.spread < 0.02
    assert found.complaint == ""


@pytest.mark.parametrize("strength", [1.3, 3.0, 40.0])
def test_zingers_take_their_neighbours_median(strength):
    line = lines_of(HALF_TURN)
    counts, flat, dark = noisy_counts(line)
    spots = [(3, 0, 10), (20, 1, 33), (20, 1, 34), (40, 2, 5), (59, 2, 63)]
    for spot in spots:
        counts[spot] *= strength
    measured = scan(counts, flat, dark)
    assert f"{len(spots)} zingers" in told(measured)
    assert np.abs(measured.data - line.swapaxes(0, 1)).max() < 0.15


def test_what_stays_in_place_is_no_zinger():
    angles = np.arange(90) * 2.0
    pores = ((0.0, 0.0, 20.0, 0.05), (0.2, 0.3, 1.0, -0.05), (8.0, -3.0, 0.6, -0.05), (-5.0, 9.0, 0.7, 0.5))
    _, found = without_zingers(lines_of(angles, discs=pores).astype(np.float32), angles)
    assert found == 0


def test_readings_lost_in_single_views():
    counts, flat, dark = noisy_counts(lines_of(HALF_TURN))
    counts[15, 1, 30] = dark[1, 30]
    measured = scan(counts, flat, dark)
    assert "1 zingers" in told(measured)
    assert measured.data[1, 15, 30] == pytest.approx(lines_of(HALF_TURN)[15, 1, 30], abs=0.15)


@pytest.mark.parametrize("value", ["dead", "hot", "stuck"])
def test_pixels_dead_after_the_flat(value):
    line = lines_of(HALF_TURN)
    counts, flat, dark = noisy_counts(line)
    counts[:, 1, 22] = {"dead": 100.0, "hot": 65535.0, "stuck": 9000.0}[value]
    counts[:, 2, 40:42] = {"dead": 100.0, "hot": 65535.0, "stuck": 2000.0}[value]
    measured = scan(counts, flat, dark)
    assert "3 dead or stuck pixels" in told(measured)
    np.testing.assert_array_equal(measured.data[1, :, 22], measured.data[1, :, 21])
    assert np.abs(measured.data - line.swapaxes(0, 1)).max() < 0.4  # a neighbour's value


def test_a_dead_column():
    counts, flat, dark = noisy_counts(lines_of(HALF_TURN, rows=1))
    counts[:, :, 17] = 100.0
    assert "1 dead or stuck pixels" in told(scan(counts, flat, dark))


def test_an_object_on_the_axis_is_no_dead_pixel():
    for rows in (1, 3):
        wire = ((0.0, 0.0, 20.0, 0.02), (0.0, 0.0, 0.9, 1.2), (8.0, 2.0, 3.0, 0.02))
        assert not dead_pixels(lines_of(HALF_TURN, rows=rows, axis=31.0, discs=wire)).any()


@pytest.mark.parametrize("factor", [0.0, 1e-3, 30.0])
def test_lost_views_are_left_out(factor):
    line = lines_of(HALF_TURN)
    counts, flat, dark = noisy_counts(line)
    for view in (0, 17, 18, 59):
        counts[view] = dark + factor * (counts[view] - dark) if factor < 1 else flat  # no beam; no object
    measured = scan(counts, flat, dark)
    assert "4 of 60 views are left out" in told(measured)
    assert measured.geometry.angles_deg == tuple(np.delete(HALF_TURN, [0, 17, 18, 59]))
    np.testing.assert_allclose(measured.data, np.delete(line, [0, 17, 18, 59], axis=0).swapaxes(0, 1), atol=0.15)


def test_a_scan_without_beam_is_refused():
    counts, flat, dark = counted(lines_of(HALF_TURN))
    counts[20:] = dark
    with pytest.raises(InputError, match="no beam"):
        scan(counts, flat, dark)


def test_views_of_a_long_object_are_not_lost():
    """A plate is seen from its side for a few views only."""
    plate = tuple((x, 0.0, 2.0, 0.02) for x in np.arange(-24.0, 25.0, 2.0))
    assert not lost_views(lines_of(HALF_TURN, discs=plate)).any()


@pytest.mark.parametrize("kind", ["shuffled", "half shuffled", "wrong range"])
def test_views_that_do_not_fit_their_angles_are_told(kind):
    order = np.arange(60)
    if kind != "wrong range":
        part = slice(0, 60 if kind == "shuffled" else 30)
        order[part] = np.random.default_rng(0).permutation(order[part])
    counts, flat, dark = noisy_counts(lines_of(HALF_TURN)[order])
    measured = scan(counts, flat, dark, 2 * HALF_TURN if kind == "wrong range" else HALF_TURN, told=Told(axis=31.5))
    assert "do not fit their angles" in told(measured)


def test_a_beam_that_changes_is_told():
    line = lines_of(HALF_TURN)
    line *= np.linspace(1, 1.6, 60)[:, None, None]
    assert "varies by" in told(scan(*counted(line)))


def test_other_angles_are_taken_where_they_fit_better():
    order = np.random.default_rng(0).permutation(60)
    counts, flat, dark = noisy_counts(lines_of(HALF_TURN)[order])
    offered = [(HALF_TURN[::-1], "backwards"), (HALF_TURN[order], "by the second number")]
    measured = scan(counts, flat, dark, alternatives=offered)
    assert measured.geometry.angles_deg == tuple(HALF_TURN[order])
    assert "by the second number" in told(measured)
    right = scan(*noisy_counts(lines_of(HALF_TURN)), alternatives=offered)
    assert right.geometry.angles_deg == tuple(HALF_TURN)


def test_units_of_angles():
    radians = np.linspace(0, np.pi, 30)
    for listed, unit in ((radians, ""), (radians, "rad"), (radians, "radians"), (2 * radians[:-1], "")):
        degrees, guess, _ = in_degrees(listed, unit)
        np.testing.assert_allclose(degrees, np.degrees(listed))
        assert bool(guess) is not bool(unit)
    for listed in (np.linspace(0, 180, 30), np.linspace(-90, 89, 60), np.zeros(4), np.array([0.0, 1.0])):
        degrees, guess, doubt = in_degrees(listed)
        assert degrees.tolist() == listed.tolist()
        assert (guess, doubt) == ("", "")
    degrees, _, doubt = in_degrees(radians, "degrees")
    assert degrees.max() < 4
    assert "radians?" in doubt


def test_radians_of_several_turns():
    """The golden angle, 111.25 degrees, as it is added up."""
    radians = 1.9416 * np.arange(60)
    counts, flat, dark = noisy_counts(lines_of(np.degrees(radians)))
    measured = scan(counts, flat, dark, radians, alternatives=perhaps_radians(radians, ""))
    assert measured.geometry.angles_deg == pytest.approx(tuple(np.degrees(radians)))
    assert "radians" in told(measured)
    counts, flat, dark = noisy_counts(lines_of(radians))
    measured = scan(counts, flat, dark, radians, alternatives=perhaps_radians(radians, ""))
    assert measured.geometry.angles_deg == tuple(radians)
    assert perhaps_radians(radians, "degrees") == []


@pytest.mark.parametrize("shuffled", [False, True])
def test_order_of_a_scan_that_is_cut_off(shuffled):
    cut = ((0.0, 5.0, 60.0, 0.01), (-12.0, 6.0, 9.0, 0.03), (5.0, 18.0, 6.0, 0.02))
    order = np.random.default_rng(0).permutation(60) if shuffled else np.arange(60)
    counts, flat, dark = noisy_counts(lines_of(HALF_TURN, discs=cut)[order])
    said = told(scan(counts, flat, dark, told=Told(axis=31.5)))
    assert "cut off" in said
    assert ("do not fit their angles" in said) is shuffled


@pytest.mark.parametrize("views", [40, 91, 121, 361])
@pytest.mark.parametrize("axis", [12.2, 28.3])
def test_axis_of_a_full_turn(views, axis):
    """An odd number of views has no opposite ones."""
    angles = np.linspace(0, 360, views, endpoint=views == 361)
    wide = ((0.0, 0.0, 44.0, 0.008), (20.0, 10.0, 8.0, 0.008), (-25.0, -12.0, 6.0, -0.006), (5.0, -30.0, 5.0, 0.01))
    line = lines_of(angles, axis=axis, discs=wide if axis < 20 else DISCS)
    found = scan(*noisy_counts(line), angles)
    assert 31.5 - found.geometry.offset_mm == pytest.approx(axis, abs=0.2)


def test_full_turns():
    assert is_full_turn(np.arange(0, 360, 3.0))
    assert is_full_turn(np.arange(-180, 180, 1.0))
    assert not is_full_turn(np.arange(0, 180, 3.0))
    assert not is_full_turn(np.arange(0, 300, 3.0))


def test_what_the_user_knows():
    counts, flat, dark = counted(lines_of(HALF_TURN, axis=28.0))
    measured = scan(counts, flat, dark, told=Told(pixel_mm=0.25, axis=27.0))
    assert measured.geometry.pitch_mm == 0.25
    assert measured.geometry.offset_mm == pytest.approx((31.5 - 27.0) * 0.25)
    assert measured.grid.spacing_mm == (0.25, 0.25, 0.25)
    guessed = " ".join(measured.provenance["guessed"])
    assert "pixels of" not in guessed
    assert "axis" not in guessed
    default = scan(counts, flat, dark)
    assert measured.mu_water_per_mm == pytest.approx(4 * default.mu_water_per_mm)
    for wrong in ({"pixel_mm": 0.0}, {"pixel_mm": float("nan")}, {"axis": float("inf")}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Told(**wrong)
    with pytest.raises(InputError, match="outside the detector"):
        scan(counts, flat, dark, told=Told(axis=64.0))


def test_given_line_integrals_must_be_some():
    line = lines_of(HALF_TURN)
    measured = scan(line, None, None)
    np.testing.assert_allclose(measured.data, line.swapaxes(0, 1), atol=1e-6)
    for values, words in ((counted(line)[0], "no line integrals"), (np.exp(-line), "transmissions")):
        with pytest.raises(InputError, match=words):
            scan(values, None, None)


def test_our_own_files_are_checked_too(tmp_path):
    order = np.random.default_rng(0).permutation(60)
    for name, line in (("right", lines_of(HALF_TURN)), ("wrong", lines_of(HALF_TURN)[order])):
        good = scan(lines_of(HALF_TURN), None, None)
        mbir.write(replace(good, data=line.swapaxes(0, 1).astype(np.float32)), tmp_path / f"{name}.h5")
        remarks = " ".join(mbir.read(tmp_path / f"{name}.h5").provenance["remarks"])
        assert ("do not fit their angles" in remarks) is (name == "wrong")
