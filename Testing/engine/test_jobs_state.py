"""The state of a job: kept at a small share of the time, resumed from only where it is exactly what was written."""

import itertools
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from DiffusionMBIRLib.io.volumes import read_volume
from DiffusionMBIRLib.jobs.control import ClientGone, Control
from DiffusionMBIRLib.jobs.keeper import Keeper
from DiffusionMBIRLib.jobs.messages import Log
from DiffusionMBIRLib.jobs.task import Task
from Testing.engine.helpers import ROOT
from Testing.engine.jobs_helpers import new_job, run_here, small_prior


def keeper(folder, fingerprint="a", **options):
    warnings: list[str] = []
    made = Keeper(folder, fingerprint, warn=warnings.append, **options)
    return made, warnings


def test_what_a_run_saved_itself_is_nothing_to_go_on_from(tmp_path):
    """Each of several samples asks: a run is not longer than it was because it finds what the last one left."""
    earlier, _ = keeper(tmp_path, share=1e9)
    time.sleep(0.3)
    earlier.save("diffusion", {"x": torch.ones(3), "done": torch.tensor(1)})
    assert earlier.load("diffusion") is None
    assert earlier.seconds_before == 0.0
    assert earlier.steps_done("diffusion") == (0, 0)
    later, _ = keeper(tmp_path, share=1e9)
    assert later.load("diffusion") is not None
    assert later.seconds_before >= 0.3
    later.save("diffusion", {"x": torch.ones(3), "done": torch.tensor(2)})
    assert later.load("diffusion") is None


def test_a_state_comes_back_with_types_and_strides(tmp_path):
    state = {
        "x": torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
        "k": torch.randn(3, dtype=torch.complex64),
        "done": torch.tensor(5),
        "generator": torch.Generator().get_state(),
    }
    first, _ = keeper(tmp_path, share=1e9)
    first.save("diffusion", state)
    second, warnings = keeper(tmp_path)
    back = second.load("diffusion")
    assert back.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(back[name], value)
        assert (back[name].dtype, back[name].stride()) == (value.dtype, value.stride())
    assert second.steps_done("diffusion") == (0, 5)
    assert second.load("ADMM-TV") is None
    assert warnings == []


def test_only_the_newest_stage_is_kept(tmp_path):
    made, _ = keeper(tmp_path, share=1e9)
    made.save("ADMM-TV", {"done": torch.tensor(1)})
    made.save("diffusion", {"done": torch.tensor(1)})
    assert [p.name for p in tmp_path.iterdir()] == ["diffusion.pt"]


@pytest.mark.parametrize("length", [0, 100, 600])
def test_a_damaged_state_is_left_aside_with_a_warning(tmp_path, length):
    keeper(tmp_path, share=1e9)[0].save("diffusion", {"x": torch.zeros(100), "done": torch.tensor(1)})
    os.truncate(tmp_path / "diffusion.pt", length)
    second, warnings = keeper(tmp_path)
    assert second.load("diffusion") is None
    assert len(warnings) == 1
    assert "is damaged" in warnings[0]


