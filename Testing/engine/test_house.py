"""A new scanner, method or file format is one class: all that shows, reads, saves or runs things takes it as it is."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import formats
from DiffusionMBIRLib.cli import main, reconstruct
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.describe import describe_scan
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.estimate import estimate, evaluations, stages
from DiffusionMBIRLib.geometry import geometry_kind, kinds_of
from DiffusionMBIRLib.geometry.rays import RayGeometry
from DiffusionMBIRLib.jobs.asking import ask
from DiffusionMBIRLib.jobs.folder import JobFolder
from DiffusionMBIRLib.jobs.messages import Finished, Prepared
from DiffusionMBIRLib.methods import METHODS, method, methods_for, settings_used
from DiffusionMBIRLib.operators import projector
from DiffusionMBIRLib.rates import Pace
from DiffusionMBIRLib.scans import same_scan
from DiffusionMBIRLib.simulation.settings import CTScan, scan_settings
from DiffusionMBIRLib.tasks import TASKS
from Testing.engine.helpers import ROOT, body
from Testing.engine.jobs_helpers import run_here, small_prior
from Testing.engine.operators_contract import assert_operator, assert_poses
from Testing.engine.toys import SUFFIX, landweber, sino_files, tilted_beam, write_sino

TASK = "sparse-view-ct"
FAST = ReconSettings(method="admm-tv", tv_sweeps=6, sirt_iterations=8, steps=2, start_sweeps=2, device="cpu")


@pytest.fixture(autouse=True)
def _panel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The panel's own modules can be imported, and what runs note of their pace stays here."""
    monkeypatch.syspath_prepend(str(ROOT / "DiffusionMBIR"))
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "data"))


def told(capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, Any]:
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def run_as_job(folder: Path, source: Any, **choices: Any) -> tuple[JobFolder, Finished, list[Any]]:
    """What a worker does, in this process: the classes of these tests are known to no other."""
    job = JobFolder.create(folder / "jobs", *ask(source, choices={"device": "cpu", **choices}))
    return job, *run_here(job)


# --- a scanner


@pytest.fixture
def tilted():
    with tilted_beam() as kind:
        yield kind


@pytest.fixture
def scan(tilted):
    return mbir.simulate(body(), scanner=tilted.KIND, views=9, photons=1e5, seed=3)


@pytest.mark.parametrize("isocentre_mm", [None, (3.0, -2.0, 4.0)])
def test_a_scanner_keeps_the_contract(tilted, isocentre_mm):
    grid = replace(body((3, 9, 11)).grid, isocentre_mm=isocentre_mm)
    geometry = tilted.covering(grid, (0.0, 17.0, 45.0, 90.0, 200.0))
    A = projector(geometry, grid)
    assert_operator(A, "tilted")
    assert_poses(geometry, A, grid)


def test_a_scanner_is_simulated_in_its_own_geometry(tilted, scan):
    assert isinstance(scan.geometry, tilted)
    rows, columns = scan.geometry.detector
    assert scan.data.shape == (rows, 9, columns)
    again = mbir.simulate(body(), scanner=tilted.KIND, views=9, seed=3)
    parallel = mbir.simulate(body(), views=9)
    # The whole body is seen by both: its mass in each view is the same, but for the logarithm of mean intensities.
    per_view = again.data.sum((0, 2)) * scan.geometry.row_mm * scan.geometry.column_mm
    expected = parallel.data.sum((0, 2)) * parallel.geometry.pitch_mm * parallel.grid.spacing_mm[2]
    np.testing.assert_allclose(per_view, expected, rtol=0.03)
    with pytest.raises(InputError, match=f"scanner: 'fun'.*{tilted.KIND}"):
        mbir.simulate(body(), scanner="fun")


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_a_scanner_s_files_are_read_with_every_field(scan, suffix, tmp_path):
    path = tmp_path / f"scan{suffix}"
    scan.save(path)
    assert same_scan(mbir.read(path), scan)


def test_a_scanner_unknown_to_this_version_is_named(tmp_path):
    with tilted_beam() as kind:
        mbir.simulate(body(), scanner=kind.KIND, views=2).save(tmp_path / "scan.h5")
    with pytest.raises(InputError, match="scan.h5: geometry.kind 'tilted-beam' is not known to this version"):
        mbir.read(tmp_path / "scan.h5")
    with pytest.raises(InputError, match="'tilted-beam' is not known"):
        geometry_kind("tilted-beam")


