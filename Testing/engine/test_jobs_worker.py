"""Real worker processes: events, cancel, pause, kill -9 and resume, orphans, full disks, strange Pythons."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.jobs.messages import (
    Continued,
    Failed,
    Finished,
    Paused,
    Prepared,
    Preview,
    Progress,
    Started,
)
from Testing.engine.helpers import ROOT, body
from Testing.engine.jobs_helpers import LONG, gone, new_job, small_prior, start, step, watch

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and process groups of POSIX")


@pytest.fixture(autouse=True)
def _prior(tmp_path):
    small_prior(tmp_path)


def volume_of(folder):
    return mbir.read_volume(folder.path / "result.nrrd").array


def test_a_job_from_its_first_event_to_the_judged_result(tmp_path):
    folder = new_job(tmp_path)
    job = start(folder)
    seen = watch(job, lambda e: isinstance(e, Started))
    assert seen == [Started(folder.path.name, mbir.__version__, job.pid, False)]
    job.set_preview(True, 0.0)
    seen += watch(job, lambda e: False)
    kinds = [type(e) for e in seen]
    prepared = seen[kinds.index(Prepared)]
    assert (prepared.shape, prepared.unit, prepared.views, prepared.has_truth) == ([4, 24, 24], "HU", 8, True)
    assert prepared.grid == body((4, 24, 24)).grid.to_dict()
    assert kinds.index(Started) < kinds.index(Prepared) < kinds.index(Preview) < kinds.index(Finished)
    fractions = [e.fraction for e in seen if isinstance(e, Progress)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert {e.stage for e in seen if isinstance(e, Progress)} == {"simulate", "ADMM-TV", "diffusion"}
    last = seen[-1]
    assert last.metrics.keys() == {"axial", "coronal", "sagittal"}
    assert (last.result, last.partial, last.nfe) == ("result.nrrd", False, 4)
    array, _ = job.read_preview() or pytest.fail("no preview")
    assert np.array_equal(array, volume_of(folder))
    scan = mbir.simulate(body((4, 24, 24)), views=8)
    engine = mbir.reconstruct(scan, settings=folder.request.recon_settings(), device="cpu")
    np.testing.assert_allclose(array, engine.volume.array, atol=15)
    assert last.residual == pytest.approx(engine.residual, rel=0.05)
    assert folder.status == "finished"
    assert folder.summary()["residual"] == last.residual
    assert json.loads((folder.path / "provenance.json").read_text())["settings"]["steps"] == 4
    assert not folder.resumable
    assert gone(job.pid)
    again = start(folder)  # a finished job says so once more
    assert again.wait(60) == last
    folder.tidy()
    assert sorted(p.name for p in folder.path.iterdir()) == [
        "begun.json", "job.json", "lock", "log.txt", "measured.npz", "provenance.json", "result.nrrd", "summary.json"
    ]  # fmt: skip


# --- ends before the end


@pytest.mark.slow
def test_killed_or_cancelled_at_any_moment_it_resumes_to_the_same_volume(tmp_path):
    settings = {"steps": 400, "method": "mbir", "start_sweeps": 60}
    whole, cut = new_job(tmp_path, **settings), new_job(tmp_path, **settings)
    assert isinstance(start(whole).wait(120), Finished)
    moments = random.Random(4)
    taken_up = []
    for turn in range(3):
        job = start(cut)
        seen = watch(job, step("ADMM-TV", 30) if turn == 0 else step("diffusion", 10))
        taken_up += [e.done for e in seen if isinstance(e, Progress) and e.stage == "diffusion"][:1]
        if turn == 1:
            wait_for_state(job)
            job.cancel()
            assert job.wait(60).partial
            assert cut.status == "partial"
            continue
        if turn == 2:
            wait_for_state(job, unfinished=True)
        time.sleep(moments.random() * 0.1)
        os.kill(job.pid, signal.SIGKILL)
        last = job.wait(60)
        assert isinstance(last, Failed)
        assert (last.kind, last.resumable, cut.status) == ("crash", True, "interrupted")
    final = start(cut)
    seen = watch(final, lambda e: False)
    assert seen[0].resumed
    assert isinstance(seen[-1], Finished)
    assert max(taken_up) > 1, "no run was taken up in its middle"
    assert np.array_equal(volume_of(cut), volume_of(whole))
    assert cut.result_path.name == "result.nrrd"
    assert not (cut.path / "result-partial.nrrd").exists()
    assert seen[-1].nfe == whole.last_word().nfe


def wait_for_state(job, *, unfinished=False):
    """Until there is a state of the diffusion, or one that is just being written, which is easily missed."""
    pattern, end = (".*.tmp", time.monotonic() + 3) if unfinished else ("diffusion.pt", time.monotonic() + 60)
    while not list((job.folder.path / "state").glob(pattern)) and time.monotonic() < end:
        time.sleep(0 if unfinished else 0.002)


@pytest.mark.slow
def test_cancel_keeps_the_newest_estimate(tmp_path):
    volume = body((4, 24, 24))
    folder = new_job(tmp_path, volume, steps=LONG)
    job = start(folder)
    watch(job, step("diffusion", 5))
    job.cancel(grace_s=60)
    last = job.wait(60)
    assert isinstance(last, Finished)
    assert job._process.returncode == 0  # it obeyed, and was not killed
    assert (last.partial, last.result, folder.status) == (True, "result-partial.nrrd", "partial")
    partial = mbir.read_volume(folder.result_path)
    assert partial.grid == volume.grid
    assert mbir.evaluate(partial, mbir.truth_for(volume))["axial"]["psnr"] > 15
    assert gone(job.pid)


@pytest.mark.slow
def test_a_worker_that_does_not_listen_is_killed_and_its_estimate_kept(tmp_path):
    folder = new_job(tmp_path, steps=LONG)
    job = start(folder)
    watch(job, step("diffusion", 5))
    shown, _ = job.read_preview() or pytest.fail("no preview")
    os.kill(job.pid, signal.SIGSTOP)
    job.cancel(grace_s=0.5)
    assert job.running  # cancel() does not wait for it
    last = job.wait(60)
    assert job._process.returncode == -signal.SIGKILL
    assert (last.partial, last.result, folder.status) == (True, "result-partial.nrrd", "partial")
    partial = mbir.read_volume(folder.result_path)
    assert partial.grid == body((4, 24, 24)).grid
    assert np.isfinite(partial.array).all()
    assert partial.array.shape == shown.shape
    assert gone(job.pid)


def test_cancel_before_there_is_anything(tmp_path):
    folder = new_job(tmp_path)
    job = start(folder)
    job.cancel()
    last = job.wait(60)
    assert isinstance(last, Finished)
    assert (last.partial, last.result) == (True, "")
    assert gone(job.pid)


@pytest.mark.slow
def test_pause_and_previews_follow_what_is_asked(tmp_path):
    job = start(new_job(tmp_path, steps=LONG))
    job.set_preview(False, 0.0)
    seen = watch(job, step("diffusion", 50))
    assert not [e for e in seen if isinstance(e, Preview)]
    job.set_preview(True, 0.0)
    watch(job, lambda e: isinstance(e, Preview))
    job.pause()
    watch(job, lambda e: isinstance(e, Paused))
    assert job.paused
    time.sleep(0.3)
    assert not [e for e in job.poll() if isinstance(e, Progress)]
    job.resume()
    seen = watch(job, step("diffusion"))
    assert any(isinstance(e, Continued) for e in seen)
    assert not job.paused
    job.pause()
    watch(job, lambda e: isinstance(e, Paused))
    job.cancel()
    assert job.wait(60).partial


# --- the worker's parent


PARENT = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from DiffusionMBIRLib.jobs.client import Job\n"
    "from DiffusionMBIRLib.jobs.folder import JobFolder\n"
    "from DiffusionMBIRLib.jobs.messages import Progress\n"
    "job = Job.start(JobFolder.open(sys.argv[1]))\n"
    "print(job.pid, flush=True)\n"
    "told = False\n"
    "while job.running:\n"
    "    for event in job.poll():\n"
    "        if isinstance(event, Progress) and event.stage == 'diffusion' and not told:\n"
    "            print('steps', flush=True)\n"
    "            told = True\n"
    "    time.sleep(0.01)\n"
)


@pytest.mark.slow
def test_the_worker_ends_with_its_parent_and_saves_its_state(tmp_path):
    folder = new_job(tmp_path, steps=LONG)
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", XDG_DATA_HOME=str(tmp_path / "data"))
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder.path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    pid = int(parent.stdout.readline())
    assert parent.stdout.readline() == "steps\n"
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(pid)
    assert folder.status == "interrupted"
    assert folder.resumable


def test_a_worker_stuck_in_the_network_ends_with_its_parent_as_well(tmp_path):
    """The run never comes to a point where it could ask; the process ends after its time of grace."""
    code = (
        "import time\n"
        "from DiffusionMBIRLib.jobs import control\n"
        "control.GRACE_S = 0.5\n"
        "import sys, threading\n"
        "made = control.Control(on_pause=print, on_unknown=print)\n"
        "threading.Thread(target=made.listen, args=(sys.stdin.buffer,)).start()\n"
        "time.sleep(60)\n"
    )
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, env=environment)
    process.stdin.close()
    assert process.wait(60) == 3


@pytest.mark.slow
def test_a_client_that_does_not_read_never_holds_up_the_run(tmp_path):
    """The pipe is full at once; the result comes all the same."""
    folder = new_job(tmp_path, method="sirt", sirt_iterations=5000)
    bootstrap = ROOT / "DiffusionMBIRLib" / "jobs" / "bootstrap.py"
    environment = dict(os.environ, OMP_NUM_THREADS="1", XDG_DATA_HOME=str(tmp_path / "data"))
    process = subprocess.Popen(
        [sys.executable, str(bootstrap), str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        cwd=tmp_path,
    )
    end = time.monotonic() + 90
    while folder.status != "finished" and time.monotonic() < end:
        time.sleep(0.05)
    assert folder.status == "finished"
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin.close()


# --- one folder, one worker


@pytest.mark.slow
def test_a_second_worker_of_one_folder_is_refused(tmp_path):
    folder = new_job(tmp_path, steps=LONG)
    first = start(folder)
    watch(first, step("diffusion"))
    assert folder.status == "running"
    last = start(folder).wait(60)
    assert isinstance(last, Failed)
    assert "run by another process" in last.reason
    watch(first, step("diffusion"))
    first.cancel()
    assert first.wait(60).partial
