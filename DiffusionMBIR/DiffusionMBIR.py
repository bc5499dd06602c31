"""The Slicer module: what Slicer asks of one.  All else is in DiffusionMBIRGui, which needs no Slicer application."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from typing import Any

import slicer
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

HERE = Path(__file__).resolve().parent
if not (HERE / "DiffusionMBIRLib").is_dir() and str(HERE.parent) not in sys.path:
    # Installed, the engine lies beside this file; in a checkout one level up.
    sys.path.append(str(HERE.parent))

from DiffusionMBIRGui.texts import _, research_only  # noqa: E402

CATEGORY = "Tomographic Reconstruction"
__all__ = ["DiffusionMBIR", "DiffusionMBIRLogic", "DiffusionMBIRTest", "DiffusionMBIRWidget"]


def resource(name: str) -> Path:
    """A file of the folder Resources, which lies beside this file when installed and one level up in a checkout."""
    from DiffusionMBIRLib.models import resources

    beside = HERE / "Resources" / name
    return beside if beside.exists() else resources() / name


class DiffusionMBIR(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "DiffusionMBIR"
        parent.categories = [_("Tomographic Reconstruction")]
        parent.dependencies = []
        parent.contributors = ["The DiffusionMBIR contributors"]
        parent.helpText = (
            _(
                "Reconstructs 3D CT and MRI from few measurements with a 2D diffusion prior and total variation across "
                "slices. Choose a volume or measurement, press Run, and watch the volume appear in the slice views.<br>"
                "1. <b>Data</b>: choose a volume, to simulate a scan of it, or a measurement; or press a sample.<br>"
                "2. <b>Reconstruction</b>: task, scan and preset; each preset tells how long it takes.<br>"
                "3. <b>Run</b> (Ctrl+Return); Cancel (Esc) keeps the volume as far as it is.<br>"
                "4. <b>Results</b>: compare, flicker (X), difference, export.<br>"
                "<b>Set-up</b> opens by itself while the Python that computes lacks something; Install brings it.<br>"
            )
            + f"<b>{research_only()}</b>"
        )
        parent.acknowledgementText = _(
            "The method is that of Chung et al., Solving 3D Inverse Problems using Pre-trained 2D Diffusion Models, "
            "CVPR 2023 (arXiv 2211.10655). The sample CT is from the RIDER Pilot collection of The Cancer Imaging "
            "Archive. The bundled priors name the sources of their training data on their cards."
        )
        self._set_icon(parent)
        slicer.app.connect("startupCompleted()", offer_samples)

    @staticmethod
    def _set_icon(parent: Any) -> None:
        import qt

        icon = resource("Icons/DiffusionMBIR.png")
        if icon.is_file():
            parent.icon = qt.QIcon(str(icon))


def offer_samples() -> None:
    """Offer the bundled data in Slicer's module Sample Data."""
    from DiffusionMBIRGui.samples import register_samples

    register_samples(str(resource("Icons/DiffusionMBIR.png")))


class DiffusionMBIRWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Slicer's side of the panel: when it is opened, left, and when scenes come and go."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.panel: Any = None
        self.logic: DiffusionMBIRLogic | None = None

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        from DiffusionMBIRGui.panel import Panel
        from DiffusionMBIRGui.panel_desktop import SlicerDesktop

        root = slicer.util.loadUI(str(resource("UI/DiffusionMBIR.ui")))
        self.layout.addWidget(root)
        root.setMRMLScene(slicer.mrmlScene)
        self.logic = DiffusionMBIRLogic()
        runner = self.logic.runner(slicer.mrmlScene)
        self.panel = Panel(root, scene=slicer.mrmlScene, desktop=SlicerDesktop(), runner=runner)
        scene = slicer.mrmlScene
        for event, act in (
            (scene.StartCloseEvent, self._on_scene_closing),
            (scene.EndCloseEvent, self._on_scene_new),
            (scene.EndImportEvent, self._on_scene_new),
        ):
            self.addObserver(scene, event, act)

    def enter(self) -> None:
        self.panel.enter(slicer.util.mainWindow() or self.parent)

    def exit(self) -> None:
        self.panel.exit()

    def cleanup(self) -> None:
        self.removeObservers()
        if self.panel is not None:
            self.panel.close()
            self.panel = None

    def _on_scene_closing(self, _caller: Any, _event: Any) -> None:
        self.panel.on_scene_closing()

    def _on_scene_new(self, _caller: Any, _event: Any) -> None:
        self.panel.attach(slicer.mrmlScene)


