"""Jobs whose disk, prior, folder or Python is not as it should be: told in one line, and nothing is lost."""

import os
import shutil
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.jobs.client import Job
from DiffusionMBIRLib.jobs.folder import JobFolder
from DiffusionMBIRLib.jobs.messages import (
    Failed,
    Finished,
    Log,
    Preview,
    Started,
)
from DiffusionMBIRLib.jobs.request import file_input
from DiffusionMBIRLib.jobs.streams import _Log
from Testing.engine.helpers import body
from Testing.engine.jobs_helpers import LONG, gone, new_job, request, small_prior, start, step, watch


@pytest.fixture(autouse=True)
def _prior(tmp_path):
    small_prior(tmp_path)


def volume_of(folder):
    return mbir.read_volume(folder.path / "result.nrrd").array


def full_disk(folder, limit_bytes):
    """A Python whose files cannot outgrow the limit, as on a full disk."""
    path = folder / "limited.py"
    path.write_text(
        "import resource, runpy, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    return [sys.executable, str(path)]


def run_with_python(folder, python, **environment):
    variables = dict(os.environ, OMP_NUM_THREADS="1", XDG_DATA_HOME=str(folder.path.parent / "data"), **environment)
    return Job.start(folder, python=python, environment=variables)


@pytest.mark.slow
def test_on_a_full_disk_the_run_goes_on_and_its_end_is_told(tmp_path):
    folder = new_job(tmp_path, body((4, 32, 32)), steps=200)
    job = run_with_python(folder, full_disk(tmp_path, 2000))
    seen = watch(job, lambda e: False)
    last = seen[-1]
    assert isinstance(last, Failed)
    assert (last.kind, last.resumable) == ("disk", True)
    assert "result.nrrd could not be written; make room and resume" in last.reason
    warnings = [e.text for e in seen if isinstance(e, Log)]
    assert any("previews are off" in text for text in warnings)
    assert not folder.result_path
    assert isinstance(start(folder).wait(60), Finished)


@pytest.mark.slow
def test_a_log_that_cannot_be_written_does_not_matter(tmp_path):
    folder = new_job(tmp_path)
    (folder.path / "log.txt").mkdir()
    assert isinstance(start(folder).wait(60), Finished)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_log_swallows_what_is_printed():
    full = os.open("/dev/full", os.O_WRONLY)
    assert _Log(full).write(b"printed") == 7
    os.close(full)


@pytest.mark.slow
def test_another_prior_under_the_same_name_is_refused_at_resume(tmp_path):
    folder = new_job(tmp_path, steps=LONG)
    job = start(folder)
    watch(job, step("diffusion"))
    job.kill()
    job.wait(60)
    small_prior(tmp_path, seed=1)
    last = start(folder).wait(60)
    assert isinstance(last, Failed)
    assert last.kind == "input"
    assert "prior 'small' is no longer the file" in last.reason
    small_prior(tmp_path, seed=0)
    again = start(folder)
    watch(again, step("diffusion"))
    again.cancel()
    again.wait(60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "kind", "reason"),
    [
        (lambda p: (p / "job.json").write_text("{"), "input", r"job\.json: is no JSON"),
        (lambda p: (p / "scan.npz").write_bytes(b"x"), "input", r"scan\.npz: the job's input is missing or damaged"),
        (lambda p: (p / "scan.npz").unlink(), "input", "missing or damaged"),
    ],
)
def test_a_spoilt_folder_is_told_of_in_one_line(tmp_path, spoil, kind, reason):
    import re

    folder = new_job(tmp_path)
    spoil(folder.path)
    last = start(folder).wait(60)
    assert isinstance(last, Failed)
    assert re.fullmatch(kind, last.kind)
    assert re.search(reason, last.reason), last
    assert "\n" not in last.reason


def test_a_folder_that_is_gone_is_told_of(tmp_path):
    folder = new_job(tmp_path)
    shutil.rmtree(folder.path)
    with pytest.raises(InputError, match="the folder of the job is gone"):
        start(folder)


def test_a_python_that_cannot_run_it_is_told_of(tmp_path):
    folder = new_job(tmp_path)
    with pytest.raises(InputError, match=r"nowhere: cannot be started as Python .*choose another"):
        Job.start(folder, python=[str(tmp_path / "nowhere")])
    last = Job.start(folder, python=["false"]).wait(60)
    assert (last.kind, last.resumable) == ("crash", True)
    assert "exit code 1" in last.reason
    started, bare = watch(run_with_python(folder, [sys.executable, "-S"]), lambda e: False)  # no packages: no numpy
    assert isinstance(started, Started)  # the first event waits for no import
    assert isinstance(bare, Failed)
    assert bare.kind == "engine"
    assert "the package numpy is missing" in bare.reason


