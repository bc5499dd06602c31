"""The panel's widgets and the settings: real MRML, Qt's own widgets; and what PythonQt would not forgive."""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ElementTree

import pytest

pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest_plugins = ("Testing.slicer.host.fixtures",)

import Testing.slicer.host  # noqa: E402, F401 - makes qt importable

# isort: split
import qt  # noqa: E402

from DiffusionMBIRGui.panel_fields import decimals_for, named_children  # noqa: E402
from DiffusionMBIRGui.parameters import Parameters  # noqa: E402
from DiffusionMBIRGui.texts import word  # noqa: E402
from DiffusionMBIRLib.config import ReconSettings  # noqa: E402
from DiffusionMBIRLib.methods import SUPERVISED_METHODS  # noqa: E402
from DiffusionMBIRLib.tasks import MR_TASK, THIN_SLICES  # noqa: E402
from Testing.engine.toys import landweber, tilted_beam  # noqa: E402
from Testing.slicer.host.played import GUI, UI, shown, text  # noqa: E402


def test_every_setting_has_its_widget_with_its_limits_and_help(panel):
    expected = set(Parameters.TABLE) - {"input_file"}
    assert set(panel.fields.editors) == expected
    for name, editor in panel.fields.editors.items():
        item = Parameters.TABLE[name]
        assert editor.widget.property("toolTip") == item.metadata["help"], name
        named = editor.widget if editor.widget.inherits("QCheckBox") else editor.label
        assert named is None or text(named).rstrip(":") == item.metadata["label"]
        assert named is not None or name == "preview_interval_s"  # stands behind its check box
        limits = item.metadata.get("span") or item.metadata["range"]
        if limits and not editor.widget.inherits("QLineEdit"):
            assert editor.widget.property("minimum") == pytest.approx(limits[0])
            assert editor.widget.property("maximum") == pytest.approx(limits[1])


def test_form_names_settings_as_the_table_does():
    labels = {
        widget.get("name"): widget.find("property[@name='text']/string").text
        for widget in ElementTree.parse(UI).iter("widget")
        if widget.get("class") == "QLabel" and widget.find("property[@name='text']/string") is not None
    }
    for name, item in Parameters.TABLE.items():
        if f"{name}Label" in labels and name not in ("source",):
            assert labels[f"{name}Label"] == item.metadata["label"] + ":"


def test_what_a_run_needs_is_in_sight_and_the_rest_under_advanced(panel):
    in_advanced = {
        panel.form.advancedForm.itemAt(row, qt.QFormLayout.FieldRole).widget().objectName()
        for row in range(panel.form.advancedForm.rowCount())
    }
    assert set(ReconSettings.__dataclass_fields__) <= in_advanced
    in_sight = {
        "source",
        "task",
        "scanner",
        "views",
        "angle_range_deg",
        "acceleration",
        "spacing_mm",
        "preset",
        "output_name",
    }
    in_sight |= {"sod_mm", "sdd_mm", "pitch"}  # of some scanners
    of_previews = {"preview_on", "preview_interval_s", "record_sequence"}
    assert set(panel.fields.editors) - in_advanced == in_sight | of_previews
    assert panel.form.advancedSection.property("collapsed")
    assert panel.form.resultsSection.property("collapsed")
    assert not shown(panel.form.resultsTable)


@pytest.mark.parametrize(
    ("scanner", "own", "range_deg"),
    [
        ("parallel-beam", set(), 180.0),
        ("fan-beam", {"sod_mm", "sdd_mm"}, 360.0),
        ("helical", {"sod_mm", "sdd_mm", "pitch"}, None),
        ("posed-beam", set(), 360.0),
    ],
)
def test_settings_of_a_scanner_stand_beside_its_views_where_it_has_them(panel, scanner, own, range_deg):
    form = panel.form
    form.scanner.setCurrentIndex(panel.fields.editors["scanner"].values.index(scanner))
    assert panel.parameters.get("scanner") == scanner
    assert {name for name in ("sod_mm", "sdd_mm", "pitch") if shown(getattr(form, name))} == own
    assert {name for name in ("sod_mm", "sdd_mm", "pitch") if shown(getattr(form, f"{name}Label"))} == own
    assert shown(form.angle_range_deg) == (range_deg is not None)  # a helix has its views in each turn
    if range_deg is not None:  # every line, as before
        assert panel.parameters.get("angle_range_deg") == range_deg
    assert shown(form.axis_error_mm) == (scanner != "posed-beam")  # whose detector stands where each view says
    panel.parameters.set("source", "sinogram")
    assert not any(shown(getattr(form, name)) for name in ("scanner", "sod_mm", "sdd_mm", "pitch"))


