"""An engine that is kept warm: real processes that wait, serve one job, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.jobs.client import Job
from DiffusionMBIRLib.jobs.messages import Finished, Preview, Progress, Started
from DiffusionMBIRLib.jobs.standby import Standby
from Testing.engine.helpers import ROOT
from Testing.engine.jobs_helpers import LONG, gone, new_job, small_prior, start, step, watch

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and process groups of POSIX")
PYTHON = (sys.executable,)


@pytest.fixture(autouse=True)
def _prior(tmp_path):
    small_prior(tmp_path)


@pytest.fixture
def variables(tmp_path):
    """As those of ``jobs_helpers.start``."""
    data = str(tmp_path / "jobs" / "data")
    return dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", XDG_DATA_HOME=data, LOCALAPPDATA=data)


@pytest.fixture
def waiting(variables):
    standby = Standby(PYTHON, variables, device="cpu")
    yield standby
    standby.close()
    assert gone(standby.pid)


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.mark.slow
def test_it_becomes_the_worker_and_gives_the_same_volume(tmp_path, variables, waiting):
    folder = new_job(tmp_path)
    pid = waiting.pid
    job = Job.start(folder, python=PYTHON, environment=variables, standby=waiting)
    assert not waiting.alive
    seen = watch(job, lambda e: False)
    assert seen[0] == Started(folder.path.name, mbir.__version__, pid, False)
    assert isinstance(job.last_word, Finished), folder.log_tail()
    usual = start(new_job(tmp_path))
    assert isinstance(usual.wait(60), Finished)
    one, other = (mbir.read_volume(found.folder.result_path).array for found in (job, usual))
    assert np.array_equal(one, other)
    assert any("settings:" in line for line in folder.log_tail())  # the log is the job's
    assert gone(pid)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="what a process worked is told by /proc")
def test_its_short_start_is_not_taken_for_that_of_others(tmp_path, variables, waiting):
    until(lambda: _is_ready(waiting.pid))
    job = Job.start(new_job(tmp_path), python=PYTHON, environment=variables, standby=waiting)
    assert isinstance(job.wait(60), Finished)
    rates = tmp_path / "jobs" / "data" / "DiffusionMBIR" / "rates.json"
    noted = rates.read_text() if rates.is_file() else ""
    assert "solver" in noted
    assert "start" not in noted


@pytest.mark.slow
def test_the_first_preview_is_the_direct_reconstruction(tmp_path, variables, waiting):
    folder = new_job(tmp_path, steps=LONG)
    job = Job.start(folder, python=PYTHON, environment=variables, standby=waiting)
    seen = watch(job, lambda e: isinstance(e, Preview))
    assert not any(isinstance(e, Progress) and e.stage in ("ADMM-TV", "diffusion") for e in seen)
    array, _step = job.read_preview() or pytest.fail("no preview")
    request = folder.request
    scan = mbir.simulate(job_volume(folder), task=request.task, **request.scan)
    direct = mbir.reconstruct(
        scan, settings=mbir.ReconSettings(method="fbp", fbp_filter="hann"), device="cpu"
    ).volume.array
    job.cancel()
    assert isinstance(job.wait(30), Finished)
    # Of one filter and one operator; the value scale of the prior rounds otherwise.
    np.testing.assert_allclose(array, direct, atol=1.0)


def job_volume(folder):
    from DiffusionMBIRLib.io.scan_npz import read_npz

    return read_npz(folder.path / "scan.npz")


@pytest.mark.slow
def test_a_cancelled_run_leaves_nothing_and_the_next_one_is_served(tmp_path, variables, waiting):
    job = Job.start(new_job(tmp_path, steps=LONG), python=PYTHON, environment=variables, standby=waiting)
    watch(job, step("diffusion"))
    job.cancel()
    last = job.wait(30)
    assert last.partial
    assert last.result
    assert gone(job.pid)
    job = Job.start(new_job(tmp_path), python=PYTHON, environment=variables, standby=waiting)  # spent: a fresh one
    assert isinstance(job.wait(60), Finished)


@pytest.mark.slow
def test_one_that_dies_before_it_hears_of_the_job_is_replaced(tmp_path, variables, waiting, monkeypatch):
    """Also what was asked of it meanwhile is told to the process that takes its place."""
    os.killpg(waiting.pid, signal.SIGSTOP)  # it is alive and hears nothing
    job = Job.start(new_job(tmp_path), python=PYTHON, environment=variables, standby=waiting)
    job.pause()
    os.killpg(waiting.pid, signal.SIGKILL)
    until(lambda: job.poll() is not None and job.paused)
    assert job.pid != waiting.pid
    job.resume()
    assert isinstance(job.wait(60), Finished)
    assert gone(job.pid)


def test_a_cancel_is_heard_while_it_still_gets_ready(tmp_path, variables, waiting):
    job = Job.start(new_job(tmp_path), python=PYTHON, environment=variables, standby=waiting)
    job.cancel()
    last = job.wait(30)
    assert isinstance(last, Finished)
    assert last.partial
    assert gone(waiting.pid)


def test_it_serves_no_engine_that_was_set_up_otherwise(tmp_path, variables, waiting):
    assert waiting.fits(PYTHON, variables)
    assert not waiting.fits(PYTHON, variables | {"OMP_NUM_THREADS": "2"})
    assert not waiting.fits((*PYTHON, "-B"), variables)
    assert not waiting.fits(PYTHON, None)
    job = Job.start(new_job(tmp_path), python=PYTHON, environment=variables | {"A": "1"}, standby=waiting)
    assert job.pid != waiting.pid
    assert gone(waiting.pid)  # nobody would use it any more
    job.cancel()
    assert isinstance(job.wait(30), Finished)
    assert waiting.take(tmp_path, PYTHON, variables) is None
    with pytest.raises(InputError, match="cannot be started as Python"):
        Standby((str(tmp_path / "none"),), variables)


def test_it_ends_by_itself_when_nobody_asks(variables):
    standby = Standby(PYTHON, variables, device="cpu", idle_s=0.0)
    assert gone(standby.pid) or not standby.alive
    until(lambda: not standby.alive)
    standby.close()


def test_it_ends_with_the_program_that_started_it(tmp_path, variables):
    """Killed, so that it can tell nobody."""
    code = (
        "import os, sys, time\n"
        "from DiffusionMBIRLib.jobs.standby import Standby\n"
        "print(Standby((sys.executable,), device='cpu').pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", code], env=variables | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    pid = int(client.stdout.readline())
    os.killpg(pid, 0)
    client.kill()
    client.wait()
    client.stdout.close()
    assert gone(pid)


def _is_ready(pid):
    """True once it has stopped to work: all its threads wait."""

    def worked():
        found = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(found[11]) + int(found[12])

    before = worked()
    time.sleep(1.0)
    return before > 20 and worked() == before
