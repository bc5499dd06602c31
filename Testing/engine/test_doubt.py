"""Calibrations as files and by scan, and the doubt of a run from its settings to its files."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import cli
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.estimate import evaluations, stages
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.io.volumes import read_volume
from DiffusionMBIRLib.rates import Pace
from DiffusionMBIRLib.simulation import simulate
from DiffusionMBIRLib.uncertainty.calibrate import SCANS, calibrate, scan_of
from DiffusionMBIRLib.uncertainty.conformal import CLASSES
from DiffusionMBIRLib.uncertainty.cost import TV_SWEEPS
from DiffusionMBIRLib.uncertainty.refine import WIDTHS, Refinement, input_count
from DiffusionMBIRLib.uncertainty.scale import FEATURES, ErrorScale
from DiffusionMBIRLib.uncertainty.signals import NAMES
from DiffusionMBIRLib.uncertainty.table import Entry, Kind, Table, kind_of, read_table, write_table
from DiffusionMBIRLib.uncertainty.unlike import distance, distances_left_out, limit_of, ordinary, usual_of
from DiffusionMBIRLib.volume import Volume
from Testing.engine.training_toys import discs

SETTINGS = ReconSettings.preset("sparse-view")
FACTORS = {"0.9": [1.0, 2.0, 3.0, 4.0], "0.95": [2.0, 3.0, 4.0, 5.0]}


def body(seed: int = 0, side: int = 64) -> Volume:
    array = discs(seed, 3, side // 2).repeat(2, axis=1).repeat(2, axis=2)
    return Volume(array, Grid(array.shape, (2.0, 2.0, 4.0)))


def entry(views: float, scale: float = 1.0, photons: float = 1e9, task: str = "sparse-view-ct") -> Entry:
    factors = {share: [scale * f for f in values] for share, values in FACTORS.items()}
    return Entry(Kind(task, "parallel-beam", views, photons), factors, 5, {"0.9": 0.9, "0.95": 0.95})


def table(*entries: Entry) -> Table:
    return Table("ct-compact-v1", "dual", "CT", 20, entries or (entry(8),))


def flat() -> ErrorScale:
    """Errors of 30 HU everywhere."""
    coefficients = torch.zeros(1, 4, FEATURES)
    coefficients[..., -1] = float(np.log(30 / 2000))
    return ErrorScale(coefficients)


def scan(views: int = 8, **options):
    return simulate(body(), task="sparse-view-ct", coarsen=2, views=views, **options)


def test_a_calibration_comes_back_from_its_file(tmp_path):
    scale, made = flat(), table(entry(8), entry(24, 2.0, 1e5))
    path = write_table(made, scale, tmp_path / "p.calibration.safetensors")
    read, again = read_table(path)
    assert read == made
    assert torch.equal(again.coefficients, scale.coefficients)
    assert again.refinement is None


def refined(inputs: int) -> ErrorScale:
    one, two = WIDTHS
    shapes = [(inputs,), (inputs,), (one, inputs), (one,), (two, one), (two,), (1, two), (1,)]
    generator = torch.Generator().manual_seed(0)
    mean, spread, *layers = (torch.rand(shape, generator=generator) - 0.5 for shape in shapes)
    return replace(flat(), refinement=Refinement(mean, spread + 1, *layers))


def test_a_network_comes_back_from_its_file_and_one_that_does_not_fit_is_refused(tmp_path):
    path, scale = tmp_path / "p.calibration.safetensors", refined(input_count(FEATURES, 4))
    write_table(table(), scale, path)
    again = read_table(path)[1]
    maps = 0.1 * torch.randn(1, len(NAMES), 16, 16, generator=torch.Generator().manual_seed(1))
    kinds = torch.zeros(1, 16, 16, dtype=torch.long)
    assert torch.equal(again(maps, kinds, 1, 8.0), scale(maps, kinds, 1, 8.0))
    assert not torch.allclose(again(maps, kinds, 1, 8.0), again(maps, kinds, 1, 60.0))
    assert path.stat().st_size < 50_000
    tensors = scale.refinement.tensors() | {"coefficients": scale.coefficients}
    for name, wrong in {"first": torch.zeros(2, 3), "last_bias": torch.full((1,), torch.nan), "spread": None}.items():
        damaged = dict(tensors)
        del damaged[f"refinement.{name}"]
        if wrong is not None:
            damaged[f"refinement.{name}"] = wrong
        save_file(damaged, path, {"calibration": json.dumps(asdict(table()))})
        with pytest.raises(InputError, match=r"p\.calibration\.safetensors: is of another version"):
            read_table(path)


@pytest.mark.parametrize(
    "change",
    [
        {"entries": [{"kind": {"task": "t", "geometry": "g", "amount": -1}, "factors": FACTORS}]},
        {"entries": [{"kind": {"task": "t", "geometry": "g", "amount": 8}, "factors": {"0.9": [1]}}]},
        {"entries": [{"kind": {"task": "t", "geometry": "g", "amount": 8}, "factors": FACTORS | {"0.9": ["x"]}}]},
        {"entries": 3},
        {"prior": 7},
    ],
)
def test_damaged_calibrations_are_refused_by_name(tmp_path, change):
    path = tmp_path / "p.calibration.safetensors"
    told = json.loads(json.dumps(asdict(table()))) | change
    save_file({"coefficients": flat().coefficients}, path, {"calibration": json.dumps(told)})
    with pytest.raises(InputError, match=r"p\.calibration\.safetensors") as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


def test_other_files_are_no_calibrations(tmp_path):
    path = tmp_path / "p.calibration.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="is no calibration"):
        read_table(path)
    save_file({"weight": torch.zeros(3)}, path, {"calibration": json.dumps(asdict(table()))})
    with pytest.raises(InputError, match="another version"):
        read_table(path)


def test_a_scan_between_two_takes_the_wider_factors():
    made = table(entry(4, 3.0), entry(24, 1.0))
    found, remarks = made.for_scan(scan(8), SETTINGS)
    assert found.factors["0.9"] == [3.0, 6.0, 9.0, 12.0]
    assert not remarks
    exact, _ = made.for_scan(scan(24), SETTINGS)
    assert exact.factors == FACTORS


def test_the_dose_that_is_nearest_counts():
    made = table(entry(8, 1.0), entry(8, 5.0, photons=1e5))
    assert made.for_scan(scan(8), SETTINGS)[0].factors == FACTORS
    assert made.for_scan(scan(8, photons=3e5), SETTINGS)[0].factors["0.9"][0] == 5.0


def test_a_dose_below_all_that_were_calibrated_widens():
    made = table(entry(8, photons=1e5))
    assert not made.for_scan(scan(8, photons=5e4), SETTINGS)[1]
    wider, remarks = made.for_scan(scan(8, photons=1e4), SETTINGS)
    assert wider.factors["0.9"] == [1.5 * f for f in FACTORS["0.9"]]
    assert len(remarks) == 1
    assert "1e+04 photons" in remarks[0]


def test_outside_the_table_intervals_widen_or_are_refused():
    made = table(entry(8))
    near, remarks = made.for_scan(scan(12), SETTINGS)
    assert near.factors == FACTORS
    assert not remarks
    wider, remarks = made.for_scan(scan(16), SETTINGS)
    assert wider.factors["0.9"] == [1.5 * f for f in FACTORS["0.9"]]
    assert len(remarks) == 1
    assert "widened" in remarks[0]
    with pytest.raises(InputError, match="far outside"):
        made.for_scan(scan(60), SETTINGS)
    with pytest.raises(InputError, match="calibrated for dual"):
        made.for_scan(scan(8), replace(SETTINGS, method="mbir"))
    with pytest.raises(InputError, match="was not calibrated"):
        table(entry(8, task="limited-angle-ct")).for_scan(scan(8), SETTINGS)
    assert made.for_scan(scan(8), replace(SETTINGS, steps=10))[1]


def test_fans_borrow_from_parallel_beams_and_cones_are_refused():
    made = table(entry(8))
    borrowed, remarks = made.for_scan(scan(8, scanner="fan-beam", angle_range_deg=360.0), SETTINGS)
    assert borrowed.factors["0.9"] == [1.5 * f for f in FACTORS["0.9"]]
    assert remarks == ["intervals are those of parallel-beam, widened by half: fan-beam was not calibrated"]
    far, remarks = made.for_scan(scan(16, scanner="fan-beam", angle_range_deg=360.0), SETTINGS)
    assert far.factors["0.9"] == [1.5 * 1.5 * f for f in FACTORS["0.9"]]
    assert len(remarks) == 2
    own = replace(entry(8, 7.0), kind=Kind("sparse-view-ct", "fan-beam", 8))
    assert table(entry(8), own).for_scan(scan(8, scanner="fan-beam", angle_range_deg=360.0), SETTINGS)[0] == own
    for scanner in ("cone-beam", "helical"):
        measured = scan(8, scanner=scanner, angle_range_deg=360.0)
        with pytest.raises(InputError, match=f"by {scanner} was not calibrated"):
            made.for_scan(measured, SETTINGS)


def test_unlike_scans_lie_far_from_the_usual_ones():
    generator = np.random.default_rng(0)
    runs = (generator.normal(size=(12, 5)) * 0.3 + np.arange(5)).tolist()
    usual, limit = usual_of(runs), limit_of(distances_left_out(runs, [str(k) for k in range(12)]))
    assert distance(np.arange(5.0), usual) < 1.5
    assert distance((np.arange(5.0) + [2, 0, 0, 0, 0]).tolist(), usual) > limit > 1
    assert distance(runs[3], usual) < limit


def test_a_feature_that_does_not_go_with_the_others_is_unlike():
    """Each alone within what people have, but never together; a person of two runs is judged by the others."""
    generator = np.random.default_rng(1)
    shared = generator.normal(size=(20, 1))
    runs = shared + 0.1 * generator.normal(size=(20, 3))
    names = [str(k) for k in range(20)]
    usual, distances = usual_of(runs.tolist()), distances_left_out(runs.tolist(), names)
    assert distance([1.0, 1.0, 1.0], usual) < limit_of(distances)
    assert distance([1.0, -1.0, 1.0], usual) > 1.5 * limit_of(distances)
    odd = np.concatenate([runs, [[9.0, 0.0, 0.0]] * 2]).tolist()
    one, two = (distances_left_out(odd, [*names, "x", other]) for other in ("x", "y"))
    assert max(one) > 3 * max(two)
    assert limit_of(distances * 10 + one) < 0.5 * limit_of(one)  # it is one kind of scan in which they are odd


def test_one_odd_person_in_twenty_does_not_make_others_usual():
    """Odd in one kind of scan only, whose other kinds do not hide it; of fewer people all count."""
    generator = np.random.default_rng(2)
    names = [str(k) for k in range(20)]
    kinds = [(generator.normal(size=(20, 3)) * 0.3).tolist() for _ in range(2)]
    kinds[0][7] = [9.0, 0.0, 0.0]
    assert ordinary([(rows, names) for rows in kinds]) == set(names) - {"7"}
    assert ordinary([(rows[:19], names[:19]) for rows in kinds]) == set(names[:19])
    assert ordinary([(kinds[0], names), (kinds[1][:5], names[:5])]) == set(names) - {"7"}


@pytest.fixture
def calibrated(tmp_path, monkeypatch) -> Path:
    """A folder of priors with a calibration of the bundled one, for 8 views, on what the network says as it is."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("DIFFUSIONMBIR_MODELS", str(folder))
    usual = usual_of([[0.0] * 11, [0.1] * 11, [0.2] * 11]) | {"limit": 4.0}
    write_table(table(replace(entry(8), usual=usual)), flat(), folder / "ct-compact-v1.calibration.safetensors")
    return folder