def test_a_flipped_bit_anywhere_is_noticed(tmp_path):
    """Neither a zip file's reader nor torch looks at the checksums of what it reads."""
    path = tmp_path / "diffusion.pt"
    keeper(tmp_path, share=1e9)[0].save("diffusion", {"x": torch.zeros(1000), "done": torch.tensor(1)})
    whole = path.read_bytes()
    for place in (0, whole.index(bytes(4000)) + 2000, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1
        path.write_bytes(spoilt)
        second, warnings = keeper(tmp_path)
        assert second.load("diffusion") is None
        assert warnings == ["the saved state is damaged (its SHA-256 differs); starting from the beginning"]
        assert second.seconds_before == 0.0
    path.write_bytes(whole)
    assert keeper(tmp_path)[0].load("diffusion") is not None


@pytest.mark.parametrize(
    ("state", "what"),
    [
        ({"x": torch.tensor([0.0, float("nan")]), "done": torch.tensor(1)}, "x has values that are not finite"),
        ({"x": torch.zeros(3)}, "done is missing"),
        ({"x": torch.zeros(3), "done": torch.tensor(-1)}, "done is no count"),
        ({"x": torch.zeros(3), "done": torch.tensor(1.0)}, "done is no count"),
        ({"x": torch.zeros(3), "done": torch.tensor(1), "number": torch.tensor([1])}, "number is no count"),
    ],
)
def test_what_no_run_leaves_is_left_aside(tmp_path, state, what):
    keeper(tmp_path, share=1e9)[0].save("diffusion", state)
    second, warnings = keeper(tmp_path)
    assert second.load("diffusion") is None
    assert warnings == [f"the saved state is not one of a run ({what}); starting from the beginning"]


VOLUME = (4, 24, 24)


def admm_state():
    x, slopes = torch.ones(VOLUME), torch.ones((3, *VOLUME))
    return "ADMM-TV", {"x": x, "slopes": slopes, "lifted": x.clone(), "done": torch.tensor(2)}


def diffusion_state():
    x = torch.ones(VOLUME)
    state = {"x": x, "last": x, "moved": x, "image": x, "shifted": torch.ones(3, 24, 24), "done": torch.tensor(1)}
    counts = {"number": torch.tensor(0), "evaluations": torch.tensor(4)}
    floats = {"pull": torch.tensor(0.0, dtype=torch.float64), "network_seconds": torch.tensor(0.1, dtype=torch.float64)}
    return "diffusion", {**state, **counts, **floats}


def samples_state():
    stage, state = diffusion_state()
    x = torch.ones(VOLUME)
    return stage, {**state, "start": x, "mean": x, "squares": x, "number": torch.tensor(1)}


DIFFUSION = {"method": "dds", "steps": 3, "extrapolation": 0.5, "preconditioner": 0.01, "seed": 3}
STATES = {
    "admm-tv": (admm_state, {"method": "admm-tv", "tv_sweeps": 3}),
    "dds": (diffusion_state, DIFFUSION),
    "samples": (samples_state, {**DIFFUSION, "samples": 2}),
}
ODD = [
    ("admm-tv", {"x": torch.zeros(1, 1, 1)}),
    ("admm-tv", {"x": torch.zeros(VOLUME, dtype=torch.float64)}),
    ("admm-tv", {"x": None}),
    ("admm-tv", {"slopes": None}),
    ("admm-tv", {"slopes": torch.zeros(3, 1, 24, 24)}),
    ("admm-tv", {"lifted": torch.zeros(1, 24, 1)}),
    ("admm-tv", {"done": torch.tensor(99)}),
    ("dds", {"x": torch.zeros(1, 1, 24)}),
    ("dds", {"shifted": None}),
    ("dds", {"shifted": torch.zeros(1, 24, 24)}),
    ("dds", {"last": torch.zeros(4, 1, 1)}),
    ("dds", {"last": None}),
    ("dds", {"moved": torch.zeros(1, 1, 1)}),
    ("dds", {"pull": None}),
    ("dds", {"done": torch.tensor(3)}),
    ("dds", {"number": torch.tensor(1)}),
    ("samples", {"mean": torch.zeros(1, 1, 1)}),
    ("samples", {"squares": None}),
    ("samples", {"start": torch.zeros(1, 24, 24)}),
    ("samples", {"number": torch.tensor(2)}),
]


def changed(name, change):
    """A state that a run of this kind may leave, with some tensors replaced or (None) left out."""
    stage, state = STATES[name][0]()
    return stage, {key: value for key, value in {**state, **change}.items() if value is not None}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The result of each kind of job from its beginning, by name."""
    folder = tmp_path_factory.mktemp("whole")
    small_prior(folder)
    jobs = {name: new_job(folder, **options) for name, (_, options) in STATES.items()}
    return {name: read_volume(job.path / run_here(job)[0].result).array for name, job in jobs.items()}


@pytest.mark.parametrize(("name", "change"), ODD)
def test_a_job_with_a_state_that_does_not_fit_starts_anew(tmp_path, whole, name, change):
    """One of right fingerprint and digest, whose tensors would be broadcast or missed in silence."""
    warnings, result = resumed(tmp_path, name, change)
    assert len(warnings) == 1
    assert "the saved state does not fit the job" in warnings[0]
    assert (result == whole[name]).all()


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_fits_is_gone_on_from(tmp_path, whole, name):
    warnings, result = resumed(tmp_path, name, {})
    assert warnings == []
    assert not (result == whole[name]).all()


def resumed(folder, name, change):
    """(warnings, result) of a job that finds the state."""
    small_prior(folder)
    job = new_job(folder, **STATES[name][1])
    task = Task(job, Control(on_pause=lambda paused: None, on_unknown=lambda command: None), lambda event: None)
    Keeper(job.path / "state", task._fingerprint(), warn=pytest.fail, share=1e9).save(*changed(name, change))
    last, events = run_here(job)
    warnings = [event.text for event in events if isinstance(event, Log) and event.level == "warning"]
    return warnings, read_volume(job.path / last.result).array


def test_a_state_of_other_settings_is_left_aside(tmp_path):
    keeper(tmp_path, share=1e9)[0].save("diffusion", {"done": torch.tensor(1)})
    second, warnings = keeper(tmp_path, "b")
    assert second.load("diffusion") is None
    assert "another version or prior" in warnings[0]


def test_saving_takes_its_share_of_the_time_and_no_more(tmp_path, monkeypatch):
    """By a clock that a step and every look at it move on, so that two looks are what a save takes."""
    look_s, step_s, steps = 0.01, 0.03, 500
    now = itertools.count()
    monkeypatch.setattr("DiffusionMBIRLib.jobs.keeper.time", SimpleNamespace(monotonic=lambda: next(now) * look_s))
    made, _ = keeper(tmp_path, share=0.1)
    seen = []
    for k in range(steps):
        for _ in range(round(step_s / look_s)):
            next(now)
        made.save("diffusion", {"done": torch.tensor(k)})
        seen.append(int(torch.load(tmp_path / "diffusion.pt")["state"]["done"]) if k > 50 else 0)
    run_s = next(now) * look_s
    saves = len(set(seen))
    assert 0.07 * run_s < saves * 2 * look_s <= 0.1 * run_s
    assert seen == sorted(seen)


def test_the_first_state_comes_early_in_a_long_run(tmp_path):
    made, _ = keeper(tmp_path, expected_s=lambda: 600.0)
    made.save("diffusion", {"done": torch.tensor(1)})
    assert (tmp_path / "diffusion.pt").exists()


def test_a_full_disk_while_saving_is_one_warning(tmp_path, monkeypatch):
    made, warnings = keeper(tmp_path, share=1e9)
    made.save("diffusion", {"x": torch.zeros(10), "done": torch.tensor(1)})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for done in (2, 3):
        made.save("diffusion", {"x": torch.zeros(10), "done": torch.tensor(done)})
    assert len(warnings) == 1
    assert "no space left" in warnings[0]
    assert keeper(tmp_path)[0].load("diffusion")["done"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["diffusion.pt"]


@pytest.mark.slow
def test_killed_while_it_writes_the_older_state_is_whole(tmp_path):
    """The writer does nothing but save; it is killed at moments spread over many saves."""
    code = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from DiffusionMBIRLib.jobs.keeper import Keeper\n"
        "keeper = Keeper(Path(sys.argv[1]), 'a', warn=print, share=1e9)\n"
        "k = 0\n"
        "while True:\n"
        "    k += 1\n"
        "    keeper.save('diffusion', {'x': torch.full((300_000,), float(k)), 'done': torch.tensor(k)})\n"
        "    print(k, flush=True)\n"
    )
    interrupted = 0
    for turn in range(4):
        folder = tmp_path / str(turn)
        folder.mkdir()
        command = [sys.executable, "-c", code, str(folder)]
        environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        writer.stdout.readline()
        end = time.monotonic() + 5
        while not list(folder.glob(".*.tmp")) and time.monotonic() < end:
            pass
        time.sleep(0.002 * turn)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        interrupted += len(list(folder.glob(".*.tmp")))
        second, warnings = keeper(folder)
        state = second.load("diffusion")
        assert (state["x"] == float(state["done"])).all()
        assert warnings == []
        assert not list(folder.glob(".*.tmp"))
    assert interrupted >= 1


def test_for_a_client_that_is_gone_the_state_is_saved_at_once(tmp_path):
    made, _ = keeper(tmp_path, client_gone=lambda: True, share=0.0)
    with pytest.raises(ClientGone):
        made.save("diffusion", {"done": torch.tensor(1)})
    assert keeper(tmp_path)[0].load("diffusion")["done"] == 1