class DiffusionMBIRLogic(ScriptedLoadableModuleLogic):
    """Reconstruction from the Python console and from scripts.

    .. code-block:: python

        logic = slicer.modules.diffusionmbir.widgetRepresentation().self().logic  # or DiffusionMBIRLogic()
        logic.reconstruct(volume, output, task="sparse-view-ct", views=8)
    """

    def reconstruct(self, inputVolume: Any, outputVolume: Any = None, **choices: Any) -> Any:
        """Reconstruct from a node or file; see :func:`DiffusionMBIRGui.cases.reconstruct` for the choices.

        With ``wait=True`` (the default) it returns when the volume is there, and Slicer stays alive meanwhile.
        """
        from DiffusionMBIRGui.cases import reconstruct

        return reconstruct(slicer.mrmlScene, inputVolume, outputVolume, **choices)

    def reconstructCases(self, cases: Any, folder: Any, *, show: bool = True) -> list[dict[str, str]]:
        """Run a list of cases; ``folder/cases.csv`` tells of each, and a second call goes on where the first ended."""
        from DiffusionMBIRGui.cases import reconstruct_cases

        return reconstruct_cases(slicer.mrmlScene, cases, folder, show=show)

    def runner(self, scene: Any) -> Any:
        """A runner whose jobs show themselves in a scene."""
        from DiffusionMBIRGui.runner import Runner

        return Runner(scene)