def test_a_range_that_the_user_chose_stays_with_another_scanner(panel):
    panel.parameters.set("angle_range_deg", 120.0)
    panel.form.scanner.setCurrentIndex(panel.fields.editors["scanner"].values.index("fan-beam"))
    assert panel.parameters.get("angle_range_deg") == 120.0


def inside(widget, root) -> tuple[int, int]:
    """Top and bottom of a widget within another one."""
    top = widget.mapTo(root, qt.QPoint(0, 0)).y()
    return top, top + widget.height()


class Dock:
    """Panel in a scroll area, as Slicer's module panel holds it: no smaller than it asks for, also for its width."""

    def __init__(self, root, application, height: int) -> None:
        self.root, self.application, self.area = root, application, qt.QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setFrameShape(qt.QFrame.NoFrame)
        contents = qt.QWidget()
        layout = qt.QVBoxLayout(contents)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(root, 1)
        root.setSizePolicy(qt.QSizePolicy.Minimum, root.sizePolicy().verticalPolicy())
        self.area.setWidget(contents)
        self.area.resize(400, height)
        self.area.show()
        self.settle()

    def __enter__(self) -> Dock:
        return self

    def __exit__(self, *_error) -> None:
        self.root.setParent(None)

    def settle(self) -> None:
        """Slicer's dock is as wide as the panel asks for."""
        for _turn in range(3):
            self.application.processEvents()
        self.area.resize(self.area.widget().minimumSizeHint().width(), self.area.height())
        self.application.processEvents()

    def see(self, *widgets) -> None:
        """All of them whole, without scrolling the dock."""
        assert self.area.verticalScrollBar().maximum() == 0
        assert self.area.horizontalScrollBar().maximum() == 0
        for widget in widgets:
            top, bottom = inside(widget, self.area.viewport())
            assert top >= 0, widget.objectName()
            assert bottom <= self.area.height(), widget.objectName()
            assert widget.visibleRegion().boundingRect().height() == widget.height(), widget.objectName()


@pytest.mark.parametrize("height", [371, 540, 900])
def test_run_progress_and_the_notice_stay_in_sight_whatever_is_unfolded(ready, runner, application, height):
    """371 pixels are what Slicer leaves a panel in a window of 1280 x 720 with the Data Probe unfolded."""
    form = ready.form
    ready.enter(form.root)
    with Dock(form.root, application, height) as dock:
        dock.see(form.estimate, form.runButton)
        for section in ("advancedSection", "resultsSection", "logSection", "setupSection"):
            getattr(form, section).setProperty("collapsed", False)
            dock.settle()
        form.runButton.click()
        ready.run.say("A line of a length that does not fit into one row, so that it is wrapped and takes two of them.")
        application.processEvents()
        bar = form.scrollArea.verticalScrollBar()
        for position in (0, bar.maximum()):
            bar.setValue(position)
            dock.settle()
            names = ("researchOnly", "runMessage", "runButton", "pauseButton", "progressBar", "progressText")
            dock.see(*(getattr(form, name) for name in names))


def test_the_panel_takes_no_more_of_the_window_than_its_rows_need(ready, application):
    form = ready.form
    ready.enter(form.root)
    with Dock(form.root, application, 540) as dock:
        for folded in (True, False):
            form.advancedSection.setProperty("collapsed", folded)
            dock.settle()
            bar = form.scrollArea.verticalScrollBar().sizeHint().width()
            assert form.root.minimumSizeHint().width() == form.scrollContent.minimumSizeHint().width() + bar
        dock.see(form.runButton)


@pytest.mark.parametrize(
    "name",
    ["probeLine", "dataSummary", "resultsWhy", "runMessage", "estimate", "progressText", "engineStatus", "setupLine"],
)
def test_a_long_line_wraps_and_widens_nothing(ready, application, name):
    label = getattr(ready.form, name)
    ready.form.resultsSection.setProperty("collapsed", False)
    with Dock(ready.form.root, application, 540) as dock:
        label.setVisible(True)
        widths = []
        for line in ("", "A line of many words that no panel is wide enough for. " * 4):
            label.setText(line)
            dock.settle()
            widths.append(ready.form.scrollContent.minimumSizeHint().width())
            widths.append(ready.form.runFrame.minimumSizeHint().width())
        assert widths[:2] == widths[2:]


def test_the_ten_second_panel_needs_no_scrolling(ready, application):
    """Task, scan, preset and Run of a volume that is chosen, in what a window of 1280 x 720 leaves."""
    form = ready.form
    ready.enter(form.root)
    with Dock(form.root, application, 371) as dock:
        rows = (form.sampleRow, form.inputNode, form.dataSummary, form.task, form.preset, form.views, form.runButton)
        dock.see(*rows)


