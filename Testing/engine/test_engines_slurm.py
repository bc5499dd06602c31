"""Jobs in a queue: all states with played commands, and a run on a real cluster of one node where there is SLURM."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.engines import slurm_queue
from DiffusionMBIRLib.engines.hosted import HostedJob
from DiffusionMBIRLib.engines.launchers import note_launcher
from DiffusionMBIRLib.engines.launching import worker_command
from DiffusionMBIRLib.engines.slurm_queue import SlurmLauncher, batch_script, describe_cluster, state_of, submission
from DiffusionMBIRLib.errors import EngineError
from DiffusionMBIRLib.jobs.folder import JobFolder
from DiffusionMBIRLib.jobs.messages import Failed, Finished, Log, Paused, Progress
from Testing.engine.helpers import ROOT, body
from Testing.engine.jobs_helpers import LONG, PATIENCE_S, new_job, request, small_prior, start, step, watch
from Testing.engine.remote_helpers import one_more_step
from Testing.engine.slurm_helpers import LACKING, cluster

pytestmark = pytest.mark.skipif(os.name != "posix", reason="programs of POSIX")
MISSING = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Programs of SLURM that answer what a test wants, and note how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")

    def played(**scripts: str) -> Path:
        for name, script in scripts.items():
            path = folder / name
            path.write_text(f'#!/bin/sh\necho "{name} $@" >> {tmp_path}/calls\n{script}\n')
            path.chmod(0o755)
        return tmp_path / "calls"

    return played


def queued(folder: Path, number: int = 42) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "slurm.json").write_text(f'{{"id": {number}}}')
    return folder


def test_a_job_is_submitted_with_the_user_s_options_last(play, tmp_path):
    calls = play(sbatch=f"cat > {tmp_path}/script; echo '4711;cluster'")
    folder = tmp_path / "jobs x"
    folder.mkdir()
    SlurmLauncher().launch(folder, ["--partition=gpu", "--time=2:00:00"])
    told = calls.read_text().split()
    assert told[-2:] == ["--partition=gpu", "--time=2:00:00"]
    assert {"--parsable", "--requeue", "--open-mode=append", "--signal=B:TERM@60"} <= set(told)
    assert f"--chdir={folder}" in submission(folder)
    script = (tmp_path / "script").read_text()
    assert script == batch_script(folder)
    assert script.startswith("#!/bin/sh\n")
    assert f"--detached '{folder}'" in script.splitlines()[-1]
    assert script.splitlines()[-1].startswith("exec ")  # signals reach the worker
    assert (folder / "slurm.json").read_text() == '{"id": 4711}'


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1", "sbatch: .*invalid partition"),
        ("echo 'Welcome'", "did not say the number"),
        ("exit 3", "exit code 3"),
    ],
)
def test_a_job_that_is_not_taken_is_told_in_one_line(play, tmp_path, script, says):
    play(sbatch=script)
    with pytest.raises(EngineError, match=says) as error:
        SlurmLauncher().launch(tmp_path, [])
    assert "\n" not in str(error.value)


def test_where_there_is_no_slurm_one_line_says_so(play, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="sbatch is not found there; is this computer part of a cluster"):
        SlurmLauncher().launch(tmp_path, [])


STATES = [
    ("PENDING Priority", "waiting", "job 42 waits in the queue (others come first)"),
    ("PENDING Resources", "waiting", "job 42 waits in the queue (no node is free)"),
    ("PENDING BeginTime", "waiting", "job 42 waits in the queue (BeginTime)"),
    ("REQUEUED None", "waiting", "job 42 waits in the queue"),
    ("SUSPENDED None", "waiting", "job 42 waits in the queue"),
    ("RUNNING None", "running", ""),
    ("COMPLETING None", "running", ""),
    ("TIMEOUT TimeLimit", "gone", "its time on the cluster ran out (--time)"),
    ("OUT_OF_MEMORY None", "gone", "the memory of its node ran out (--mem)"),
    ("NODE_FAIL NodeDown", "gone", "its node died"),
    ("PREEMPTED None", "gone", "the cluster took its node away"),
    ("CANCELLED None", "gone", "it was cancelled on the cluster"),
]


@pytest.mark.parametrize(("told", "phase", "why"), STATES)
@pytest.mark.parametrize("source", ["squeue", "sacct", "scontrol"])
def test_a_state_is_understood_whoever_tells_it(play, tmp_path, monkeypatch, told, phase, why, source):
    monkeypatch.setattr(slurm_queue, "_SETTLES_S", 0.0)
    state, reason = told.split()
    scripts = {"squeue": MISSING, "sacct": "exit 1", "scontrol": MISSING}
    scripts[source] = {
        "squeue": f"echo '{told}'",
        "sacct": f"echo '{state}'",
        "scontrol": f"echo 'JobId=42 JobState={state} Reason={reason} Requeue=1'",
    }[source]
    play(**scripts)
    found = SlurmLauncher().standing(queued(tmp_path / "job"))
    assert found.phase == phase
    assert found.why == (why.partition(" (")[0] if source == "sacct" and phase == "waiting" else why)


# What a job that loses its node and is put back may be told as meanwhile: by squeue, or where that has forgotten it by
# accounts, if there are any, or the controller.
ON_THE_WAY = {
    "unknown": {"squeue": MISSING, "sacct": "exit 1", "scontrol": MISSING},
    "failed": {"squeue": "", "sacct": "exit 1", "scontrol": "echo 'JobId=42 JobState=FAILED Reason=NonZeroExitCode'"},
    "node lost": {"squeue": "echo 'NODE_FAIL NodeDown'", "sacct": "", "scontrol": MISSING},
    "preempted": {"squeue": MISSING, "sacct": "echo PREEMPTED", "scontrol": MISSING},
    "requeued": {"squeue": "echo 'REQUEUED None'", "sacct": "", "scontrol": MISSING},
    "completing": {"squeue": "echo 'COMPLETING None'", "sacct": "", "scontrol": MISSING},
    "silent": {"squeue": "echo 'Socket timed out' >&2; exit 1", "sacct": "exit 1", "scontrol": "exit 1"},
}


@pytest.mark.parametrize("order", list(itertools.permutations(ON_THE_WAY, 2)), ids=", ".join)
def test_a_job_that_is_put_back_into_the_queue_is_never_told_to_have_ended(play, tmp_path, order):
    launcher, folder = SlurmLauncher(), queued(tmp_path / "job")
    for state in order:
        play(**ON_THE_WAY[state])
        assert launcher.standing(folder).phase != "gone"
        assert SlurmLauncher().standing(folder).phase != "gone"  # of another connection
    play(squeue="echo 'PENDING BeginTime'")
    assert launcher.standing(folder).why == "job 42 waits in the queue (BeginTime)"
    assert (folder / "slurm.json").read_text() == '{"id": 42}'  # nothing of an end is left


def test_an_end_that_lasts_is_one_for_every_connection(play, tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("DiffusionMBIRLib.engines.slurm_queue.time.time", lambda: clock[0])
    play(**ON_THE_WAY["failed"])
    launcher, folder = SlurmLauncher(), queued(tmp_path / "job")
    assert launcher.standing(folder).phase == "running"
    clock[0] += slurm_queue._SHARED_DISK_S + 1
    for each in (launcher, SlurmLauncher()):  # whoever resumes the job need not wait once more
        assert each.standing(folder).phase == "gone"


def test_a_job_that_its_node_refuses_is_told_once_that_lasts_and_resuming_submits_it_again(play, tmp_path, monkeypatch):
    """Seen where a job that was put back is started within the second in which it lost its node: the controller lets
    it go, "Job credential revoked", without a word of the job itself.
    """
    clock = [1000.0]
    monkeypatch.setattr("DiffusionMBIRLib.engines.slurm_queue.time.time", lambda: clock[0])
    job = HostedJob(tmp_path, "20260101-000000-abcd")
    (job.path / "state").mkdir(parents=True)
    note_launcher(job.path, "slurm")
    for name in ("job.json", "state/diffusion.pt", "events.jsonl"):
        (job.path / name).write_text("{}")
    queued(job.path)
    launcher = job.launcher
    for told in ("RUNNING None", "COMPLETING None", "PENDING BeginTime"):
        play(squeue=f"echo '{told}'")
        assert job.ended(launcher.standing(job.path), launcher) is None
    calls = play(**ON_THE_WAY["failed"], sbatch="echo 43")
    assert job.ended(launcher.standing(job.path), launcher) is None
    clock[0] += slurm_queue._SHARED_DISK_S + 1
    last = job.ended(launcher.standing(job.path), launcher)
    assert isinstance(last, Failed)
    assert last.resumable
    assert job.begin("another attempt", "slurm", [], "", {}) == "running"
    assert "sbatch" in calls.read_text()
    assert (job.path / "slurm.json").read_text() == '{"id": 43}'
    assert (job.path / "state" / "diffusion.pt").exists()


def test_a_note_that_cannot_be_read_changes_nothing(play, tmp_path):
    play(squeue="echo 'PENDING Priority'")
    launcher, folder = SlurmLauncher(), queued(tmp_path / "job")
    assert launcher.standing(folder).phase == "waiting"
    (folder / "slurm.json").write_text("{")
    assert launcher.standing(folder).phase == "waiting"


def test_a_controller_that_does_not_answer_changes_nothing(play, tmp_path):
    play(squeue="echo 'Unable to contact slurm controller' >&2; exit 1")
    assert state_of(42) == ("", "")
    assert SlurmLauncher().standing(queued(tmp_path / "job")).phase == "running"


def test_a_job_that_nobody_knows_is_gone(play, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_queue, "_SHARED_DISK_S", 0.0)
    play(squeue=MISSING, sacct="exit 1", scontrol=MISSING)
    assert SlurmLauncher().standing(queued(tmp_path / "job")).phase == "gone"
    assert SlurmLauncher().standing(tmp_path).phase == "gone"  # was never submitted


def test_the_last_word_of_a_node_may_be_late(play, tmp_path, monkeypatch):
    play(squeue="", sacct="echo COMPLETED")
    launcher, folder = SlurmLauncher(), queued(tmp_path / "job")
    assert launcher.standing(folder).phase == "running"
    monkeypatch.setattr(slurm_queue, "_SHARED_DISK_S", 0.0)
    assert launcher.standing(folder).phase == "gone"


def test_a_job_that_waits_is_withdrawn_and_one_that_died_says_why(play, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_queue, "_SETTLES_S", 0.0)
    calls = play(squeue="echo 'PENDING Priority'", scancel="", sacct="", scontrol=MISSING)
    job = HostedJob(tmp_path, "20260101-000000-abcd")
    job.path.mkdir(parents=True)
    (job.path / "launcher.json").write_text('{"launcher": "slurm"}')
    queued(job.path)
    assert job.ended(job.launcher.standing(job.path), job.launcher) is None
    job.command("cancel")
    assert "scancel 42" in calls.read_text()
    last = job.ended(job.launcher.standing(job.path), job.launcher)
    assert isinstance(last, Finished)
    assert last.partial
    (job.path / "summary.json").unlink()
    play(squeue="echo 'NODE_FAIL None'")
    last = job.ended(job.launcher.standing(job.path), job.launcher)
    assert isinstance(last, Failed)
    assert last.resumable
    assert last.reason.startswith("its node died; resume the job")


def test_a_worker_that_is_warned_stays_until_the_cluster_ends_it(play, tmp_path):
    """Who leaves by himself has failed, for the cluster: it would neither put the job back nor tell why it ended."""
    calls = play(squeue="echo 'RUNNING None'")
    small_prior(tmp_path)
    job = HostedJob(tmp_path, "20260101-000000-abcd")
    twin = new_job(tmp_path, steps=LONG)
    job.path.parent.mkdir(exist_ok=True)
    twin.path.rename(job.path)
    (job.path / "launcher.json").write_text('{"launcher": "slurm"}')
    queued(job.path)
    variables = dict(os.environ, OMP_NUM_THREADS="1", XDG_DATA_HOME=str(tmp_path / "data"))
    worker = subprocess.Popen(worker_command(job.path), env=variables, stderr=subprocess.DEVNULL)
    try:
        events = job.path / "events.jsonl"
        until(lambda: events.exists() and '"diffusion"' in events.read_text())
        worker.terminate()
        until(lambda: calls.exists() and "squeue" in calls.read_text())
        assert list((job.path / "state").glob("*.pt"))
        assert worker.poll() is None
        play(squeue="echo 'COMPLETING None'")
        assert worker.wait(60) == 1
        assert not (job.path / "summary.json").exists()  # an interrupted job, which goes on
    finally:
        worker.kill()
        worker.wait()


def test_a_worker_that_is_warned_in_the_middle_of_a_long_step_stays_as_well(play, tmp_path):
    calls = play(squeue="echo 'RUNNING None'")
    queued(tmp_path / "job")
    note_launcher(tmp_path / "job", "slurm")
    code = (
        "import signal, sys, time\n"
        "from pathlib import Path\n"
        "from DiffusionMBIRLib.engines import slurm_queue\n"
        "from DiffusionMBIRLib.jobs import control, detached, worker\n"
        "control.GRACE_S, slurm_queue._LOOK_S = 0.1, 0.1\n"
        "worker.Worker.run = lambda self: signal.raise_signal(signal.SIGTERM) or time.sleep(60)\n"
        "detached.run_detached(sys.argv[1])\n"
    )
    variables = dict(os.environ, PYTHONPATH=str(ROOT))
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "job")], env=variables)
    try:
        until(lambda: process.poll() is not None or (calls.exists() and calls.read_text().count("squeue") > 1))
        assert process.poll() is None
        play(squeue="echo 'COMPLETING None'")
        assert process.wait(60) == 3
    finally:
        process.kill()
        process.wait()


def until(condition, seconds: float = PATIENCE_S) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_cluster_is_described(play):
    play(sbatch="echo 'slurm 23.11.4'", sinfo="echo 'gpu*|4|gpu:h100:8|1-00:00:00'")
    found = describe_cluster()
    assert found["cluster"] == "slurm 23.11.4"
    assert found["partitions"] == [{"name": "gpu*", "nodes": "4", "gpus": "gpu:h100:8", "time": "1-00:00:00"}]


@pytest.mark.slow
@pytest.mark.skipif(bool(LACKING), reason=LACKING or "slurm")
def test_a_real_cluster_computes_loses_its_node_and_goes_on_to_the_same_volume(tmp_path, monkeypatch):
    small_prior(tmp_path)
    monkeypatch.setenv("DIFFUSIONMBIR_REMOTE", str(tmp_path / "remote"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    volume = body((4, 24, 24))
    twin = start(new_job(tmp_path, volume, start="fbp", steps=40))
    with cluster(tmp_path / "cluster") as variables:
        for name, value in {**variables, "OMP_NUM_THREADS": "1"}.items():
            monkeypatch.setenv(name, value)
        options = ["--partition=main"]
        asked = request(tmp_path, volume, start="fbp", steps=40)
        folder = JobFolder.create(tmp_path / "jobs", asked, volume, engine=f"slurm::{sys.executable}", options=options)
        job = start(folder)
        job.pause()  # the run goes on step by step, and is not over before it loses its node
        seen = watch(job, lambda event: isinstance(event, Paused))
        while not any(map(step("diffusion", 2), seen)):
            one_more_step(tmp_path / "remote")
            seen += watch(job, lambda event: isinstance(event, Progress))
        (submitted,) = (tmp_path / "remote" / "jobs").glob("*/slurm.json")
        number = submitted.read_text().strip('{"id: }')
        subprocess.run(["scontrol", "requeue", number], check=True, timeout=60)
        seen += watch(job, lambda event: isinstance(event, Log) and "waits in the queue" in event.text)
        job.resume()
        # Two minutes early, but not within the second: a node refuses a job that is no younger than its end there.
        time.sleep(1.0)
        subprocess.run(["scontrol", "update", f"JobId={number}", "StartTime=now"], check=True, timeout=60)
        seen += watch(job, lambda event: False)
    assert isinstance(job.last_word, Finished), job.last_word
    assert any(isinstance(event, Log) and "goes on from its saved state" in event.text for event in seen)
    done = [event.done for event in seen if isinstance(event, Progress) and event.stage == "diffusion"]
    assert done == sorted(set(done))  # on, and not from the beginning
    assert isinstance(twin.wait(PATIENCE_S), Finished)
    found, expected = (mbir.read_volume(each.path / "result.nrrd").array for each in (folder, twin.folder))
    np.testing.assert_array_equal(found, expected)
