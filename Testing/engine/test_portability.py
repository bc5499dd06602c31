"""What hangs on the system: jobs where nothing of POSIX is left, locks, process trees, names and paths of Windows."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import host_memory, moves, rates
from DiffusionMBIRLib.jobs import files, processes
from DiffusionMBIRLib.jobs.client import Job
from DiffusionMBIRLib.jobs.folder import JobFolder
from DiffusionMBIRLib.jobs.messages import Finished
from DiffusionMBIRLib.jobs.redact import redactor
from DiffusionMBIRLib.jobs.standby import Standby
from Testing.engine.helpers import body
from Testing.engine.jobs_helpers import LONG, gone, new_job, request, small_prior, step, watch
from Testing.engine.no_posix import FREE, TOTAL, played_kernel32, played_msvcrt

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="what is played here is real there")
LONGEST_ROOT = 200
LONGEST_PATH = 259  # of Windows, without its terminating zero


def windows_worker(folder: JobFolder, data: Path) -> Job:
    """A worker that finds no POSIX."""
    environment = dict(os.environ, OMP_NUM_THREADS="1", XDG_DATA_HOME=str(data), LOCALAPPDATA=str(data))
    python = (sys.executable, str(Path(__file__).with_name("no_posix.py")))
    return Job.start(folder, python=python, environment=environment)


@pytest.mark.slow
def test_a_job_gives_the_same_volume_where_nothing_of_posix_is_left(tmp_path):
    """Below a folder of 200 characters, blanks and other letters among them; every path fits into Windows' limit."""
    small_prior(tmp_path)
    deep = tmp_path / "Bilder von Zürich"
    deep = deep / ("a b" * LONGEST_ROOT)[: LONGEST_ROOT - len(str(deep)) - len("/jobs") - 1]
    deep.mkdir(parents=True)
    volume = body((4, 24, 24))
    asked = request(tmp_path, volume)
    usual = JobFolder.create(tmp_path / "jobs", asked, volume)
    folder = JobFolder.create(deep / "jobs", asked, volume)
    assert len(str(folder.path.parent)) == LONGEST_ROOT
    environment = dict(os.environ, OMP_NUM_THREADS="1", XDG_DATA_HOME=str(tmp_path), LOCALAPPDATA=str(tmp_path))
    jobs = windows_worker(folder, tmp_path), Job.start(usual, environment=environment)
    longest = 0
    while any(job.running for job in jobs):
        for job in jobs:
            job.poll()
        longest = max([longest, *(len(str(path)) for path in folder.path.rglob("*"))])
    for job in jobs:
        assert isinstance(job.last_word, Finished), (job.last_word, job.folder.log_tail())
    one, other = (mbir.read_volume(job.folder.result_path).array for job in jobs)
    assert np.array_equal(one, other)
    assert longest <= LONGEST_PATH
    assert "Traceback" not in "\n".join(folder.log_tail(1000))


@pytest.mark.slow
def test_a_job_is_cancelled_and_its_folder_locked_without_posix(tmp_path):
    small_prior(tmp_path)
    folder = new_job(tmp_path, steps=LONG)
    job = windows_worker(folder, tmp_path)
    watch(job, step("diffusion"))
    job.cancel()
    last = job.wait(30)
    assert isinstance(last, Finished)
    assert last.partial
    assert gone(job.pid)


@pytest.mark.slow
def test_an_engine_is_kept_warm_and_ends_without_posix(tmp_path):
    small_prior(tmp_path)
    environment = dict(os.environ, OMP_NUM_THREADS="1", XDG_DATA_HOME=str(tmp_path), LOCALAPPDATA=str(tmp_path))
    python = (sys.executable, str(Path(__file__).with_name("no_posix.py")))
    one, other = (Standby(python, environment, device="cpu") for _ in range(2))
    pid = one.pid
    job = Job.start(new_job(tmp_path), python=python, environment=environment, standby=one)
    assert isinstance(job.wait(60), Finished), job.folder.log_tail()
    assert job.pid == pid
    assert other.alive
    assert other._process is not None
    assert other._process.stdin is not None
    other._process.stdin.close()  # as when the program ends
    other._process.wait(60)
    assert other._process.returncode == 0
    other.close()
    assert gone(pid)