def test_a_scanner_is_described(tilted, scan, tmp_path, capsys):
    scan.save(tmp_path / "scan.h5")
    found = told(capsys, "info", tmp_path / "scan.h5")
    assert found == json.loads(json.dumps(describe_scan(scan)))
    rows, columns = scan.geometry.detector
    expected = {"kind": "measurement", "geometry": "tilted-beam", "views": 9, "tilt_deg": 15.0, "photons": 1e5}
    expected |= {"detector_rows": rows, "detector_columns": columns, "slices": 4}
    assert expected.items() <= found.items()
    from DiffusionMBIRGui import measured, texts

    shape = measured.shape_of(found)
    assert shape == scan.grid.shape
    line = measured.line_of(found, shape)
    assert re.search(r"Tilted beam, 32 x 32 x 4, 2 x 2 x 3 mm, 9 views", line), line
    assert texts.word(tilted.KIND) == "Tilted beam"


def test_a_scanner_is_offered_wherever_one_is_chosen(tilted, tmp_path, capsys):
    assert tilted.KIND in kinds_of(RayGeometry)
    assert isinstance(scan_settings(TASK, {"scanner": tilted.KIND}), CTScan)
    body().save(tmp_path / "body.nrrd")
    options = ("simulate", tmp_path / "body.nrrd", "-o", tmp_path / "scan.h5", "--scanner", tilted.KIND, "--views", 3)
    assert told(capsys, *options, "--quiet")["geometry"] == tilted.KIND
    assert isinstance(mbir.read(tmp_path / "scan.h5").geometry, tilted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["admm-tv", "sirt", "dual", "dual of many views"])
def test_a_scanner_s_data_are_reconstructed(tilted, scan, name, tmp_path):
    if name == "dual of many views":  # the start is made from a part of them
        scan = mbir.simulate(body(), scanner=tilted.KIND, views=61)
    settings = replace(FAST, method=name.partition(" ")[0], prior=str(small_prior(tmp_path)), slices_per_batch=2)
    result = mbir.reconstruct(scan, settings=settings)
    assert result.volume.grid == body().grid
    if settings.method == "dual":  # with a prior that has learnt nothing
        assert np.isfinite(result.volume.array).all()
        assert result.nfe == 2
        return
    truth = mbir.truth_for(body()).array
    assert result.residual < 0.2
    assert np.corrcoef(result.volume.array.ravel(), truth.ravel())[0, 1] > 0.9


def test_a_scanner_without_a_direct_reconstruction_says_so(scan):
    with pytest.raises(
        InputError, match="geometry 'tilted-beam' has no filtered back-projection; use admm-tv"
    ) as error:
        mbir.reconstruct(scan, settings=replace(FAST, method="fbp"))
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="projector 'astra' does not do the geometry 'tilted-beam'; use own"):
        mbir.reconstruct(scan, settings=replace(FAST, projector="astra"))


def test_a_scanner_s_scan_runs_as_a_job(scan, tmp_path):
    job, last, events = run_as_job(tmp_path, scan, method="admm-tv", tv_sweeps=6)
    direct = mbir.reconstruct(scan, settings=replace(FAST, fbp_filter="ramp", preconditioner=0.0))
    assert not last.partial
    prepared = next(event for event in events if isinstance(event, Prepared))
    assert (prepared.views, prepared.shape) == (9, [4, 32, 32])
    found = mbir.read_volume(job.result_path)
    np.testing.assert_array_equal(found.array, direct.volume.array)
    assert found.grid == direct.volume.grid


def test_a_scanner_is_simulated_within_a_job(tilted, tmp_path):
    choices = {"scanner": tilted.KIND, "views": 7, "seed": 5, "method": "sirt", "sirt_iterations": 4}
    job, last, _ = run_as_job(tmp_path, body(), **choices)
    scan = mbir.simulate(body(), scanner=tilted.KIND, views=7, seed=5)
    direct = mbir.reconstruct(scan, settings=replace(FAST, method="sirt", sirt_iterations=4))
    np.testing.assert_array_equal(mbir.read_volume(job.result_path).array, direct.volume.array)
    assert last.metrics


def test_a_scanner_s_scan_is_estimated(scan):
    known = estimate(scan.grid.shape, FAST, scan.task, views=scan.geometry.views, pace=Pace(solver=1e-9))
    assert known.seconds
    assert known.memory_bytes > 1e8


# --- a method


@pytest.fixture
def way():
    with landweber() as cls:
        yield cls


def test_a_method_is_offered_wherever_one_is_chosen(way, capsys):
    assert list(METHODS).index("sirt") < list(METHODS).index(way.name) + 1 < list(METHODS).index("fbp") + 1
    assert way.name in methods_for(TASK)
    assert way.name not in methods_for("compressed-sensing-mri")
    assert ReconSettings(method=way.name).method == way.name
    parser = argparse.ArgumentParser()
    reconstruct.add_options(parser)
    assert parser.parse_args(["a.h5", "-o", "b.nrrd", "--method", way.name]).method == way.name
    assert way.name in parser.format_help()
    with pytest.raises(InputError, match="'landweber' does not fit the task compressed-sensing-mri"):
        ask(np.ones((2, 8, 8)), task="compressed-sensing-mri", choices={"method": way.name})