def test_a_run_tells_its_doubt(calibrated):
    measured = scan(8)
    settings = replace(SETTINGS, steps=3, start_sweeps=3, uncertainty=True)
    result = mbir.reconstruct(measured, settings=settings)
    plain = mbir.reconstruct(measured, settings=replace(settings, uncertainty=False))
    assert np.array_equal(result.volume.array, plain.volume.array)
    assert plain.doubt is None
    assert result.nfe == plain.nfe + 2 == evaluations(settings, measured.task, views=8)
    doubt = result.doubt
    assert doubt is not None
    wide, narrow = doubt.intervals["95"].array, doubt.intervals["90"].array
    assert wide.shape == result.volume.array.shape
    assert doubt.intervals["95"].unit == "HU"
    values = result.volume.array
    kinds = CLASSES["CT"].of(values)
    np.testing.assert_allclose(wide, 30 * np.array(FACTORS["0.95"])[kinds], rtol=1e-4)
    np.testing.assert_allclose(narrow, 30 * np.array(FACTORS["0.9"])[kinds], rtol=1e-4)
    assert doubt.filled.array.min() >= 0
    assert doubt.filled.array.max() <= 1
    assert doubt.filled.unit == ""
    assert 0 < doubt.numbers["filled_in"] < 1
    remarks = result.provenance["remarks"]
    assert any("unlike" in line for line in remarks)
    assert any("20 noise levels" in line for line in remarks)
    assert result.provenance["doubt"] == doubt.numbers
    assert doubt.numbers["candidates"] == len(doubt.candidates) == doubt.labels.array.max()
    inside = np.abs(doubt.part.array) > 0
    assert inside.any()
    assert doubt.part.unit == doubt.against_tv.unit == "HU"
    tv = replace(settings, method="admm-tv", uncertainty=False)
    smooth = mbir.reconstruct(measured, settings=replace(tv, tv_sweeps=TV_SWEEPS["CT"]))
    expected = result.volume.array - smooth.volume.array
    np.testing.assert_allclose(doubt.against_tv.array, expected, atol=0.5)