@pytest.mark.slow
def test_the_engine_is_this_one_whatever_else_is_installed(tmp_path):
    """Another package of that name, and one that would shadow a module of the standard library, are on the path."""
    other = tmp_path / "other"
    (other / "DiffusionMBIRLib").mkdir(parents=True)
    (other / "DiffusionMBIRLib" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    folder = new_job(tmp_path)
    assert isinstance(run_with_python(folder, [sys.executable], PYTHONPATH=str(other)).wait(60), Finished)


@pytest.mark.slow
def test_what_libraries_print_goes_to_the_log(tmp_path):
    """Text on both outputs, from Python and from below it, comes between the events and does no harm."""
    noisy = tmp_path / "noisy"
    noisy.mkdir()
    (noisy / "sitecustomize.py").write_text(
        "import os, sys, threading, time\n"
        "def shout():\n"
        "    while True:\n"
        "        time.sleep(0.05)\n"
        "        if 'torch' not in sys.modules:\n"
        "            continue\n"
        "        print('printed {')\n"
        "        os.write(1, b'from below')\n"
        "        os.write(2, b'to stderr')\n"
        "threading.Thread(target=shout, daemon=True).start()\n"
    )
    folder = new_job(tmp_path, steps=50)
    job = run_with_python(folder, [sys.executable], PYTHONPATH=str(noisy))
    seen = watch(job, lambda e: False)
    assert isinstance(seen[-1], Finished)
    told = "\n".join(e.text for e in seen if isinstance(e, Log))
    assert not [e for e in seen if isinstance(e, Log) and e.level != "info"]
    log = "\n".join(folder.log_tail(500))
    for text in ("printed {", "from below", "to stderr"):
        assert text in log
        assert text not in told


def test_lines_that_are_no_events_do_no_harm(tmp_path):
    """A worker that is not ours: broken lines, then an end without a word."""
    script = tmp_path / "strange"
    script.write_text('#!/bin/sh\necho hello\necho \'{"event":"preview","step":1,"sequence":2}\'\nprintf \'cut\'\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    job = Job.start(new_job(tmp_path), python=[str(script)])
    seen = watch(job, lambda e: False)
    assert [type(e) for e in seen] == [Log, Preview, Log, Failed]
    assert seen[-1].kind == "crash"
    job.pause()
    job.cancel()
    assert job.poll() == []


@pytest.mark.slow
def test_a_launcher_and_its_child_end_together(tmp_path):
    """PythonSlicer starts the real Python as its child: both go on cancel, and the child if the launcher is killed."""
    launcher = tmp_path / "launcher"
    launcher.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\nsubprocess.run([{sys.executable!r}, *sys.argv[1:]])\n"
    )
    launcher.chmod(0o755)
    for end in ("cancel", "kill"):
        folder = new_job(tmp_path, steps=LONG)
        job = run_with_python(folder, [str(launcher)])
        seen = watch(job, step("diffusion"))
        assert seen[0].pid != job.pid
        if end == "cancel":
            os.kill(seen[0].pid, signal.SIGSTOP)
            job.cancel(grace_s=0.3)
            assert job.wait(60).partial
        else:
            os.kill(job.pid, signal.SIGKILL)
            assert isinstance(job.wait(60), Failed)
        assert gone(job.pid)


@pytest.mark.slow
def test_no_file_names_the_patient_but_the_request(tmp_path):
    name = "MUSTERMANN^ERIKA"
    volume = body((4, 24, 24))
    path = tmp_path / f"{name}.nrrd"
    from dataclasses import replace

    replace(volume, metadata={"PatientName": name}).save(path)
    asked = replace(request(tmp_path, volume, name=name, method="fbp"), input=file_input(path))
    folder = JobFolder.create(tmp_path / "jobs", asked)
    assert isinstance(start(folder).wait(60), Finished)
    path.write_bytes(path.read_bytes()[:-50])
    broken = JobFolder.create(tmp_path / "jobs", replace(asked, input=file_input(path)))
    assert "cannot be read as a volume" in start(broken).wait(60).reason
    for job in (folder, broken):
        log = (job.path / "log.txt").read_text()
        assert "MUSTERMANN" not in log.upper()
        assert "ERIKA" not in log.upper()


def test_many_jobs_one_after_the_other_leave_nothing(tmp_path):
    threads = threading.active_count()
    for _ in range(3):
        job = start(new_job(tmp_path, steps=LONG))
        watch(job, lambda e: isinstance(e, Started))
        job.cancel()
        job.wait(60)
        assert gone(job.pid)
    time.sleep(0.1)
    assert threading.active_count() <= threads + 1
