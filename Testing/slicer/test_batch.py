"""Many volumes in the panel: rows of nodes, files and DICOM studies, real jobs, failures, restarts, safe names."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest_plugins = ("Testing.slicer.host.fixtures",)

import Testing.slicer.host  # noqa: E402, F401 - makes qt importable

# isort: split
from DiffusionMBIRGui import batch, setup  # noqa: E402
from DiffusionMBIRGui.batch import Batch, found_in, result_file  # noqa: E402
from DiffusionMBIRGui.panel import Panel  # noqa: E402
from DiffusionMBIRGui.parameters import Parameters  # noqa: E402
from DiffusionMBIRGui.volumes import voxels  # noqa: E402
from DiffusionMBIRLib.errors import InputError  # noqa: E402
from DiffusionMBIRLib.io.volumes import read_volume  # noqa: E402
from DiffusionMBIRLib.jobs.folder import JobFolder  # noqa: E402
from DiffusionMBIRLib.names import as_file_name  # noqa: E402
from DiffusionMBIRLib.volume import Volume  # noqa: E402
from Testing.slicer.helpers import nodes_of  # noqa: E402
from Testing.slicer.host import widgets  # noqa: E402
from Testing.slicer.host.played import CPU, UI, ct_volume, shown, text, wait_for  # noqa: E402
from Testing.slicer.jobs_helpers import chest, engine, environment  # noqa: E402

FAST = {"method": "sirt", "sirt_iterations": 5, "views": 8, "device": "cpu"}


def statuses(panel) -> list[str]:
    return [row.status for row in panel.batch.batch.rows]


@pytest.fixture
def able(panel, desktop, tmp_path, new_scene):
    """A panel whose engine computes, with a quick method, and a folder to choose."""
    return made_able(panel, desktop, tmp_path)


def made_able(panel, desktop, tmp_path):
    panel.pace.enabled = panel.warm.enabled = False
    panel.setup.engine = setup.Engine(engine(), environment(tmp_path))
    panel.setup.report = setup.Report("3.12", "2.9", (CPU,), machine="this one")
    panel.setup.priors = setup.priors()
    panel.parameters.update(FAST)
    desktop.file = str(tmp_path / "study")
    panel.refresh()
    return panel


@pytest.mark.slow
def test_a_batch_goes_on_after_a_failure_and_after_a_restart(
    able, desktop, runner, application, tmp_path, new_scene, desk
):
    array, grid = chest()
    inputs = tmp_path / "study"
    inputs.mkdir()
    Volume(array, grid, name="b").save(inputs / "b.nrrd")
    (inputs / "damaged.nrrd").write_bytes(b"NRRD0004\ntype: float\n\n")
    node = ct_volume(new_scene, "a/b: *chest*", (4, 16, 16))
    form, rows = able.form, able.batch.batch.rows
    assert text(form.batchRun) == "Run all"
    assert not form.batchRun.isEnabled()
    able.batch.actions["volumes"].trigger()
    able.batch.actions["folder"].trigger()
    wait_for(lambda: not able.batch.busy, application)
    assert [(row.name, row.node or Path(row.path).name) for row in rows] == [
        ("a/b: *chest*", node), ("b", "b.nrrd"), ("damaged", "damaged.nrrd"),
    ]  # fmt: skip
    able.batch.actions["volumes"].trigger()  # what is there is not added again
    assert len(rows) == 3
    form.batchRun.click()
    assert text(form.batchRun) == "Stop"
    assert text(form.runButton) == "Run: the batch is running"
    wait_for(lambda: rows[0].status == batch.FINISHED, application)
    form.batchRun.click()  # the second one is stopped, or has not begun
    wait_for(lambda: not able.batch.busy, application)
    assert batch.STOPPED in statuses(able)
    folder = able.batch.batch.folder

    # Slicer is closed and opened again: neither scene nor settings are there any more.
    able.close()
    root = widgets.load(str(UI))
    again = made_able(Panel(root, scene=desk.scene, desktop=desktop, runner=runner), desktop, tmp_path)
    assert [row.name for row in again.batch.batch.rows] == ["a/b: *chest*", "b", "damaged"]
    assert text(again.form.runMessage) == "Batch of an earlier time: 1 of 3 done; Run all under Batch goes on."
    assert not again.form.batchSection.property("collapsed")
    again.form.batchRun.click()
    assert text(again.form.runMessage) == ""
    wait_for(lambda: not again.batch.busy, application)
    assert statuses(again) == [batch.FINISHED, batch.FINISHED, batch.FAILED]
    assert "damaged" in again.batch.batch.rows[2].note
    assert text(again.form.batchLine) == "2 of 3 done, 1 failed"
    assert again.form.batchTable.item(2, 1).text().startswith("failed: cannot be read as a volume")
    results = sorted(path.name for path in (folder / batch.RESULTS).iterdir())
    assert results == ["a-b- -chest-.nrrd", "b.nrrd"]
    assert (inputs / "b.nrrd").read_bytes() != (folder / batch.RESULTS / "b.nrrd").read_bytes()
    with (folder / "cases.csv").open(encoding="utf-8") as stream:
        table = {row["case"]: row for row in csv.DictReader(stream)}
    assert table["b"]["status"] == "finished"
    assert float(table["b"]["psnr_axial"]) > 10
    assert table["damaged"]["reason"]

    # The result is a volume like any other, and comes into the scene when it is asked for.
    again.form.batchTable.selectRow(1)
    again.form.batchShow.click()
    wait_for(lambda: not again.batch.busy, application)
    (loaded,) = nodes_of(desk.scene, "vtkMRMLScalarVolumeNode")
    assert loaded.GetName() == "b"
    np.testing.assert_array_equal(voxels(loaded), read_volume(folder / batch.RESULTS / "b.nrrd").array)

    # Pages of what is done, by the engine, and their index in the browser.
    again.form.batchPages.click()
    wait_for(lambda: not again.batch.busy, application)
    assert desktop.opened == [str(folder / "index.html")]
    assert sorted(path.name for path in (folder / "reports").iterdir()) == ["a-b- -chest-.html", "b.html"]
    again.form.batchRemove.click()
    assert len(again.batch.batch.rows) == 2
    again.batch.actions["new"].trigger()
    assert again.form.batchTable.rowCount() == 0
    again.batch.actions["earlier"].trigger()
    assert again.form.batchTable.rowCount() == 3
    again.close()
    root.deleteLater()


def test_a_dicom_study_is_a_row_for_each_folder_of_a_series(tmp_path):
    for place, names in (
        ("study/series 1", ("1", "2")),
        ("study/series 2", ("1",)),
        ("study/notes", ("read me.txt",)),
        ("study/old/jobs/x", ("volume.nrrd",)),
    ):
        (tmp_path / place).mkdir(parents=True)
        for name in names:
            content = bytes(128) + b"DICM" + bytes(20)
            (tmp_path / place / name).write_bytes(content if "." not in name else b"NRRD0004\n")
    (tmp_path / "study" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "study" / "volume.NRRD").write_bytes(b"NRRD0004\n")
    (tmp_path / "study" / "old" / "cases.csv").write_text("case\n")
    found = {name: path.name for name, path in found_in(tmp_path / "study", "volume")}
    assert found == {"volume": "volume.NRRD", "series 1": "series 1", "series 2": "series 2"}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("Müller, CT 3 mm", "Müller, CT 3 mm"),
        ("../../etc/passwd", "-..-etc-passwd"),
        ("a\x1b[31m\nb", "a-[31m-b"),
        ("con", "_con"),
        ("AUX.old", "_AUX.old"),
        (" . ", "result"),
        ("x" * 300, "x" * 100),
        ("a\u202egnp", "a-gnp"),
    ],
)
def test_results_are_named_safely(name, file):
    assert as_file_name(name) == file
    assert "/" not in file


def test_no_result_takes_the_place_of_another_file(tmp_path):
    job = JobFolder(tmp_path / "20260101-120000-abc123")
    assert result_file(tmp_path, "chest", job).name == "chest.nrrd"
    (tmp_path / "chest.nrrd").write_text("somebody's")
    assert result_file(tmp_path, "chest", job).name == "chest (abc123).nrrd"


def test_rows_of_one_name_get_a_number_and_a_folder_without_a_table_is_refused(tmp_path):
    made = Batch()
    assert made.add("chest", path="/one/chest.nrrd")
    assert made.add("chest", path="/two/chest.nrrd")
    assert not made.add("chest", path="/two/chest.nrrd")
    assert [row.name for row in made.rows] == ["chest", "chest (2)"]
    with pytest.raises(InputError, match="holds no batch"):
        made.open(tmp_path)


def test_rows_of_a_scene_that_closes_go_with_it(ready, new_scene, desktop):
    ready.batch.actions["volumes"].trigger()
    desktop.file = "/some/file.nrrd"
    ready.batch.actions["file"].trigger()
    assert ready.form.batchTable.rowCount() == 2
    assert shown(ready.form.batchTable)
    ready.on_scene_closing()
    new_scene.Clear(0)
    ready.attach(new_scene)
    assert [row.name for row in ready.batch.batch.rows] == ["file"]
    assert ready.form.batchTable.rowCount() == 1


def test_volumes_that_we_made_are_no_scans(ready, application):
    """Such as what lies behind a built sample."""
    ready.data.sample_buttons[-2].click()
    wait_for(lambda: not ready.data.busy, application)
    assert ready.parameters.reference_node is not None
    ct_volume(ready.scene, "scan")
    ready.parameters.set("source", "volume")
    ready.batch._add_volumes()
    names = [row.name for row in ready.batch.batch.rows]
    assert "scan" in names
    assert not [name for name in names if "behind" in name]


def test_an_input_that_does_not_fit_is_a_row_that_failed_and_no_trap(ready, new_scene, tmp_path, application, desktop):
    ready.batch.batch.add("gone", path=str(tmp_path / "gone.nrrd"))
    ready.batch.batch.start(Parameters.of(new_scene), tmp_path / "out", ("python",), None)
    wait_for(lambda: not ready.batch.busy or ready.batch.poll(), application)
    (row,) = ready.batch.batch.rows
    assert row.status == batch.FAILED
    assert row.note == "There is no such file: choose another one."
