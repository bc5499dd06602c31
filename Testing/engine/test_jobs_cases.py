"""From choices to requests, and tables of cases that go on where they were."""

from dataclasses import replace

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import CartesianMRI, Grid
from DiffusionMBIRLib.jobs.asking import ask
from DiffusionMBIRLib.jobs.cases import Case, CaseTable, begin_case, run_cases
from DiffusionMBIRLib.jobs.messages import Finished
from DiffusionMBIRLib.scans import KSpace
from DiffusionMBIRLib.volume import Volume
from Testing.engine.helpers import body
from Testing.engine.jobs_helpers import small_prior

FAST = {"method": "sirt", "sirt_iterations": 5}


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_choices_go_where_they_belong(tmp_path):
    volume = body((3, 16, 16))
    request, inside = ask(volume.array, grid=volume.grid, choices={"views": 12, "steps": 7, "seed": 5})
    assert isinstance(inside, Volume)
    assert inside.array is volume.array
    assert (request.scan, request.task) == ({"views": 12, "seed": 5}, "sparse-view-ct")
    assert (request.settings["steps"], request.settings["seed"]) == (7, 5)
    scan = mbir.simulate(volume, task="limited-angle-ct", views=9, photons=1e4)
    request, inside = ask(scan)
    assert inside is scan
    assert (request.task, request.scan, request.input["holds"]) == ("limited-angle-ct", {}, "ct")
    mbir.write(scan, tmp_path / "scan.h5")
    request, inside = ask(tmp_path / "scan.h5")
    assert inside is None
    assert (request.task, request.name, request.input["kind"]) == ("limited-angle-ct", "scan.h5", "file")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choices": {"vews": 3}}, "setting 'vews' is not one for the task sparse-view-ct"),
        ({"choices": {"acceleration": 4}}, "setting 'acceleration' is not one for the task sparse-view-ct"),
        ({"task": "pet"}, "task 'pet' is not known"),
        ({"preset": "quickly"}, "preset 'quickly' is not known"),
        ({"choices": {"steps": 0}}, "setting steps: 0 lies outside"),
        ({"choices": {"views": 0}}, "setting views: 0 lies outside"),
        ({"task": "compressed-sensing-mri", "choices": {"mask": "spiral"}}, "setting mask: 'spiral' is not one of"),
    ],
)
def test_what_is_unknown_is_named(options, message):
    with pytest.raises(InputError, match=message):
        ask(body((2, 8, 8)), **options)


@pytest.mark.slow
def test_a_table_skips_what_is_done_and_repeats_what_failed_or_changed(tmp_path):
    volume = body((3, 24, 24))
    good = Case("good", volume, choices={"views": 8, **FAST})
    bad = Case("bad", tmp_path / "nowhere.nrrd", choices=FAST)
    told = []
    rows = run_cases([bad, good], tmp_path / "study", on_event=lambda name, event: told.append((name, event)))
    assert [(r["case"], r["status"]) for r in rows] == [("bad", "failed"), ("good", "finished")]
    assert "no such file" in rows[0]["reason"]
    assert float(rows[1]["psnr_axial"]) > 10
    assert {name for name, _ in told} == {"good"}
    assert isinstance(told[-1][1], Finished)
    told.clear()
    volume.save(tmp_path / "nowhere.nrrd")
    rows = run_cases([bad, good], tmp_path / "study", on_event=lambda name, event: told.append((name, event)))
    assert [r["status"] for r in rows] == ["finished", "finished"]
    assert {name for name, _ in told} == {"bad"}
    assert CaseTable(tmp_path / "study").rows() == rows
    other = Case("good", volume, choices={"views": 9, **FAST})
    assert begin_case(CaseTable(tmp_path / "study"), good) is None
    assert begin_case(CaseTable(tmp_path / "study"), other) is not None


@pytest.mark.slow
def test_an_interrupted_case_goes_on_in_its_job(tmp_path):
    prior = small_prior(tmp_path)
    case = Case("a", body((4, 24, 24)), choices={"prior": str(prior), "steps": 400, "start_sweeps": 3})

    class Stopped(Exception):
        pass

    turns = []

    def idle():
        turns.append(1)
        if len(turns) == 5:
            raise Stopped

    with pytest.raises(Stopped):
        run_cases([case], tmp_path / "study", idle=idle)
    row = CaseTable(tmp_path / "study").row("a")
    assert row is not None
    job = row["job"]
    rows = run_cases([case], tmp_path / "study")
    assert (rows[0]["status"], rows[0]["job"]) == ("finished", job)
    assert np.isfinite(mbir.read_volume(tmp_path / "study" / "jobs" / job / "result.nrrd").array).all()


def test_names_are_unique_and_a_foreign_table_is_left_alone(tmp_path):
    with pytest.raises(InputError, match="two cases are named 'a'"):
        run_cases([Case("a", "x"), Case("a", "y")], tmp_path)
    with pytest.raises(InputError, match="a case has no name"):
        run_cases([Case(" ", "x")], tmp_path)
    (tmp_path / "cases.csv").write_text("patient,age\nx,3\n")
    with pytest.raises(InputError, match="is no table of cases"):
        run_cases([Case("a", "x")], tmp_path)
    assert (tmp_path / "cases.csv").read_text() == "patient,age\nx,3\n"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["zero-filled", "sense-cg", "admm-tv", "dds"])
def test_mri_from_a_magnitude_volume_to_the_judged_result(tmp_path, method):
    array = (body((3, 24, 24)).array + 1000).astype(np.float32)
    small_prior(tmp_path, modality="MR")
    choices = {
        "method": method,
        "acceleration": 2.0,
        "acs": 0.4,
        "coils": 2,
        "steps": 3,
        "tv_sweeps": 5,
        "start_sweeps": 3,
    }
    case = Case(
        "mr", array, task="compressed-sensing-mri", choices={**choices, "prior": str(tmp_path / "small.safetensors")}
    )
    (row,) = run_cases([case], tmp_path / "study")
    assert row["status"] == "finished", row["reason"]
    assert float(row["psnr_axial"]) > 10
    job = CaseTable(tmp_path / "study").job_of("mr", row["fingerprint"])
    assert mbir.read_volume(job.result_path).unit == ""


def test_k_space_in_memory_becomes_a_request():
    mask = np.ones((8, 6), bool)
    data = np.random.default_rng(0).standard_normal((2, 3, 8, 6, 2)).view(np.complex128)[..., 0]
    scan = KSpace(data, CartesianMRI(mask, 3), Grid((2, 8, 6)), noise_std=0.5, name="head")
    for given in (scan, replace(scan, maps=np.ones((1, 3, 8, 6), np.complex64))):
        request, inside = ask(given, choices={"method": "sense-cg"})
        assert (request.task, request.input["kind"], request.input["holds"]) == (scan.task, "folder", "mr")
        assert inside is given
