"""The section Data: what to reconstruct from, what was understood of it, and the samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import qt

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import axial_order
from DiffusionMBIRLib.preparation.thick_slices import thin_grid
from DiffusionMBIRLib.simulation.settings import SliceScan
from DiffusionMBIRLib.tasks import TASKS, task_info

from . import inputs, measured, texts
from .measured import Shape
from .panel_desktop import Desktop
from .panel_fields import Form
from .panel_work import Background
from .parameters import Parameters
from .samples import SAMPLES, Loaded, Sample, add_to, loaded_before
from .samples_built import BUILT, Built
from .scene import HELPER, show_volume
from .setup import Engine, Process
from .texts import Missing, _
from .told import options_of, told_of_file
from .volumes import grid_of, voxels

KINDS = {"volume": "volume", "measurement": "sinogram", "k-space": "k-space"}  # what a file holds -> source


class DataSection:
    """Node or file, and what is wrong with it.  ``changed()`` is called when the input is another one."""

    def __init__(self, form: Form, parameters: Parameters, desktop: Desktop, changed: Callable[[], None]) -> None:
        self._form, self.parameters, self._desktop, self._changed = form, parameters, desktop, changed
        self._known: tuple[Any, ...] = ()
        self._summary = ""
        self._scene: Any = None
        self._shown_input = ""  # its ID: a node that is being deleted is no longer among the settings
        self._info: Process | None = None
        self._info_of = ""
        self._told: list[str] = []
        self._loading: tuple[Background, Sample | Built, list[Loaded]] | None = None
        self._trouble = ""
        self.missing: Missing | None = texts.input_missing("volume")
        self.shape: Shape | None = None
        self.views: int | None = None  # of measured data, as are
        self.coils: int | None = None  # these; a simulated scan has those of the settings
        self.geometry = ""  # of k-space in a file
        self.sample_buttons: list[Any] = []
        self._add_samples()
        self._connect()

    def set_scene(self, scene: Any) -> None:
        """The scene whose nodes are offered; None while it closes."""
        self._scene = scene
        self._loading, self._trouble = None, ""
        for box in (self._form.inputNode, self._form.referenceNode):
            before = box.blockSignals(True)  # that nothing is chosen yet is no choice of the user
            box.setMRMLScene(scene)
            box.blockSignals(before)

    def _add_samples(self) -> None:
        layout = self._form.sampleRow.layout()
        for sample in (*SAMPLES, *BUILT):
            button = qt.QPushButton(sample.title())
            button.setObjectName(f"sample{sample.name}")
            button.setToolTip(_("Load this sample and choose it; nothing is downloaded"))
            button.clicked.connect(lambda *_state, sample=sample: self._load(sample))
            layout.addWidget(button)
            self.sample_buttons.append(button)
        layout.addStretch(1)

    def _connect(self) -> None:
        form = self._form
        form.inputNode.currentNodeIDChanged.connect(self._on_input)
        form.referenceNode.currentNodeIDChanged.connect(self._on_reference)
        form.inputFileOpen.clicked.connect(self._on_open)
        form.inputFolderOpen.clicked.connect(self._on_open_folder)
        form.inputFileClear.clicked.connect(self._on_clear)

    # What the user does.

    def _on_input(self, *_state: Any) -> None:
        former, chosen = self._shown_input, self._form.inputNode.currentNode()
        self.parameters.set_node("input", chosen)
        # Where the former one is just being deleted, the box moves on to a neighbour, which nobody chose.
        qt.QTimer.singleShot(0, lambda: self._drop_neighbour(former, chosen))

    def _drop_neighbour(self, former: str, chosen: Any) -> None:
        gone = former and self._scene is not None and self._scene.GetNodeByID(former) is None
        if gone and self.parameters.input_node is chosen:
            self.parameters.set_node("input", None)

    def _on_reference(self, *_state: Any) -> None:
        self.parameters.set_node("reference", self._form.referenceNode.currentNode())

    def _on_open(self, *_state: Any) -> None:
        path = self._desktop.open_file(_title(self.parameters.get("source")), _kinds(self.parameters.get("source")))
        if path:
            self.parameters.set("input_file", path)

    def _on_clear(self, *_state: Any) -> None:
        self.parameters.set("input_file", "")

    def _on_open_folder(self, *_state: Any) -> None:
        path = self._desktop.open_folder(_title_of_folder(self.parameters.get("source")))
        if path:
            self.parameters.set("input_file", path)

    # Samples.

    def _load(self, sample: Sample | Built) -> None:
        """Read or make it in a thread; one that the scene holds is chosen again."""
        if self._loading is not None:
            return
        known = loaded_before(self._scene, sample.name)
        if known is not None:
            self._choose(sample, known)
            return
        found: list[Loaded] = []
        self._loading = (Background(lambda: found.append(sample.load())), sample, found)
        self._trouble = ""
        self._changed()

    def _end_loading(self) -> None:
        assert self._loading is not None
        work, sample, found = self._loading
        self._loading, self._trouble = None, work.problem
        if found:
            node = add_to(self._scene, found[0], sample.title(), sample.name)
            if found[0].reference is not None:
                title = _("{sample}: the volume behind it").format(sample=sample.title())
                truth = add_to(self._scene, found[0].reference, title, f"{sample.name}Truth")
                truth.SetAttribute(HELPER, "1")  # no scan of its own
                self.parameters.set_node("reference", truth)
            self._choose(sample, node)
        self._changed()

    def _choose(self, sample: Sample | Built, node: Any) -> None:
        # The task first: it decides which sources there are.
        own = sample.source == "volume" and task_info(sample.task).modality == self.parameters.modality
        if not own and sample.task != self.parameters.get("task"):
            self.parameters.choose_task(sample.task)
        self.parameters.update({"input_file": "", "source": sample.source})
        self.parameters.set_node("input", node)
        truth = loaded_before(self._scene, f"{sample.name}Truth")
        if truth is not None:
            self.parameters.set_node("reference", truth)
        if sample.source == "volume":
            show_volume(node, fit=self._desktop.slice_logics())

    # What is shown.

    def show(self, engine: Engine | None) -> None:
        """Bring the section up to date; looks at the data again only where they are others."""
        form, parameters = self._form, self.parameters
        source, file = parameters.get("source"), parameters.input_file
        from_file = bool(file)
        form.inputNode.setVisible(not from_file)
        form.inputFileName.setVisible(from_file)
        form.inputFileName.setText(file)
        form.inputFileClear.setVisible(from_file)
        form.inputFileOpen.setVisible(not from_file)
        form.inputFolderOpen.setVisible(not from_file and source != "k-space")
        form.inputLabel.setText({"volume": _("Volume:"), "sinogram": _("Sinogram:")}.get(source, _("k-space:")))
        _choose(form.inputNode, parameters.input_node)
        self._shown_input = parameters.input_node.GetID() if parameters.input_node is not None else ""
        _choose(form.referenceNode, parameters.reference_node)
        needs_reference = source != "volume"
        form.referenceNode.setVisible(needs_reference)
        form.referenceLabel.setVisible(needs_reference)
        key = self._key(engine)
        if key != self._known:
            self._known = key
            self._look(engine)
        for button in self.sample_buttons:
            button.setEnabled(self._loading is None)
        line = self.missing.line if self.missing else self._summary
        if self._loading is not None:
            line = _("Loading {sample} ...").format(sample=self._loading[1].title())
        form.dataSummary.setText(self._trouble or line)

    def look_again(self) -> None:
        """Let the next :meth:`show` look at the data, whatever is known of them."""
        self._known = ()

    def _key(self, engine: Engine | None) -> tuple[Any, ...]:
        """What the summary depends on."""
        parameters, node = self.parameters, self.parameters.input_node
        if parameters.input_file:
            return (parameters.get("source"), parameters.input_file, engine, *options_of(told_of_file(parameters)))
        settings = tuple(
            parameters.get(n) for n in ("source", "task", "views", "angle_range_deg", "spacing_mm", "beyond_limit")
        )
        if node is None:
            return (settings, "")
        image = node.GetImageData() if hasattr(node, "GetImageData") else None
        parent = node.GetParentTransformNode() if hasattr(node, "GetParentTransformNode") else None
        return (settings, node.GetID(), node.GetMTime(), image and image.GetMTime(), parent and parent.GetMTime())

    def _look(self, engine: Engine | None) -> None:
        source, file = self.parameters.get("source"), self.parameters.input_file
        self.shape = self.views = self.coils = None
        self.geometry = ""
        self._summary = ""
        if file:
            self._look_at_file(file, source, engine)
            return
        node = self.parameters.input_node
        if node is None:
            self.missing = texts.input_missing(source)
            return
        problem = inputs.problem_with(node, source) or self._problem_with_magnitudes(node, source)
        problem = problem or self._problem_with_slices(node)
        self.missing = texts.input_unusable(problem) if problem else None
        if not problem:
            self._summary = inputs.summary_of(node, source, self.parameters)
            self.shape = self._shape_of_node(node, source)

    def _problem_with_magnitudes(self, node: Any, source: str) -> str:
        if source != "volume" or self.parameters.modality != "MR":
            return ""
        low = float(voxels(node).min())
        return texts.not_magnitudes(low) if low < 0 else ""

    def _problem_with_slices(self, node: Any) -> str:
        """Why thin slices cannot be made of a volume, in the engine's words; '' for other tasks."""
        if not task_info(self.parameters.get("task")).of_slices:
            return ""
        try:
            self._thin_shape(node)
        except InputError as error:
            return str(error)
        return ""

    def _thin_shape(self, node: Any) -> Shape:
        """(slices, rows, columns) of the thin slices; raises InputError where there can be none."""
        chosen, task = self.parameters, self.parameters.get("task")
        asked = SliceScan(spacing_mm=chosen.get("spacing_mm"), beyond_limit=chosen.get("beyond_limit"))
        return thin_grid(grid_of(node), asked, task, _("The volume"))[0].shape

    def _shape_of_node(self, node: Any, source: str) -> Shape:
        """(slices, rows, columns) of the grid to reconstruct on, before it is made coarser."""
        if source == "sinogram":  # (slices, views, columns): the volume is as wide and high as the detector is long
            columns, self.views, slices = node.GetImageData().GetDimensions()
            return slices, columns, columns
        if source == "k-space":
            self.coils = node.GetImageData().GetNumberOfScalarComponents() // 2
        if task_info(self.parameters.get("task")).of_slices:
            return self._thin_shape(node)
        grid = grid_of(node)
        if self.parameters.modality == "MR":
            return grid.shape
        return axial_order(grid).apply_to_grid(grid).shape

    # Files are read by the engine, in its own process.

    def _look_at_file(self, file: str, source: str, engine: Engine | None) -> None:
        problem = inputs.problem_with_file(file, source)
        self.missing = texts.input_unusable(problem) if problem else None
        if problem:
            return
        self._summary = _("Reading what the file holds ...")
        if engine is not None:
            self._end_info()
            self._info_of, self._told = file, []
            told = options_of(told_of_file(self.parameters))
            command = [*engine.command, "-m", "DiffusionMBIRLib", "info", file, "--json", *told]
            self._info = Process(command, engine.variables())

    @property
    def busy(self) -> bool:
        return self._info is not None or self._loading is not None

    def poll(self) -> None:
        """Follow the engine that looks into the file, and a sample on its way; called by the panel's timer."""
        if self._loading is not None and self._loading[0].over:
            self._end_loading()
        if self._info is None:
            return
        self._told += self._info.poll()
        if self._info.running:
            return
        self._info = None
        if self._info_of == self.parameters.input_file:
            self._understand()
            self._changed()

    def _understand(self) -> None:
        try:
            found = json.loads(self._told[-1])
            kind, shape = str(found["kind"]), measured.shape_of(found)
            summary = measured.line_of(found, shape)
        except (IndexError, KeyError, TypeError, ValueError):
            said = next((line for line in reversed(self._told) if line.strip()), _("it cannot be read"))
            self.missing = texts.input_unusable(said.strip())
            return
        if KINDS.get(kind) != self.parameters.get("source"):
            self.missing = texts.input_unusable(texts.other_source(kind))
            return
        self.shape, self.views, self.coils, self._summary = shape, found.get("views"), found.get("coils"), summary
        self.geometry = str(found.get("geometry", "")) if kind == "k-space" else ""
        task = found.get("task")
        if task in TASKS and task != self.parameters.get("task"):  # a measurement knows what it is
            self.parameters.choose_task(task)

    def close(self) -> None:
        """End what is under way."""
        self._loading = None
        self._end_info()

    def _end_info(self) -> None:
        if self._info is not None:
            self._info.cancel()
            self._info = None


def source_choices(task: str) -> tuple[str, ...]:
    """The sources that a task can begin from."""
    fitting = {"CT": ("volume", "sinogram"), "MR": ("volume", "k-space")}
    return fitting.get(task_info(task).data, ("volume",))


def _choose(box: Any, node: Any) -> None:
    if box.currentNode() is not node:
        before = box.blockSignals(True)
        box.setCurrentNode(node)
        box.blockSignals(before)


def _title(source: str) -> str:
    return _("Choose a volume file") if source == "volume" else _("Choose a measurement file")


def _title_of_folder(source: str) -> str:
    return _("Choose the folder of a DICOM series") if source == "volume" else _("Choose a folder of projections")


def _kinds(source: str) -> str:
    title = {"volume": _("Volumes"), "sinogram": _("Measurements")}.get(source, _("k-space"))
    patterns = " ".join(f"*{suffix}" for suffix in inputs.suffixes_of(source))
    return f"{title} ({patterns});;" + _("All files") + " (*)"
