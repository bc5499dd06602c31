"""``diffusionmbir job``: run, Ctrl-C, resume, list, clean."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.jobs.folder import list_jobs
from Testing.engine.helpers import ROOT, body
from Testing.engine.jobs_helpers import small_prior


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSIONMBIR_JOBS", str(tmp_path / "jobs"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small_prior(tmp_path)
    body((3, 24, 24)).save(tmp_path / "volume.nrrd")
    return tmp_path


def run(capsys, *arguments):
    code = main(["job", *(str(a) for a in arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_from_a_volume_to_the_judged_result_and_away(folder, capsys):
    output = folder / "out.nrrd"
    options = ["--views", 12, "--method", "sirt", "--sirt-iterations", 20, "-o", output, "--json", "--quiet"]
    code, out, err = run(capsys, "run", folder / "volume.nrrd", *options)
    assert (code, err) == (0, "")
    entries = json.loads(out)
    assert entries["metrics"]["axial"]["psnr"] > 15
    assert mbir.read_volume(output).grid == body((3, 24, 24)).grid
    listed = json.loads(run(capsys, "list", "--json")[1])["jobs"]
    assert [(j["status"], j["name"], j["method"]) for j in listed] == [("finished", "volume.nrrd", "sirt")]
    assert "finished" in run(capsys, "list")[1]
    assert "1 job removed" in run(capsys, "clean")[1]
    assert "no jobs in" in run(capsys, "list")[1]


@pytest.mark.slow
def test_a_measurement_brings_its_task(folder, capsys):
    mbir.write(mbir.simulate(body((3, 24, 24)), task="limited-angle-ct", views=9), folder / "scan.h5")
    code, out, err = run(capsys, "run", folder / "scan.h5", "--method", "fbp", "--folder", folder / "elsewhere")
    assert code == 0
    assert re.search(
        r"^24 x 24 x 3, needs [0-9. of]+ GB, (about \d+|\d+ (s|min) to \d+) (s|min) on this machine$", err, re.MULTILINE
    )
    assert "residual" in out
    assert list_jobs(folder / "elsewhere")[0].request.task == "limited-angle-ct"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C as a signal")
def test_ctrl_c_keeps_the_partial_volume_and_resume_goes_on(folder):
    command = [sys.executable, "-m", "DiffusionMBIRLib", "job"]
    options = ["--prior", str(folder / "small.safetensors"), "--steps", "5000", "--start-sweeps", "3"]
    process = subprocess.Popen(
        [*command, "run", str(folder / "volume.nrrd"), *options],
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    for line in process.stderr:
        if line.startswith("diffusion"):
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(60) == 1
    assert "cancelled; the partial volume is" in rest
    assert "job resume" in rest
    process.stderr.close()
    job = list_jobs(folder / "jobs")[0]
    assert job.status == "partial"
    assert np.isfinite(mbir.read_volume(job.result_path).array).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "job run: name the measurement or volume"),
        (["resume"], "job resume: name the job's folder"),
        (["resume", "nowhere"], "is not the folder of a job"),
        (["run", "nowhere.h5"], r"nowhere\.h5: no such file"),
        (["run", "volume.nrrd", "-o", "x.txt"], "cannot write this format"),
        (["run", "scan.h5", "--views", "3"], "setting 'views' is not one of the measurement's reconstruction"),
        (["run", "volume.nrrd", "--steps", "0"], "setting steps: 0 lies outside"),
        (["run", "volume.nrrd", "--task", "compressed-sensing-mri", "--method", "fbp"], "does not fit the task"),
        (["clean", "--keep", "-1"], "--keep must be"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(folder, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    mbir.write(mbir.simulate(body((3, 24, 24)), views=4), folder / "scan.h5")
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert re.search(message, err), err