def test_a_lock_of_windows_is_held_by_one(tmp_path):
    """The module as it is on Windows, with the locks of this system beneath."""
    code = f"""
import sys, types
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from Testing.engine.no_posix import played_msvcrt
sys.modules["msvcrt"], sys.platform = played_msvcrt(), "win32"
from pathlib import Path
from DiffusionMBIRLib.jobs.lock import Lock, is_taken
path = Path(sys.argv[1])
one, two = Lock(path), Lock(path)
assert one.take() and not two.take() and is_taken(path)
one.release()
assert not is_taken(path) and two.take()
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], check=True, timeout=60)


@pytest.fixture
def windows(monkeypatch):
    """``sys`` and ``subprocess`` of the modules here as on Windows; other modules keep the real ones."""
    platform = types.SimpleNamespace(platform="win32")
    for module in (processes, moves, host_memory):
        monkeypatch.setattr(module, "sys", platform)
    for name, value in (("CREATE_NEW_PROCESS_GROUP", 0x200), ("CREATE_NO_WINDOW", 0x8000000)):
        monkeypatch.setattr(subprocess, name, value, raising=False)


def test_a_process_tree_of_windows_is_ended_by_taskkill(windows, tmp_path, monkeypatch):
    assert processes.group_of_its_own() == {"creationflags": 0x8000200}
    called = []
    monkeypatch.setattr(subprocess, "run", lambda command, **choices: called.append((command, choices)))
    processes.end_tree(types.SimpleNamespace(pid=4711))
    ((command, choices),) = called
    assert command == ["taskkill", "/T", "/F", "/PID", "4711"]
    assert choices["creationflags"] == 0x8000000
    assert choices["check"] is False  # a process that has ended is none of ours


def test_memory_of_windows_and_of_a_system_that_tells_nothing(windows, monkeypatch):
    monkeypatch.setattr("ctypes.windll", played_kernel32(), raising=False)
    assert host_memory.host_memory() == (TOTAL, FREE)
    monkeypatch.setattr(host_memory, "sys", types.SimpleNamespace(platform="darwin"))
    monkeypatch.delattr(os, "sysconf")
    assert host_memory.host_memory() == (0, 0)


def test_a_file_that_somebody_reads_is_replaced_a_moment_later(windows, tmp_path, monkeypatch):
    new, old, tries = tmp_path / "new", tmp_path / "old", []
    old.write_text("old")
    replace = os.replace

    def refuses(source, target):
        tries.append(target)
        if len(tries) < 4:
            raise PermissionError(13, "the file is being used by another process")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuses)
    new.write_text("new")
    moves.move_over(new, old)
    assert (old.read_text(), len(tries)) == ("new", 4)
    monkeypatch.setattr(moves, "_PATIENCE_S", 0.0)
    tries.clear()
    new.write_text("newer")
    with pytest.raises(PermissionError):
        moves.move_over(new, old)
    monkeypatch.setattr(moves, "sys", types.SimpleNamespace(platform="linux"))
    monkeypatch.setattr(moves, "_PATIENCE_S", 60.0)
    tries.clear()
    with pytest.raises(PermissionError):
        moves.move_over(new, old)  # elsewhere it means that one may not
    assert len(tries) == 1


def test_folders_are_not_opened_where_they_cannot_be(monkeypatch, tmp_path):
    def refuses(*arguments):
        raise PermissionError(13, "is a folder")

    monkeypatch.setattr(files, "os", types.SimpleNamespace(name="nt", open=refuses))
    files.sync_folder(tmp_path)


def test_a_processor_has_a_name_without_proc(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *arguments, **choices: (_ for _ in ()).throw(FileNotFoundError()))
    assert rates.processor()


@pytest.mark.parametrize(
    "path", ["D:\\Patienten\\Eva Müller\\CT 1.nrrd", "\\\\server\\share\\Eva\\CT 1.nrrd", "C:/Users/eva/CT 1.nrrd"]
)
def test_paths_of_windows_are_taken_out_of_a_log(path):
    clean = redactor(None)
    for text in (f"cannot read '{path}'", f'File "{path}", line 3', f"{path}: is damaged"):
        cleaned = clean(text)
        assert "Eva" not in cleaned
        assert "eva" not in cleaned
        assert "Patienten" not in cleaned


def test_a_prior_with_a_drive_letter_is_a_file_and_its_folder_is_not_kept():
    place = rates.Place("machine", "cpu")
    settings = mbir.ReconSettings(prior="D:\\priors\\mine.safetensors")
    assert place.network_key(settings).split("|")[2] == "mine"


def test_names_of_modules_differ_by_more_than_capitals():
    """File systems of Windows and macOS do not tell them apart; and some names are devices there."""
    root = Path(mbir.__file__).parents[1]
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False).stdout.split(
        "\n"
    )
    names = [name for name in listed if name]
    assert len({name.casefold() for name in names}) == len(names)
    devices = {"con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(1, 10))}
    for name in names:
        assert not {part.partition(".")[0].casefold() for part in name.split("/")} & devices, name
        assert not set(name) & set('<>:"\\|?*'), name
        assert not stat.S_ISLNK((root / name).lstat().st_mode), name


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize(("system", "folder"), [("Windows_NT", "Scripts"), ("", "bin")])
def test_make_finds_the_environment_of_each_system(system, folder):
    root = Path(__file__).resolve().parents[2]
    command = ["make", "--dry-run", "test", "VENV=some where", f"OS={system}"]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert f'"some where/{folder}"/python -m pytest' in shown


def test_what_is_played_refuses_what_it_does_not_know():
    with pytest.raises(AssertionError):
        played_msvcrt().locking(0, 1, 1)