def test_every_input_says_what_it_is_for(ready):
    kinds = ("QAbstractButton", "QComboBox", "QAbstractSpinBox", "QLineEdit", "ctkSliderWidget", "QPlainTextEdit",
             "QListWidget", "QTableWidget", "qMRMLNodeComboBox")  # fmt: skip
    silent = [
        name
        for name, child in named_children(ready.form.root)
        if not name.startswith("qt_") and any(map(child.inherits, kinds)) and not child.property("toolTip")
    ]
    assert silent == []


@pytest.mark.parametrize("name", sorted(set(Parameters.TABLE) - {"input_file", "task", "preset", "source", "prior"}))
def test_a_widget_writes_its_setting_and_follows_it(ready, name):
    item, editor = Parameters.TABLE[name], ready.fields.editors[name]
    widget, choices = editor.widget, item.metadata["choices"]
    limits = item.metadata.get("span") or item.metadata["range"]
    if widget.inherits("QCheckBox"):
        widget.setChecked(not item.default)
        wanted = not item.default
    elif widget.inherits("QComboBox"):
        wanted = editor.values[-1]
        widget.setCurrentIndex(len(editor.values) - 1)
    elif widget.inherits("QLineEdit"):
        wanted = 2**62 if str(item.type) == "int" else "text"
        widget.setText(str(wanted))
        widget.editingFinished.emit()
    else:
        wanted = limits[0] if item.default != limits[0] else limits[1]
        widget.setValue(wanted if widget.inherits("ctkSliderWidget") else type(item.default)(wanted))
    assert ready.parameters.get(name) == pytest.approx(wanted)
    ready.parameters.set(name, item.default)
    assert editor._read() == pytest.approx(item.default)
    assert not choices or item.default in editor.values


@pytest.mark.parametrize("value", [2e-4, 5e-5, 1e-7, 0.0025, 0.16, 10.0, 0.0])
def test_small_numbers_are_shown_in_full_and_not_rounded_away(ready, value):
    ready.parameters.set("lam", value)
    assert ready.form.lam.property("value") == pytest.approx(value, rel=1e-9)
    assert ready.parameters.get("lam") == value
    assert decimals_for(value) <= 10


def test_a_slider_widens_for_a_value_beyond_what_is_usual(ready):
    widget, most = ready.form.views, ready.form.views.property("maximum")
    ready.parameters.set("views", 1500)
    assert most < 1500
    assert widget.property("value") == 1500
    assert ready.parameters.get("views") == 1500


def test_a_setting_that_is_refused_is_told_and_put_back(ready):
    ready.form.seed.setText("12x")
    ready.form.seed.editingFinished.emit()
    assert text(ready.form.runMessage).startswith("setting seed")
    assert text(ready.form.seed) == "0"
    ready.form.seed.setText("12")
    ready.form.seed.editingFinished.emit()
    assert (text(ready.form.runMessage), ready.parameters.get("seed")) == ("", 12)


def test_rows_follow_task_and_method(ready):
    form, parameters = ready.form, ready.parameters
    assert shown(form.views)
    assert shown(form.steps)
    parameters.set("method", "sirt")
    assert not shown(form.steps)
    assert not shown(form.prior)
    assert shown(ready.fields.editors["sirt_iterations"].widget)
    parameters.set("source", "sinogram")
    assert not shown(form.views)
    assert shown(form.angle_range_deg)
    assert shown(form.referenceNode)


def test_supervised_baselines_are_not_offered(ready):
    offered = set(ready.fields.editors["method"].values)
    assert {"dds", "admm-tv", "fbp"} <= offered
    assert not offered & set(SUPERVISED_METHODS)


def test_mri_asks_for_acceleration_instead_of_views(ready):
    form = ready.form
    form.task.setCurrentIndex(ready.fields.editors["task"].values.index(MR_TASK))
    assert shown(form.acceleration)
    assert shown(form.acs)
    assert not shown(form.views)
    assert "k-space" in ready.fields.editors["source"].values
    assert "fbp" not in ready.fields.editors["method"].values
    form.task.setCurrentIndex(0)
    assert not shown(form.acceleration)
    assert "k-space" not in ready.fields.editors["source"].values


