"""An engine on another computer, in the panel: chosen, tested, and a run whose volume appears in the scene."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
import pytest

pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest_plugins = ("Testing.slicer.host.fixtures",)

import Testing.slicer.host  # noqa: E402, F401 - makes qt importable

# isort: split
from DiffusionMBIRGui import remote  # noqa: E402
from DiffusionMBIRGui.runner import Runner  # noqa: E402
from DiffusionMBIRLib.errors import InputError  # noqa: E402
from DiffusionMBIRLib.io.volumes import read_volume  # noqa: E402
from DiffusionMBIRLib.version import __version__  # noqa: E402
from Testing.engine.remote_helpers import LACKING, package_there, server  # noqa: E402
from Testing.slicer.host.played import ct_volume, shown, text, wait_for  # noqa: E402

HERE = (sys.executable,)


def test_what_is_typed_names_an_engine():
    engine = remote.remote_engine("slurm", "login:/opt/python --partition=gpu --gres=gpu:1", HERE)
    assert engine.place == {"engine": "slurm:login:/opt/python", "options": ("--partition=gpu", "--gres=gpu:1")}
    assert engine.command == HERE
    assert remote.remote_engine("slurm", "", HERE).place["engine"] == "slurm"
    assert remote.remote_engine("ssh", " gpu ", HERE).remote == "ssh:gpu"


@pytest.mark.parametrize(
    ("kind", "typed", "says"),
    [
        ("ssh", "", "Name the other computer"),
        ("ssh", "a b", "Name one host"),
        ("ssh", "gpu --gres=x", "options of sbatch are for slurm only"),
        ("ssh", "gpu;x", "is no name of a host"),
        ("slurm", "'", "cannot be read"),
    ],
)
def test_what_names_none_is_told_in_one_line(kind, typed, says):
    with pytest.raises(InputError, match=says):
        remote.remote_engine(kind, typed, HERE)


def test_a_report_is_read_from_what_the_command_line_says():
    cpu = {"name": "cpu", "title": "CPU", "total": 32_000_000_000, "free": 16_000_000_000}
    gpu = {"name": "cuda:0", "title": "H100", "total": 80_000_000_000, "free": 79_000_000_000}
    told = {"version": "1", "python": "3.12.1", "torch": "2.9", "machine": "m", "devices": [gpu, cpu]}
    report = remote.read_remote_report(["a warning", json.dumps(told)], "gpu")
    assert report.ready
    assert report.line().startswith("Ready on gpu: Python 3.12.1, torch 2.9; H100 with ")
    assert report.device("auto").name == "cuda:0"
    report = remote.read_remote_report(
        [json.dumps({"error": "gpu: has no DiffusionMBIR; `diffusionmbir engine install x`"})], "gpu"
    )
    assert (report.ready, bool(report.lacking)) == (False, True)
    assert "has no DiffusionMBIR" in report.line()
    assert not remote.read_remote_report([json.dumps({"error": "gpu: your key is not accepted"})], "gpu").lacking
    assert "Traceback" in remote.read_remote_report(["Traceback"], "gpu").line()


def choose(panel, kind: int, host: str) -> None:
    panel.form.engineKind.setCurrentIndex(kind)
    panel.form.enginePath.setText(host)
    panel.form.enginePath.editingFinished.emit()


def test_a_host_is_asked_for_where_one_is_needed(panel, desktop):
    choose(panel, 2, "")
    assert shown(panel.form.enginePath)
    assert not shown(panel.form.engineBrowse)
    assert text(panel.form.enginePathLabel) == "Host:"
    assert "Name the other computer" in text(panel.form.engineStatus)
    panel.form.engineKind.setCurrentIndex(0)
    assert not shown(panel.form.enginePath)
    assert desktop.setting("engine_kind") == ""


@pytest.fixture
def there(tmp_path, monkeypatch):
    with server(tmp_path / "server") as found:
        monkeypatch.setenv("DIFFUSIONMBIR_SSH", found.ssh)
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        yield found


@pytest.mark.slow
@pytest.mark.skipif(bool(LACKING), reason=LACKING or "ssh")
def test_another_computer_is_tested_and_computes(panel, application, desktop, there, new_scene, tmp_path):
    def looked() -> bool:
        panel.poll()
        return not panel.setup.busy and panel.setup.report is not None

    choose(panel, 2, f"there:{tmp_path / 'no-python'}")
    wait_for(looked, application)
    assert "there: no Python found there" in text(panel.form.engineStatus)
    assert not shown(panel.form.engineInstall)
    package_there(there.root, __version__)
    choose(panel, 2, f"there:{sys.executable}")
    wait_for(looked, application)
    assert text(panel.form.engineStatus).startswith("Ready on there: Python ")
    assert " free" in text(panel.form.engineStatus)
    assert panel.warm.standby is None
    runner = Runner(new_scene, root=tmp_path / "jobs")
    runner.python, runner.environment = panel.setup.engine.command, dict(os.environ)
    runner.place = panel.run.runner.place
    assert runner.place == {"engine": f"ssh:there:{sys.executable}", "options": ()}
    panel.parameters.set_node("input", ct_volume(new_scene))
    panel.parameters.set("method", "fbp")
    panel.parameters.set("views", 8)
    runner.start(panel.parameters)
    end = time.monotonic() + 120
    while runner.poll() and time.monotonic() < end:
        time.sleep(0.02)
    assert runner.node is not None
    expected = read_volume(runner.job_path / "result.nrrd").array
    from vtk.util import numpy_support

    shown_voxels = numpy_support.vtk_to_numpy(runner.node.GetImageData().GetPointData().GetScalars())
    np.testing.assert_array_equal(shown_voxels.reshape(expected.shape), expected)
    runner.close()
    assert there.wait_until_left() == []
