"""What a job is on disk and on the wire: messages, request, folder, preview file, state, record for an issue."""

import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.io.scan_npz import read_npz
from DiffusionMBIRLib.jobs import folder as folders
from DiffusionMBIRLib.jobs import lock
from DiffusionMBIRLib.jobs.control import Control
from DiffusionMBIRLib.jobs.folder import JobFolder
from DiffusionMBIRLib.jobs.issue_report import save_issue_report
from DiffusionMBIRLib.jobs.messages import (
    Continued,
    Failed,
    Finished,
    Log,
    Paused,
    Prepared,
    Preview,
    Progress,
    Started,
    decode,
    encode,
)
from DiffusionMBIRLib.jobs.partial import write_partial
from DiffusionMBIRLib.jobs.preview import PreviewReader, PreviewWriter
from DiffusionMBIRLib.jobs.request import Request, file_input, require_unchanged
from DiffusionMBIRLib.jobs.watch import Clock, TimedStage
from Testing.engine.helpers import ROOT, body
from Testing.engine.jobs_helpers import new_job, request, small_prior

EVENTS = [
    Started("a", "0.1", 12, True),
    Prepared([1, 2, 3], {"shape": [1, 2, 3]}, "HU", "cpu", 8, 4, 24, True),
    Progress("diffusion", 1, 50, 0.02, 1.5, None, {"sigma": 0.2}),
    Preview(3, 7),
    Paused(),
    Continued(),
    Log("warning", 'two\nlines, "quotes" and \u00e4'),
    Finished(9.5, 1e-3, 50, 8.0, {"axial": {"psnr": 30.0, "ssim": 0.9}}, "result.nrrd", False),
    Failed("no", "engine", True),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_an_event_survives_its_line(event):
    line = encode(event)
    assert "\n" not in line
    assert decode(line) == event
    assert decode((line + "\n").encode()) == event


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"Loading ...",
        b"\xff\xfe{",
        b"[1]",
        b'{"event":"preview"}',
        b'{"event":"rm"}',
        b"[" * 100_000,
        b"7",
        b'{"a',
    ],
)
def test_a_line_that_is_no_event_is_shown_in_the_log(line):
    event = decode(line)
    assert isinstance(event, Log)
    assert event.level == "warning"
    assert len(event.text) < 300


def test_numbers_that_json_does_not_know_become_null():
    event = Progress("a", 1, 2, 0.5, 1.0, float("inf"), {"residual": float("nan")})
    assert json.loads(encode(event))["seconds_left"] is None
    assert decode(encode(event)).metrics == {"residual": None}


# --- request and folder


def test_a_request_survives_its_file(tmp_path):
    small_prior(tmp_path)
    asked = request(tmp_path)
    assert Request.from_json(asked.to_json()) == asked


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.update(format=99), "job.json: was written by a newer version"),
        (lambda e: e.pop("settings"), "job.json: the field settings is missing"),
        (lambda e: e["settings"].update(steps=-1), "job.json: setting steps: -1 lies outside"),
        (lambda e: e["settings"].update(magic=1), "job.json: request: setting 'magic' is not known"),
        (lambda e: e["input"].update(kind="pickle"), "job.json: request: input: kind must be one of"),
        (lambda e: e.update(name=["a"]), "job.json: name must be a text"),
        (lambda e: e.update(extra=1), "job.json: 'extra' is not known"),
        (lambda e: e.update(format="2"), "job.json: format must be a whole number"),
        (lambda e: e["input"].update(shape=[4, 1e30, 24]), "input: shape must be a list"),
        (lambda e: e["settings"].update(steps=[1]), "setting steps: .* is not a number"),
        (lambda e: e["scan"].update(views=10**400), "scan must be an object, each entry made of finite"),
        (lambda e: e["input"].pop("shape"), "input: the field shape is missing"),
    ],
)
def test_a_damaged_request_is_refused_by_name(tmp_path, change, message):
    entries = json.loads(request(tmp_path).to_json())
    change(entries)
    with pytest.raises(InputError, match=message):
        Request.from_json(json.dumps(entries))


def test_a_folder_appears_whole_with_its_input(tmp_path):
    volume = body((3, 8, 8))
    turned = replace(volume, array=volume.array[:, ::-1])
    job = JobFolder.create(tmp_path / "a" / "jobs", request(tmp_path, volume), turned)
    inside = read_npz(job.path / "scan.npz")
    assert np.array_equal(inside.array, volume.array[:, ::-1])
    assert inside.grid == volume.grid
    assert (job.status, job.result_path, job.summary()) == ("new", None, {})
    assert [p.name for p in (tmp_path / "a" / "jobs").iterdir()] == [job.path.name]
    assert JobFolder.open(job.path).request == job.request
    with pytest.raises(InputError, match="is not the folder of a job"):
        JobFolder.open(tmp_path)