def test_what_doubt_takes_is_told_before_the_run():
    settings, shape, pace = replace(SETTINGS, uncertainty=True), (40, 128, 128), Pace(network=1e-6, solver=1e-10)
    plain = stages(shape, SETTINGS, "sparse-view-ct", pace=pace)
    doubting = stages(shape, settings, "sparse-view-ct", pace=pace)
    assert list(doubting) == [*plain, "doubt"]
    assert {stage: doubting[stage] for stage in plain} == plain
    assert doubting["doubt"] > 2 * 1e-6 * 40 * 128**2
    classical = replace(settings, method="sirt")
    assert "doubt" not in stages(shape, classical, "sparse-view-ct", pace=pace)


def test_what_nobody_calibrated_is_refused_before_the_run(calibrated):
    with pytest.raises(InputError, match="setting uncertainty"):
        mbir.reconstruct(scan(60), settings=replace(SETTINGS, uncertainty=True))
    (calibrated / "ct-compact-v1.calibration.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="is no calibration"):
        mbir.reconstruct(scan(8), settings=replace(SETTINGS, uncertainty=True))


def test_the_command_writes_the_volumes_beside_the_result(calibrated, tmp_path, capsys):
    scan(8).save(tmp_path / "scan.h5")
    out = tmp_path / "recon.nrrd"
    options = ["--steps", "2", "--start-sweeps", "2", "--uncertainty", "--quiet"]
    assert cli.main(["reconstruct", str(tmp_path / "scan.h5"), "-o", str(out), *options]) == 0
    said = capsys.readouterr().out
    for part in ("interval-90", "interval-95", "filled"):
        assert (tmp_path / f"recon-{part}.nrrd").is_file()
        assert f"recon-{part}.nrrd" in said


def test_a_calibration_is_made_and_taken_up_again(tmp_path, monkeypatch):
    paths = []
    for k in range(4):
        paths.append(tmp_path / f"p{k}.nrrd")
        body(k).save(paths[-1])
    options = {"prior": "ct-compact-v1", "scans": ("8-views-noise-free",), "slices": 1}
    path = calibrate(paths, tmp_path / "out", **options)
    made, _ = read_table(path)
    assert [e.kind.amount for e in made.entries] == [8.0]
    assert made.entries[0].people == 4
    assert made.entries[0].kind == kind_of(scan(8))
    runs = sorted((tmp_path / "out" / "runs").iterdir())
    before = [run.stat().st_mtime_ns for run in runs]
    runs[0].write_bytes(b"half")
    calibrate(paths, tmp_path / "out", **options)
    after = [run.stat().st_mtime_ns for run in runs]
    assert after[0] != before[0]
    assert after[1:] == before[1:]
    assert not any("p0" in run.name for run in runs)  # names of files may be those of people
    weighed, _ = read_table(calibrate(paths, tmp_path / "out", seen=["p0.nrrd", "p1.nrrd"], **options))
    assert weighed.entries[0].people == 4
    assert weighed.entries[0].factors != made.entries[0].factors
    with pytest.raises(InputError, match="at least 4 people"):
        calibrate(paths[:3], tmp_path / "out", **options)
    with pytest.raises(InputError, match="--scans"):
        calibrate(paths, tmp_path / "out", prior="ct-compact-v1", scans=("no",))


def test_mri_is_calibrated_and_its_runs_tell_their_doubt(tmp_path, monkeypatch):
    """Complex volumes of several coils: half-widths, shares and differences are of their magnitude."""
    paths = []
    for k in range(4):
        paths.append(tmp_path / f"p{k}.nrrd")
        made = body(k)
        replace(made, array=np.maximum(made.array + 1000, 0), unit="").save(paths[-1])
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("DIFFUSIONMBIR_MODELS", str(folder))
    calibrate(paths, folder, prior="mr-compact-v1", modality="MR", scans=("x2-8-coils",), slices=1)
    planned = next(scan for scan in SCANS["MR"] if scan.label == "x2-8-coils")
    measured, truth = scan_of(read_volume(paths[0]), planned, 1)
    settings = ReconSettings.preset("mri", uncertainty=True)
    result = mbir.reconstruct(measured, settings=settings)
    assert result.nfe == evaluations(settings, measured.task)
    doubt = result.doubt
    assert doubt is not None
    within = np.abs(result.volume.array - truth.array) <= doubt.intervals["95"].array
    assert within.mean() > 0.9  # it was one of the calibration
    rest = result.volume.array - doubt.part.array  # the magnitude of the measured part
    assert rest.min() > -1e-3 * rest.max()
    assert (doubt.against_tv.array != 0).any()