def test_thin_slices_ask_for_the_volume_and_the_new_spacing(ready):
    """Of the settings of a scan; what there is to say of a spacing that cannot be is the engine's line."""
    form = ready.form
    ready.parameters.choose_task(THIN_SLICES)
    assert shown(form.spacing_mm)
    assert not shown(form.source)
    assert not any(shown(widget) for widget in (form.views, form.angle_range_deg, form.acceleration, form.distance_mm))
    assert ready.fields.editors["source"].values == ("volume",)
    assert ready.fields.editors["method"].values == ("planes", "admm-tv", "spline-projected", "spline")
    spacing = ready.parameters.input_node.GetSpacing()[2]
    form.spacing_mm.setValue(spacing * 2)
    assert "would be no thinner" in text(form.dataSummary)
    form.spacing_mm.setValue(spacing / 10)
    assert "CT carries 4" in text(form.dataSummary)
    form.spacing_mm.setValue(spacing / 2)
    slices, rows, columns = ready.parameters.input_node.GetImageData().GetDimensions()[::-1]
    assert ready.outlook.grid == (2 * slices, rows, columns)
    assert ready.parameters.request_scan() == {
        "spacing_mm": spacing / 2, "thickness_mm": 0.0, "profile": "box", "beyond_limit": False, "seed": 0,
    }  # fmt: skip


def test_task_brings_preset_and_scan_and_a_change_is_marked(ready):
    form = ready.form
    form.task.setCurrentIndex(1)
    assert (ready.parameters.get("task"), ready.parameters.get("views")) == ("limited-angle-ct", 90)
    assert form.views.property("value") == 90
    unchanged = form.preset.property("currentText")
    ready.parameters.set("lam", 0.5)
    assert form.preset.property("currentText") == unchanged.partition(",")[0] + " (changed)"
    form.preset.activated.emit(0)
    assert form.preset.property("currentText") == unchanged
    assert ready.parameters.settings() == ReconSettings.preset("limited-angle")


def test_tab_order_goes_down_the_panel():
    names = [stop.text for stop in ElementTree.parse(UI).find("tabstops")]
    widgets = {widget.get("name") for widget in ElementTree.parse(UI).iter("widget")}
    assert set(names) <= widgets
    order = [names.index(n) for n in ("source", "task", "views", "preset", "method", "device", "log", "runButton")]
    assert order == sorted(order)


READ_BY_PROPERTY = {
    "text", "value", "checked", "isChecked", "currentIndex", "currentText", "currentData", "toolTip", "enabled",
    "minimum", "maximum", "collapsed", "visible", "objectName", "width", "height", "plainText",
}  # fmt: skip


@pytest.mark.parametrize("path", sorted(GUI.glob("panel*.py")), ids=lambda path: path.name)
def test_no_getter_is_called_that_is_an_attribute_in_pythonqt(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        called = ast.unparse(node.func)
        if called in (
            "item.text",
            "content.width",
            "bar.property('sizeHint').width",
        ):  # of a table's cell and of sizes, which are no QObjects
            continue
        assert node.args or node.func.attr not in READ_BY_PROPERTY, f"{path.name}:{node.lineno}: {called}()"


def test_research_use_only_is_in_sight(panel):
    assert text(panel.form.researchOnly) == "Research use only, not for diagnosis."
    assert shown(panel.form.researchOnly)


@pytest.mark.parametrize("path", sorted(GUI.glob("*.py")), ids=lambda path: path.name)
def test_no_local_name_hides_the_translation(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            names = [a.arg for a in (*node.args.args, node.args.vararg, node.args.kwarg) if a is not None]
            assert "_" not in names, f"{path.name}:{node.lineno}"


def test_a_method_that_the_panel_has_never_heard_of_is_offered_with_its_own_settings(ready):
    """From the methods' table alone."""
    with landweber() as way:
        ready.refresh()
        editor = ready.fields.editors["method"]
        assert way.name in editor.values
        titles = [editor.widget.itemText(index) for index in range(len(editor.values))]
        assert titles[editor.values.index(way.name)] == way.label
        ready.parameters.set("method", way.name)
        for name in ("sirt_iterations", "projector", "device"):
            assert shown(ready.fields.editors[name].widget), name
        for name in ("steps", "prior", "tv_lam", "fbp_filter", "virtual_coils", "cg_lam"):
            assert not shown(ready.fields.editors[name].widget), name
    ready.parameters.set("method", "sirt")
    ready.refresh()
    assert way.name not in editor.values


def test_a_scanner_that_the_panel_has_never_heard_of_is_offered_by_its_label(ready):
    with tilted_beam() as kind:
        ready.parameters.set("scanner", kind.KIND)
        assert ready.parameters.request_scan()["scanner"] == kind.KIND
        assert word(kind.KIND) == "Tilted beam"
