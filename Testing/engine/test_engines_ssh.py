"""Jobs through a real ssh server on this computer, whose connections break."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.engines import engine_of
from DiffusionMBIRLib.errors import EngineError
from DiffusionMBIRLib.jobs.folder import JobFolder
from DiffusionMBIRLib.jobs.messages import Failed, Finished, Log, Paused, Prepared, Preview, Progress
from DiffusionMBIRLib.version import __version__
from Testing.engine.helpers import body
from Testing.engine.jobs_helpers import PATIENCE_S, new_job, request, run_apart, small_prior, start, step, watch
from Testing.engine.remote_helpers import LACKING, Server, one_more_step, package_there, server

pytestmark = [pytest.mark.skipif(bool(LACKING), reason=LACKING or "ssh"), pytest.mark.slow]
ENGINE = f"ssh:there:{sys.executable}"
PATIENT = "Mueller-Erika-1970"


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    with server(tmp_path_factory.mktemp("ssh") / "server") as found:
        package_there(found.root, __version__)
        yield found


@pytest.fixture(autouse=True)
def _ssh(there: Server, monkeypatch, tmp_path):
    monkeypatch.setenv("DIFFUSIONMBIR_SSH", there.ssh)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    small_prior(tmp_path)


def remote_job(folder: Path, *, engine: str = ENGINE, name: str = PATIENT, **settings) -> JobFolder:
    volume = body((4, 24, 24))
    return JobFolder.create(folder / "jobs", request(folder, volume, name=name, **settings), volume, engine=engine)


def same_volume(job: JobFolder, other: JobFolder) -> None:
    found, expected = (mbir.read_volume(folder.path / "result.nrrd") for folder in (job, other))
    np.testing.assert_array_equal(found.array, expected.array)
    assert found.grid == expected.grid


def local_twin(folder: Path, monkeypatch, **settings) -> JobFolder:
    """The same job on this computer, with as many threads."""
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    twin = new_job(folder, name=PATIENT, **settings)
    run_apart([twin], folder / "data")
    return twin


def everything_written(folder: Path) -> str:
    return "\n".join(path.read_text("utf-8", "replace") for path in folder.rglob("*") if path.is_file())


def test_a_job_survives_broken_connections_and_gives_the_same_volume(there, tmp_path, monkeypatch):
    folder = remote_job(tmp_path, steps=40)
    job = start(folder)
    job.pause()  # the run is held while connections break: it goes on step by step, and is not over before them
    seen = watch(job, lambda event: isinstance(event, Paused))
    broken = 0
    commands = ""
    for _ in range(3):
        commands += "\n".join(there.left())
        broken += there.break_next_connection()
        seen += watch(job, lambda event: isinstance(event, Log) and event.text.startswith("connected to"))
        one_more_step(there.root)
        seen += watch(job, lambda event: isinstance(event, Progress))
    job.resume()
    seen += watch(job, lambda event: False)
    last = job.last_word
    assert isinstance(last, Finished), last
    assert broken == 3
    assert sum(isinstance(event, Log) and "connected to" in event.text for event in seen) == 3
    assert not last.partial
    same_volume(folder, local_twin(tmp_path, monkeypatch, steps=40))
    steps = [event.done for event in seen if isinstance(event, Progress) and event.stage == "diffusion"]
    assert steps == list(range(1, 41))  # each once
    previews = [event.sequence for event in seen if isinstance(event, Preview)]
    assert previews == sorted(set(previews))
    shown = job.read_preview()
    assert shown is not None
    np.testing.assert_array_equal(shown[0], mbir.read_volume(folder.path / "result.nrrd").array)
    assert last.metrics is not None
    assert there.wait_until_left() == []
    assert not list((there.root / "jobs").iterdir())  # fetched, and gone there
    for part in PATIENT.split("-"):
        assert part not in commands
        assert part not in everything_written(there.root / "jobs")
        assert part not in (folder.path / "log.txt").read_text()
    assert str(tmp_path / "jobs") not in commands.replace(str(folder.path), "")
    assert "PRIVATE KEY" not in commands + (folder.path / "log.txt").read_text()


def test_a_scan_is_sent_once(there, tmp_path):
    before = set((there.root / "files").glob("*"))
    for _ in range(2):
        folder = remote_job(tmp_path, method="fbp", views=7)
        assert isinstance(start(folder).wait(PATIENCE_S), Finished)
    new = set((there.root / "files").glob("*")) - before
    assert len(new) <= 1  # none where another test has sent it


def test_a_job_goes_on_without_its_client_and_is_found_again(there, tmp_path, monkeypatch):
    folder = remote_job(tmp_path, steps=50)
    job = start(folder)
    watch(job, step("diffusion", 3))
    job.close()
    assert isinstance(job.wait(PATIENCE_S), Failed)
    assert folder.status == "interrupted"
    assert folder.resumable
    again = start(folder)
    seen = watch(again, lambda event: False)
    assert isinstance(again.last_word, Finished)
    assert any(isinstance(event, Prepared) for event in seen)
    steps = [event.done for event in seen if isinstance(event, Progress) and event.stage == "diffusion"]
    assert steps == list(range(1, 51))  # also those that nobody heard: the worker was one all the time
    same_volume(folder, local_twin(tmp_path, monkeypatch, steps=50))
    assert there.wait_until_left() == []


def test_a_cancelled_job_ends_there_and_keeps_what_there_is(there, tmp_path):
    folder = remote_job(tmp_path, steps=5000)
    job = start(folder)
    watch(job, step("diffusion", 2))
    job.pause()
    watch(job, lambda event: isinstance(event, Paused))
    job.resume()
    watch(job, step("diffusion", 6))
    job.cancel()
    last = job.wait(PATIENCE_S)
    assert isinstance(last, Finished)
    assert last.partial
    assert mbir.read_volume(folder.path / last.result).array.shape == (4, 24, 24)
    assert there.wait_until_left() == []
    assert folder.resumable


def test_a_worker_that_dies_there_is_told_and_goes_on_from_its_state(there, tmp_path, monkeypatch):
    folder = remote_job(tmp_path, steps=60)
    job = start(folder)
    watch(job, step("diffusion", 12))
    alive = max((there.root / "jobs").glob("*/alive"), key=lambda path: path.stat().st_mtime_ns)
    os.killpg(int(alive.read_text()), signal.SIGKILL)
    last = job.wait(PATIENCE_S)
    assert isinstance(last, Failed)
    assert last.resumable
    assert last.reason.startswith("there: the computing process ended unexpectedly")
    again = start(folder)
    seen = watch(again, lambda event: False)
    assert isinstance(again.last_word, Finished)
    assert any(isinstance(event, Log) and "goes on from its saved state" in event.text for event in seen)
    same_volume(folder, local_twin(tmp_path, monkeypatch, steps=60))


def test_a_computer_that_is_gone_is_told_in_one_line_and_the_job_is_kept(there, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSIONMBIR_PATIENCE_S", "0.5")
    folder = remote_job(tmp_path, steps=60)
    job = start(folder)
    watch(job, step("diffusion", 2))
    there.stop()
    try:
        last = job.wait(PATIENCE_S)
    finally:
        there.start()
    assert isinstance(last, Failed)
    assert last.resumable
    assert last.reason == "there: refuses the connection; is its ssh server running?; the job is kept there"
    again = start(folder)
    assert isinstance(again.wait(PATIENCE_S), Finished)
    assert there.wait_until_left() == []


REFUSED = [
    ("ssh:stranger", "stranger: its host key is not known here; connect once by `ssh stranger`"),
    ("ssh:locked", "locked: your key is not accepted there"),
    ("ssh:silent", "silent: refuses the connection"),
    ("ssh:there:/no/python", "there: no Python found there; name one, as in ssh:there:/path/to/python"),
]


@pytest.mark.parametrize(("name", "says"), REFUSED)
def test_what_cannot_serve_is_told_in_one_line(name, says):
    with pytest.raises(EngineError) as error:
        engine_of(name).describe()
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)


def test_a_job_that_cannot_begin_is_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DIFFUSIONMBIR_JOBS", str(tmp_path / "jobs"))
    body((2, 16, 16)).save(tmp_path / "volume.nrrd")
    options = ["--method", "fbp", "--views", "6", "--quiet", "-o", str(tmp_path / "out.nrrd")]
    assert main(["reconstruct", str(tmp_path / "volume.nrrd"), "--engine", "ssh:locked", *options]) == 1
    told = capsys.readouterr().err.strip()
    (folder,) = (tmp_path / "jobs").iterdir()
    assert "\n" not in told
    assert "locked: your key is not accepted there" in told
    assert f"`diffusionmbir job resume {folder}` goes on" in told
    (folder / "engine.json").write_text(f'{{"engine": "{ENGINE}", "options": []}}')  # the key was mended
    assert isinstance(start(JobFolder(folder)).wait(PATIENCE_S), Finished)
    assert mbir.read_volume(folder / "result.nrrd").array.shape == (2, 16, 16)


def test_a_full_disk_there_is_told_in_one_line(there, tmp_path):
    small = tmp_path / "python"
    small.write_text(f'#!/bin/sh\nulimit -f 4\nexec "{sys.executable}" "$@"\n')  # files of 2 kB at most
    small.chmod(0o755)
    noise = mbir.Volume(np.random.default_rng(0).normal(size=(4, 24, 24)).astype(np.float32), body((4, 24, 24)).grid)
    asked = request(tmp_path, noise, method="fbp")
    folder = JobFolder.create(tmp_path / "jobs", asked, noise, engine=f"ssh:there:{small}")
    last = start(folder).wait(PATIENCE_S)
    assert isinstance(last, Failed)
    assert (last.kind, last.resumable) == ("disk", True)
    assert "on there: File too large" in last.reason
    assert "make room there" in last.reason


def test_the_command_line_tests_and_installs(there, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DIFFUSIONMBIR_SSH", there.ssh)
    place = there.root / "engine" / __version__
    aside = there.root / "aside"
    place.rename(aside)
    try:
        (place / "DiffusionMBIRLib").mkdir(parents=True)
        (place / "DiffusionMBIRLib" / "version.py").write_text('__version__ = "0.0.1"\n')
        assert main(["engine", "test", "ssh:there:/usr/bin/env"]) == 1
        capsys.readouterr()
        assert main(["engine", "install", ENGINE, "--yes", "--quiet"]) == 0
        assert f"DiffusionMBIR {__version__}, Python {sys.version.split()[0]}" in capsys.readouterr().out
        assert (place / "DiffusionMBIRLib" / "jobs" / "bootstrap.py").is_file()
        assert not (place / "DiffusionMBIRLib").is_symlink()
        assert main(["engine", "clean", ENGINE, "--all"]) == 0
        assert not list((there.root / "files").glob("*"))
    finally:
        import shutil

        shutil.rmtree(place)
        aside.rename(place)
    end = time.monotonic() + 10
    while there.left() and time.monotonic() < end:
        time.sleep(0.1)
    assert there.left() == []
