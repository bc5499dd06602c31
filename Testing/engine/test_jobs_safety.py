"""What lies in a job's folder does no harm: no link is followed, no module imported; its place is the one named."""

import os
from pathlib import Path

import pytest

from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.jobs.client import Job
from DiffusionMBIRLib.jobs.files import read_text, write_text
from DiffusionMBIRLib.jobs.folder import JobFolder, jobs_root, list_jobs
from DiffusionMBIRLib.jobs.messages import Failed, Finished
from DiffusionMBIRLib.jobs.streams import Channel
from DiffusionMBIRLib.jobs.worker import Worker
from DiffusionMBIRLib.models import user_data, user_models
from Testing.engine.helpers import body
from Testing.engine.jobs_helpers import new_job, small_prior

links = pytest.mark.skipif(os.name != "posix", reason="symbolic links need rights on Windows")


@pytest.fixture(autouse=True)
def _prior(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    small_prior(tmp_path)


@pytest.mark.parametrize("variable", ["DIFFUSIONMBIR_JOBS", "DIFFUSIONMBIR_MODELS", "XDG_DATA_HOME"])
def test_a_relative_place_means_one_from_here(tmp_path, monkeypatch, variable):
    monkeypatch.chdir(tmp_path)
    for name in ("DIFFUSIONMBIR_JOBS", "DIFFUSIONMBIR_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "place")
    roots = (jobs_root(), user_models(), user_data())
    assert all(root.is_absolute() for root in roots)
    assert any(root.is_relative_to(tmp_path / "place") for root in roots)


def test_without_a_home_one_line_says_what_to_set(monkeypatch):
    monkeypatch.delenv("XDG_DATA_HOME")

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(InputError, match="home folder is not known; set HOME or XDG_DATA_HOME"):
        user_data()


@pytest.mark.slow
def test_a_job_runs_in_a_relative_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    body((3, 24, 24)).save(tmp_path / "volume.nrrd")
    options = ["--method", "fbp", "--views", "8", "--quiet"]
    assert main(["job", "run", "volume.nrrd", "--folder", "jobs", *options]) == 0, capsys.readouterr().err
    folder = list_jobs(Path("jobs"))[0]
    assert folder.path.parent == tmp_path / "jobs"
    (folder.path / "summary.json").unlink()
    again = Job.start(JobFolder(folder.path.relative_to(tmp_path))).wait(60)
    assert isinstance(again, Finished), again


@links
@pytest.mark.parametrize("name", ["state", "log.txt", "result.nrrd", "lock", "preview.raw", "state/admm-tv.pt"])
def test_no_link_in_a_folder_is_followed(tmp_path, name):
    folder = new_job(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    for kept in ("precious.pt", ".precious.tmp"):
        (outside / kept).write_text("precious")
    link = folder.path / name
    if link.is_dir():
        link.rmdir()
    link.symlink_to(outside if name == "state" else outside / "precious.pt")
    with pytest.raises(InputError, match=f"{link}: is a link, which a job's folder must not hold; remove it"):
        Job.start(folder)
    channel = Channel(os.open(os.devnull, os.O_WRONLY))
    last = Worker(folder.path, channel).run()  # of another client than ours
    channel.close()
    assert isinstance(last, Failed)
    assert (last.kind, last.resumable) == ("input", False)
    folder.remove()
    assert {path.name: path.read_text() for path in outside.iterdir()} == {
        "precious.pt": "precious",
        ".precious.tmp": "precious",
    }


@links
def test_a_link_under_the_temporary_name_is_replaced(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".job.json.tmp").symlink_to(tmp_path / "precious")
    write_text(tmp_path / "job.json", "new")
    assert read_text(tmp_path / "job.json") == "new"
    assert (tmp_path / "precious").read_text() == "precious"
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match=r"link"):
        read_text(tmp_path / "link")


@pytest.mark.slow
def test_no_module_is_imported_from_the_folder(tmp_path, monkeypatch):
    """The worker's working directory, which an empty or relative entry of PYTHONPATH would make a place of modules."""
    folder = new_job(tmp_path, method="fbp")
    for name in ("torch", "pathlib", "importlib", "json", "numpy", "sitecustomize"):
        (folder.path / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write('{name} ')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", ".", str(tmp_path / "nothing"), ""]))
    last = Job.start(folder).wait(60)
    assert isinstance(last, Finished), last
    assert not (tmp_path / "imported").exists()