def test_a_method_shows_its_own_settings_and_label(way):
    from DiffusionMBIRGui import texts

    used = set(settings_used(way.name, TASK))
    assert used == {"method", "device", "projector", "metal_hu", "edge_gradient", "sirt_iterations"}
    assert texts.word(way.name) == way.label


def test_a_method_is_estimated_by_what_it_says(way):
    settings = ReconSettings(method=way.name, sirt_iterations=12)
    twice = replace(settings, sirt_iterations=24)
    one, two = (stages((4, 32, 32), s, TASK, pace=Pace(solver=1e-9), views=8) for s in (settings, twice))
    assert two["landweber"] == pytest.approx(2 * one["landweber"])
    assert evaluations(settings, TASK) == 0
    needs = {
        name: estimate((64, 256, 256), replace(settings, method=name), TASK).memory_bytes for name in (way.name, "sirt")
    }
    assert needs["sirt"] - needs[way.name] == (method("sirt").volumes - way.volumes) * 4 * 64 * 256 * 256


def test_a_method_runs(way, tmp_path):
    scan = mbir.simulate(body(), views=12)
    settings = replace(FAST, method=way.name, sirt_iterations=40)
    result = mbir.reconstruct(scan, settings=settings)
    assert result.method == way.name
    assert result.residual < 0.2
    assert result.provenance["settings"]["method"] == way.name
    job, last, _ = run_as_job(tmp_path, scan, method=way.name, sirt_iterations=40)
    assert last.residual == result.residual
    np.testing.assert_array_equal(mbir.read_volume(job.result_path).array, result.volume.array)


def test_a_method_that_went_is_known_no_more():
    with landweber() as cls:
        pass
    assert cls.name not in METHODS
    with pytest.raises(InputError, match="'landweber' is not one of dual, dds, "):
        ReconSettings(method=cls.name)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_setting_that_a_method_names_is_one(name):
    known = set(ReconSettings.__dataclass_fields__)
    assert set(method(name).settings) <= known
    for task in ("sparse-view-ct", "compressed-sensing-mri"):
        if method(name).fits(task):
            assert {"method", "device"} < set(settings_used(name, task)) <= known
    assert "complex_prior" not in settings_used("dds", "sparse-view-ct")
    assert "preconditioner" not in settings_used("dds", "compressed-sensing-mri")


def test_every_setting_is_used_by_some_method():
    used = {entry for name in METHODS for task in TASKS for entry in settings_used(name, task)}
    assert used == set(ReconSettings.__dataclass_fields__)


# --- a file format


@pytest.fixture
def sino(tmp_path) -> Path:
    path = tmp_path / f"scan{SUFFIX}"
    write_sino(mbir.simulate(body((3, 16, 16)), views=6), path)
    return path


def test_a_format_is_read_described_and_offered(sino, capsys):
    from DiffusionMBIRGui import inputs, measured

    with sino_files():
        scan = mbir.read(sino)
        assert scan.data.shape == (3, 6, scan.geometry.columns)
        found = told(capsys, "info", sino)
        assert (found["kind"], found["views"]) == ("measurement", 6)
        assert "6 views" in measured.line_of(found, measured.shape_of(found))
        assert SUFFIX in inputs.suffixes_of("sinogram")
        assert SUFFIX not in inputs.suffixes_of("k-space") + inputs.suffixes_of("volume")
        assert inputs.problem_with_file(sino, "sinogram") == ""
        assert formats.format_of(sino).name == "sinograms as text"
    with pytest.raises(InputError, match="no file of a scan that we read"):
        mbir.read(sino)
    assert SUFFIX not in inputs.suffixes_of("sinogram")


def test_a_format_runs_as_a_job_and_on_the_command_line(sino, tmp_path, capsys):
    with sino_files():
        settings = replace(FAST, method="sirt", sirt_iterations=3)
        direct = mbir.reconstruct(mbir.read(sino), settings=settings)
        job, _, _ = run_as_job(tmp_path, sino, method="sirt", sirt_iterations=3)
        assert job.request.task == TASK
        np.testing.assert_array_equal(mbir.read_volume(job.result_path).array, direct.volume.array)
        options = ("--method", "sirt", "--sirt-iterations", 3, "--device", "cpu", "--quiet")
        assert told(capsys, "reconstruct", sino, "-o", tmp_path / "out.nrrd", *options)["method"] == "sirt"
        np.testing.assert_array_equal(mbir.read_volume(tmp_path / "out.nrrd").array, direct.volume.array)


def test_a_format_that_does_not_recognise_the_content_leaves_it_to_others(sino):
    with sino_files(lambda path: False), pytest.raises(InputError, match="no file of a scan that we read"):
        mbir.read(sino)