def test_a_prior_named_by_a_relative_path_is_found_from_elsewhere(tmp_path, monkeypatch):
    prior = small_prior(tmp_path)
    monkeypatch.chdir(tmp_path)
    job = new_job(tmp_path, prior=prior.name)
    assert job.request.settings["prior"] == str(prior)


def test_a_job_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch):
    small_prior(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: the job's folder cannot be written .* choose another jobs folder"):
        JobFolder.create(tmp_path / "file", request(tmp_path), body().array)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        new_job(tmp_path)
    assert list((tmp_path / "jobs").iterdir()) == []


def test_a_disk_without_room_is_refused_before_the_run(tmp_path):
    huge = request(tmp_path)
    huge.input["shape"] = [10**5, 10**4, 10**4]
    with pytest.raises(InputError, match=r"the job needs \d+ MB, its disk has \d+ MB left; make room"):
        JobFolder.create(tmp_path, huge)


def test_status_follows_what_lies_in_the_folder(tmp_path):
    small_prior(tmp_path)
    job = new_job(tmp_path)
    held = lock.Lock(job.path / lock.NAME)
    assert held.take()
    assert job.status == "running"
    with pytest.raises(InputError, match="running; cancel it first"):
        job.remove()
    held.release()
    (job.path / folders.BEGUN).write_text("{}")
    assert job.status == "interrupted"
    for event, status in [
        (Failed("x", "engine", True), "failed"),
        (Finished(1.0, None, 0, 0.0, None, "", True), "partial"),
        (Finished(1.0, 0.1, 1, 0.0, None, "result.nrrd", False), "finished"),
    ]:
        job.write_last_word(event)
        assert (job.status, job.last_word()) == (status, event)


def test_clean_removes_what_has_ended_and_keeps_the_rest(tmp_path):
    small_prior(tmp_path)
    root = tmp_path / "jobs"
    jobs = [new_job(tmp_path) for _ in range(4)]
    jobs.sort(key=lambda j: j.path)
    for job in jobs[:3]:
        job.write_last_word(Finished(1.0, 0.1, 1, 0.0, None, "result.nrrd", False))
    leftover = root / ".new-x"
    leftover.mkdir()
    os.utime(leftover, (1, 1))
    assert folders.list_jobs(root) == jobs
    assert folders.clean(root, keep=1) == jobs[:2]
    assert folders.list_jobs(root) == jobs[2:]
    assert not leftover.exists()
    assert folders.list_jobs(tmp_path / "nowhere") == []


def test_a_file_that_changed_since_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"abc")
    entries = file_input(path)
    require_unchanged(entries)
    path.write_bytes(b"abcd")
    with pytest.raises(InputError, match=r"a\.h5: has changed since"):
        require_unchanged(entries)
    with pytest.raises(InputError, match="no such file"):
        file_input(tmp_path / "b.h5")


# --- previews


def test_a_preview_comes_back_and_the_newest_wins(tmp_path):
    path, shape = tmp_path / "p", (2, 3, 4)
    reader = PreviewReader(path)
    assert reader.read() is None
    writer = PreviewWriter(path, shape)
    assert reader.read() is None
    for k in range(1, 4):
        assert writer.write(np.full(shape, k, np.float64), step=10 * k) == k
        array, step = reader.read() or pytest.fail("no preview")
        assert step == 10 * k
        assert array.dtype == np.float32
        assert (array == k).all()
    out = np.empty(shape, np.float32)
    newest = [reader.read(out), reader.read(np.empty((1, 1, 1), np.float32))]
    assert newest[0] is not None
    assert newest[0][0] is out
    assert newest[1] is not None
    assert newest[1][0].shape == shape
    writer.close()
    again = PreviewWriter(path, shape)  # as a worker that resumes does
    reader.read(out)
    assert (out == 3).all()
    assert again.write(np.zeros(shape), 5) == 4
    again.close()
    PreviewWriter(path, (1, 2, 2)).close()
    assert reader.read() is None


def test_a_cut_file_is_no_preview(tmp_path):
    path = tmp_path / "p"
    writer = PreviewWriter(path, (8, 32, 32))
    writer.write(np.ones((8, 32, 32)), 1)
    writer.close()
    for length in (10_000, 4096, 20, 0):
        os.truncate(path, length)
        assert PreviewReader(path).read() is None