class DiffusionMBIRTest(ScriptedLoadableModuleTest):
    """A run-through as a user makes it: load the sample, simulate, reconstruct, watch, compare."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear(0)

    def runTest(self, **_choices: Any) -> None:
        self.setUp()
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(DiffusionMBIRTest).run(result)
        problems = [text for _test, text in result.errors + result.failures]
        if problems:
            raise AssertionError("\n".join(problems))

    def test_parameters_are_one_node_of_the_scene(self) -> None:
        from DiffusionMBIRGui.parameters import Parameters

        Parameters.of(slicer.mrmlScene).set("views", 24)
        assert Parameters.of(slicer.mrmlScene).get("views") == 24
        assert "torch" not in sys.modules

    def test_run_through(self) -> None:
        """From the sample to the compared result, and through a scene that is saved and opened again."""
        panel = self._panel_with_sample()
        panel.parameters.set("record_sequence", True)
        panel.run.press()
        pixels: set[bytes] = set()
        self._until(lambda: self._watch(panel, pixels), 300)
        output = panel.parameters.output_node
        assert output is not None, panel.form.runMessage.text
        assert len(pixels) >= 5
        assert output.GetImageData().GetDimensions() == (64, 64, 40)
        self._look_at(panel)
        self._save_and_open(panel, slicer.util.arrayFromVolume(output).copy())

    def test_cancel_keeps_what_there_is(self) -> None:
        panel = self._panel_with_sample()
        panel.parameters.set("steps", 500)
        for previews in (0, 2):
            panel.run.press()
            pixels: set[bytes] = set()
            self._until(lambda seen=pixels, count=previews: self._watch(panel, seen) or len(seen) > count, 120)
            job = panel.run.runner._job
            panel.run.cancel()
            self._until(lambda: not panel.run.runner.running, 60)
            assert job is None or not job.running
        assert "(partial)" in panel.parameters.output_node.GetName()
        assert panel.form.runButton.text == "Run"

    def test_killed_worker_is_told_and_resumed(self) -> None:
        panel = self._panel_with_sample()
        panel.run.press()
        self._until(lambda: panel.form.progressBar.value > 500, 120)
        job = panel.run.runner._job
        job.kill()
        self._until(lambda: not job._thread.is_alive(), 60)  # the system has told of its end, on a busy machine late
        panel.poll()  # the next look says so, and waits for nothing
        assert not panel.run.runner.running
        assert panel.form.runMessage.text
        assert panel.form.resumeButton.enabled
        panel.form.resumeButton.click()
        self._until(lambda: not panel.run.runner.running, 300)
        assert panel.form.progressText.text.startswith("Done"), panel.form.runMessage.text

    def _panel_with_sample(self) -> Any:
        """The panel, ready for a run of seconds; the test is skipped where there is no engine.

        $DIFFUSIONMBIR_ENGINE names the Python that computes, for tests whose Slicer has no torch.
        """
        import os

        slicer.util.selectModule("DiffusionMBIR")
        panel = slicer.util.getModuleWidget("DiffusionMBIR").panel
        engine = os.environ.get("DIFFUSIONMBIR_ENGINE")
        if engine and panel.form.enginePath.text != engine:
            panel.form.enginePath.setText(engine)
            panel.form.engineKind.setCurrentIndex(1)
        self._until(lambda: not panel.setup.busy, 60)
        if not panel.setup.ready:
            self.skipTest(panel.setup.report.line())
        panel.data.sample_buttons[0].click()
        panel.parameters.update({"coarsen": 4, "steps": 12, "start_sweeps": 5, "preview_interval_s": 0.2})
        self._until(lambda: panel.missing() is None, 60)
        return panel

    def _look_at(self, panel: Any) -> None:
        """Compare, flicker, difference and convergence."""
        form = panel.form
        form.compareButton.click()
        self._until(lambda: not panel.results.busy, 30)  # the reference is brought onto the result's grid
        assert panel.results._comparison.active
        form.compareButton.click()
        assert not panel.results._comparison.active
        before = self._pixels("Red")
        form.flickerButton.click()
        assert self._pixels("Red") != before
        form.differenceButton.click()
        self._until(lambda: not panel.results.busy, 30)
        composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
        shown = slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID())
        assert shown.GetName().endswith(f"- {panel.parameters.input_node.GetName()}")
        form.differenceButton.click()
        assert composite.GetBackgroundVolumeID() != shown.GetID()
        form.plotButton.click()
        assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLPlotChartNode") == 1
        assert form.runMessage.text == ""

    def _save_and_open(self, panel: Any, result: Any) -> None:
        import tempfile

        settings = {name: panel.parameters.get(name) for name in panel.parameters.TABLE}
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "scene.mrb")
            assert slicer.util.saveScene(path)
            slicer.mrmlScene.Clear(0)
            assert panel.parameters.output_node is None
            slicer.util.loadScene(path)
        slicer.app.processEvents()
        assert {name: panel.parameters.get(name) for name in panel.parameters.TABLE} == settings
        assert (slicer.util.arrayFromVolume(panel.parameters.output_node) == result).all()
        assert panel.form.resultsTable.rowCount == 1
        assert panel.form.plotButton.enabled

    def _watch(self, panel: Any, pixels: set[bytes]) -> bool:
        """Note what the red slice view draws of the output; whether the job is over."""
        output = panel.parameters.output_node
        if output is not None and output.GetImageData() is not None:
            pixels.add(self._pixels("Red"))
        return not panel.run.runner.running

    @staticmethod
    def _pixels(view: str) -> bytes:
        """What a slice view draws, as its slice logic hands it over."""
        from vtk.util.numpy_support import vtk_to_numpy

        connection = slicer.app.layoutManager().sliceWidget(view).sliceLogic().GetImageDataConnection()
        if connection is None:
            return b""
        connection.GetProducer().Update()
        image = connection.GetProducer().GetOutputDataObject(connection.GetIndex())
        return bytes(vtk_to_numpy(image.GetPointData().GetScalars()).tobytes())

    def _until(self, done: Any, seconds: float) -> None:
        import time

        until = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < until, "it did not happen in time"
            slicer.app.processEvents()
            time.sleep(0.02)
