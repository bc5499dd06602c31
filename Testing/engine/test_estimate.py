"""What a run will need is told beforehand, and follows the pace that was seen."""

import json
import os
import subprocess
import sys

import pytest
from DiffusionMBIRLib.methods import METHODS, methods_for
from DiffusionMBIRLib.tasks import MR_TASK, TASKS

from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.estimate import duration, estimate, evaluations, known_rate, note_rate, stages
from Testing.engine.helpers import ROOT

SHAPE = (180, 256, 256)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))


def seconds(*arguments, **options) -> float:
    found = estimate(*arguments, **options).seconds
    assert found is not None
    return found


def test_the_line_before_a_run():
    found = estimate(SHAPE, ReconSettings(), "sparse-view-ct", device_memory=8_000_000_000, rate=1e-7)
    assert found.text.startswith("256 x 256 x 180, needs ")
    assert " of 8.0 GB, about " in found.text
    assert 0.5e9 < found.memory_bytes < 3e9
    assert found.seconds == pytest.approx(100, rel=0.5)


def test_too_little_memory_is_said():
    found = estimate(SHAPE, ReconSettings(), "sparse-view-ct", device_memory=500_000_000)
    assert "more than there is" in found.text


def test_an_unknown_prior_has_no_time_until_it_was_seen():
    settings = ReconSettings(prior="other")
    assert estimate(SHAPE, settings, TASKS[0]).seconds is None
    assert "time not known before the first run" in estimate(SHAPE, settings, TASKS[0]).text
    note_rate("cpu", "other", 1e-6)
    assert seconds(SHAPE, settings, TASKS[0], rate=known_rate("cpu", "other")) > 100
    assert estimate(SHAPE, ReconSettings(prior="other", method="sirt"), TASKS[0]).seconds is not None
    assert estimate(SHAPE, ReconSettings(), TASKS[0], device="cuda").seconds is None


@pytest.mark.parametrize("task", TASKS)
def test_more_work_takes_longer_and_more_memory(task):
    for method in methods_for(task):
        settings = ReconSettings(method=method)
        shapes = ((10, 64, 64), (20, 128, 128))
        small, large = (seconds(shape, settings, task) for shape in shapes)
        assert 0 < small < large
        little, much = (estimate(shape, settings, task).memory_bytes for shape in shapes)
        assert 0 < little < much
    many, few = ReconSettings(steps=100), ReconSettings(steps=10)
    assert seconds(SHAPE, many, task) > 5 * seconds(SHAPE, few, task)
    assert estimate(SHAPE, many, task).memory_bytes == estimate(SHAPE, few, task).memory_bytes


def test_evaluations_are_those_of_the_engine():
    expected = {"dds": 50, "mbir": 101, "mbir-slow": 101, "score-ct": 101, "score-mri": 101}
    assert {m: evaluations(ReconSettings(method=m)) for m in METHODS if m in expected} == expected
    assert evaluations(ReconSettings(method="fbp")) == 0
    assert evaluations(ReconSettings(samples=3)) == 150


def test_stages_are_in_order():
    assert list(stages(SHAPE, ReconSettings(), TASKS[0], simulated=True)) == ["simulate", "ADMM-TV", "diffusion"]
    assert list(stages(SHAPE, ReconSettings(start="fbp"), TASKS[0])) == ["diffusion"]
    assert list(stages(SHAPE, ReconSettings(method="sirt"), TASKS[0])) == ["SIRT"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.1, "1 s"), (59, "59 s"), (180, "3 min"), (5300, "88 min"), (5400, "1.5 h")]
)
def test_durations_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_rates_are_kept_and_damage_is_forgiven(tmp_path):
    assert known_rate("cpu", "a") is None
    note_rate("cpu", "a", 2e-7)
    note_rate("cpu", "a", 4e-7)
    assert known_rate("cpu", "a") == pytest.approx(3e-7)
    assert known_rate("gpu", "a") is None
    path = tmp_path / "DiffusionMBIR" / "rates.json"
    for text in ("{", "[]", json.dumps({"cpu|a": "fast"}), json.dumps({"cpu|a": -1.0})):
        path.write_text(text)
        assert known_rate("cpu", "a") is None
    note_rate("cpu", "/somewhere/of/mine.safetensors", 1e-7)
    assert "somewhere" not in path.read_text()
    assert known_rate("cpu", "/somewhere/of/mine.safetensors") == 1e-7


def test_neither_the_estimate_nor_the_client_brings_torch():
    code = (
        "import sys\n"
        "import DiffusionMBIRLib.estimate, DiffusionMBIRLib.jobs.client, DiffusionMBIRLib.jobs.issue_report\n"
        "print(sorted(set(sys.modules) & {'torch', 'SimpleITK', 'h5py', 'safetensors', 'scipy'}))\n"
    )
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


def test_coils_of_mri_cost_time_and_memory_and_views_do_not():
    for method in ("admm-tv", "sense-cg", "dds"):
        chosen = ReconSettings(method=method)
        one, eight = (estimate(SHAPE, chosen, MR_TASK, coils=n) for n in (1, 8))
        assert one.seconds is not None
        assert eight.seconds is not None
        assert one.seconds < eight.seconds
        assert one.memory_bytes < eight.memory_bytes
        assert estimate(SHAPE, chosen, MR_TASK, views=90) == one
    # Measured: the bundled head's 100 sweeps take about half a minute on two cores.
    assert seconds((56, 176, 192), ReconSettings.preset("mri", method="admm-tv"), MR_TASK, coils=8) > 10