@pytest.mark.slow
def test_no_preview_is_ever_torn(tmp_path):
    """A writer without any pause and a reader that stops now and then in the middle."""
    path, shape = tmp_path / "p", (16, 128, 128)
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from DiffusionMBIRLib.jobs.preview import PreviewWriter\n"
        f"writer = PreviewWriter(Path(sys.argv[1]), {shape})\n"
        "k = 0\n"
        "while True:\n"
        "    k += 1\n"
        f"    writer.write(np.full({shape}, k, np.float32), k)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)], env=dict(os.environ, PYTHONPATH=str(ROOT)))
    try:
        reader, end = PreviewReader(path), time.monotonic() + 60
        seen: list[int] = []
        while len(set(seen)) < 50 and time.monotonic() < end:
            found = reader.read()
            if found is not None:
                array, step = found
                assert array.min() == array.max() == step
                seen.append(step)
    finally:
        writer.kill()
        writer.wait()
    assert len(set(seen)) == 50
    assert seen == sorted(seen)


def test_a_partial_volume_is_read_like_any_other(tmp_path):
    from DiffusionMBIRLib.io.volumes import read_volume

    volume = body((3, 8, 10))
    path = tmp_path / "result-partial.nrrd"
    write_partial(path, volume.array.astype(np.float32), volume.grid, unit="HU", step=7)
    back = read_volume(path)
    assert np.array_equal(back.array, volume.array)
    assert back.grid == volume.grid
    assert back.unit == "HU"
    assert json.loads(back.metadata["provenance"])["partial"] is True


# --- commands and clock


def test_commands_are_obeyed_and_others_named():
    paused: list[bool] = []
    unknown: list[str] = []
    control = Control(on_pause=paused.append, on_unknown=unknown.append)
    for command in ("preview off", "interval 2.5", "interval nan", "interval -1", "dance", ""):
        control.obey(command)
    assert (control.preview_on, control.interval_s) == (False, 2.5)
    assert unknown == ["interval nan", "interval -1", "dance", ""]
    control.obey("pause")
    threading.Timer(0.1, control.obey, ["resume"]).start()
    assert 0.05 < control.check() < 5
    assert paused == [True, False]


def test_the_clock_tells_the_fraction_of_the_whole_and_the_time_left():
    clock = Clock([TimedStage("a", 10.0), TimedStage("b", 30.0, passes=2)], now=0.0)
    assert clock.tick("a", 1, 10, now=1.0) == (0.025, 1.0, None)
    fraction, seconds, left = clock.tick("a", 10, 10, now=10.0)
    assert (fraction, seconds, left) == (0.25, 10.0, 30.0)
    now = 10.0
    for sample in range(2):
        for done in range(1, 6):
            now += 2.0
            fraction, _, left = clock.tick("b", done, 5, now)
            steps = 5 * sample + done
            assert fraction == pytest.approx(0.25 + 0.75 * steps / 10)
            assert left == (None if steps < 2 else pytest.approx(2.0 * (10 - steps)))


def test_a_run_that_is_taken_up_counts_its_own_pace():
    clock = Clock([TimedStage("b", 30.0)], now=0.0)
    clock.take_up("b", 0, 50)
    clock.tick("b", 51, 100, now=5.0)
    fraction, _, left = clock.tick("b", 52, 100, now=6.0)
    assert fraction == pytest.approx(0.52)
    assert left == pytest.approx(48.0)


# --- the record for an issue


def test_a_report_for_an_issue_names_nobody(tmp_path):
    patient = "Mustermann^Erika"
    home = tmp_path / patient
    home.mkdir()
    small_prior(home)
    volume = body((3, 8, 8))
    job = JobFolder.create(home / "jobs", request(home, volume, name=f"CT {patient}"), volume)
    job.write_last_word(Failed(f"{home}/scan {patient}.nrrd: cannot be read", "input", False))
    (job.path / folders.LOG).write_text(
        f'  File "{home}/engine.py", line 3, in run\nPatientName: {patient}\nMUSTERMANN and erika\n'
        "ValueError: /srv/pacs/secret/0001.dcm: bad\n"
        "memory ran out in the projector\n"
    )
    path = tmp_path / "report.zip"
    save_issue_report(job.path, path, {"slicer": "5.12", "file": f"{home}/x.nrrd"})
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
        text = "\n".join(file.read(name).decode() for name in names)
    for secret in ("mustermann", "erika", str(tmp_path).lower(), "secret", "pacs", "0001", "scan.npz"):
        assert secret not in text.lower()
    assert not any(name.endswith((".npz", ".raw", ".nrrd", ".pt")) for name in names)
    for expected in ("memory ran out in the projector", "engine.py", '"steps"', "5.12", '"torch"'):
        assert expected in text
