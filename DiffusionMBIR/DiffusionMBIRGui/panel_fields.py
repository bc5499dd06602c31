"""Widgets of settings: each takes its limits, choices and help from the table, shows a value and gives it back.

What reads a widget goes through ``property``: PythonQt has properties as attributes and PySide as methods, and this
works in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, fields
from typing import Any

import qt

from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.geometry import geometry_kind
from DiffusionMBIRLib.methods import settings_used
from DiffusionMBIRLib.simulation.settings import OF_SCANNERS, scan_names, scanner_settings, whole_name
from DiffusionMBIRLib.tasks import CT_TASKS, MR_TASK, SLICES, THIN_SLICES, task_info

from . import texts
from .parameters import Parameters
from .texts import _
from .told import ToldFile

FITTED_AT_ZERO = ("sod_mm", "sdd_mm")
MOST_OF_A_SPIN_BOX = 2**31 - 1
_CT_SCAN = {name for task in CT_TASKS for name in scan_names(task)}
_MRI_SCAN = scan_names(MR_TASK)
_SLICE_SCAN = scan_names(THIN_SLICES)
_OF_TRAJECTORY = {  # settings that only one way through k-space has
    "acceleration": "cartesian", "acs": "cartesian", "mask": "cartesian", "spokes": "radial", "arms": "spiral",
}  # fmt: skip
_OF_FILE = {item.name for item in fields(ToldFile)}
_OF_RECONSTRUCTION = {item.name for item in fields(ReconSettings)}


def is_shown(name: str, parameters: Parameters) -> bool:
    """Whether a setting means something for the source, task and method that are chosen."""
    data, source = task_info(parameters.get("task")).data, parameters.get("source")
    mri = data == "MR"
    if name == "source":
        return data != SLICES  # a volume, always
    if name in _OF_FILE:
        return mri and source == "k-space" and bool(parameters.input_file)
    if name in _SLICE_SCAN:
        return data == SLICES and name != "distance_mm"  # of simulated slices
    if name in _MRI_SCAN:
        fitting = _OF_TRAJECTORY.get(name, parameters.get("trajectory")) == parameters.get("trajectory")
        return mri and source == "volume" and fitting
    if name in _CT_SCAN and data == SLICES:
        return False
    if name in _CT_SCAN:
        # A sinogram node has its views as an axis, but does not know the range that they cover.
        from_node = source == "sinogram" and not parameters.input_file
        asked = source == "volume" and _scanner_has(name, parameters.get("scanner"))
        return not mri and (asked or (name == "angle_range_deg" and from_node))
    return name not in _OF_RECONSTRUCTION or name in settings_used(parameters.get("method"), parameters.get("task"))


def _scanner_has(name: str, scanner: str) -> bool:
    """Whether a setting of a CT scan means something for a kind of scanner."""
    kind = geometry_kind(whole_name(scanner))
    if name in OF_SCANNERS:
        return name in scanner_settings(scanner)
    if name == "angle_range_deg":
        return not kind.WHOLE_TURNS
    return name != "axis_error_mm" or hasattr(kind, "offset_mm")


def named_children(widget: Any) -> Iterator[tuple[str, Any]]:
    """Every object below a widget that has a name, with it."""
    for child in widget.children():
        name = child.property("objectName")
        if name:
            yield str(name), child
        yield from named_children(child)


class Form:
    """The widgets of a loaded ``.ui`` file as attributes."""

    def __init__(self, root: Any) -> None:
        self.root = root
        for name, child in named_children(root):
            if not name.startswith("qt_") and not hasattr(self, name):
                setattr(self, name, child)


class Editor:
    """One setting's widget.  ``changed(name, value)`` is called when the user changes it, not when it is shown."""

    def __init__(self, item: Field[Any], widget: Any, label: Any, changed: Callable[[str, Any], None]) -> None:
        self.item, self.widget, self.label = item, widget, label
        self.name, self.kind = item.name, str(item.type)
        self._changed = changed
        self._quietly(self._configure)
        self._connect()

    def show(self, value: Any) -> None:
        """Show a value without telling of a change."""
        if self._read() != value:
            self._quietly(lambda: self._write(value))

    def show_row(self, visible: bool) -> None:
        self.widget.setVisible(visible)
        if self.label is not None:
            self.label.setVisible(visible)

    def _quietly(self, act: Callable[[], None]) -> None:
        before = self.widget.blockSignals(True)
        act()
        self.widget.blockSignals(before)

    def _emit(self, *_state: Any) -> None:
        value = self._read()
        if value is not None:
            self._changed(self.name, value)

    def _configure(self) -> None:
        text = texts.setting_text(self.item.metadata["help"])
        self.widget.setToolTip(text)
        if self.label is not None:
            self.label.setToolTip(text)
            self.label.setText(texts.setting_text(self.item.metadata["label"]) + ":")

    def _connect(self) -> None:
        raise NotImplementedError

    def _read(self) -> Any:
        raise NotImplementedError

    def _write(self, value: Any) -> None:
        raise NotImplementedError


class CheckEditor(Editor):
    def _configure(self) -> None:
        super()._configure()
        self.widget.setText(texts.setting_text(self.item.metadata["label"]))
        if self.label is not None:
            self.label.setText("")

    def _connect(self) -> None:
        self.widget.toggled.connect(self._emit)

    def _read(self) -> bool:
        return bool(self.widget.property("checked"))

    def _write(self, value: Any) -> None:
        self.widget.setChecked(bool(value))


class ChoiceEditor(Editor):
    """A combo box whose entries carry the value beside the words for it."""

    values: tuple[str, ...] = ()

    def _configure(self) -> None:
        super()._configure()
        self.offer(self.item.metadata["choices"])

    def offer(self, values: Sequence[str], titles: Sequence[str] | None = None) -> None:
        """The values to choose from.  The one that is shown stays shown."""
        titles = tuple(titles or map(texts.word, values))
        if (tuple(values), titles) == (self.values, getattr(self, "_titles", ())):
            return
        shown = self._read() if self.values else None
        self.values, self._titles = tuple(values), titles
        self._quietly(self._fill)
        if shown is not None:
            self.show(shown)

    def current(self) -> str | None:
        """The value that is shown, None for none of those offered."""
        return self._read()

    def _fill(self) -> None:
        self.widget.clear()
        for value, title in zip(self.values, self._titles, strict=True):
            self.widget.addItem(title, value)

    def _connect(self) -> None:
        self.widget.currentIndexChanged.connect(self._emit)

    def _read(self) -> str | None:
        index = int(self.widget.property("currentIndex"))
        return self.values[index] if 0 <= index < len(self.values) else None

    def _write(self, value: Any) -> None:
        # A value that is not offered (a device or prior of another machine) is not replaced by another one silently.
        self.widget.setCurrentIndex(self.values.index(value) if value in self.values else -1)


class NumberEditor(Editor):
    """A spin box or a slider with a box."""

    def _configure(self) -> None:
        super()._configure()
        low, high = self.item.metadata["range"]
        span = self.item.metadata.get("span") or (low, high)
        self.is_slider = self.widget.inherits("ctkSliderWidget")
        if self.kind == "float" and not self.is_slider:
            self._decimals = decimals_for(self.item.default, low)  # fewer would round the limits, too
            self.widget.setDecimals(self._decimals)
            adaptive = getattr(qt.QAbstractSpinBox, "AdaptiveDecimalStepType", None)
            if adaptive is not None:
                self.widget.setStepType(adaptive)
        number = float if self.kind == "float" or self.is_slider else int
        # As properties: PythonQt calls only those, slots and invokable methods of CTK's widgets.
        self.widget.setProperty("minimum", number(span[0]))
        self.widget.setProperty("maximum", number(span[1]))
        unit = texts.setting_text(self.item.metadata["unit"])
        if unit:
            self.widget.setProperty("suffix", f" {unit}")
        if self.name in FITTED_AT_ZERO:
            self.widget.setProperty("specialValueText", _("fitted"))
        if not self.is_slider:
            self.widget.setKeyboardTracking(False)
        self._write(self.item.default)

    def _connect(self) -> None:
        self.widget.valueChanged.connect(self._emit)

    def _read(self) -> int | float:
        value = self.widget.property("value")
        return round(value) if self.kind == "int" else float(value)

    def _write(self, value: Any) -> None:
        if self.kind == "float" and not self.is_slider:
            self.widget.setDecimals(max(self._decimals, decimals_for(value)))
        if self.is_slider:  # spans what is usual; a value beyond it widens it
            self.widget.setProperty("minimum", min(float(self.widget.property("minimum")), float(value)))
            self.widget.setProperty("maximum", max(float(self.widget.property("maximum")), float(value)))
        self.widget.setValue(float(value) if self.kind == "float" or self.is_slider else int(value))


class TextEditor(Editor):
    """A line of text, or a whole number that is too large for a spin box."""

    def _configure(self) -> None:
        super()._configure()
        self._write(self.item.default)

    def _connect(self) -> None:
        self.widget.editingFinished.connect(self._emit)

    def _read(self) -> Any:
        text = str(self.widget.property("text")).strip()
        if self.kind != "int":
            return text
        try:
            return int(text)
        except ValueError:
            return text  # refused by the table, with a line that names the setting

    def _write(self, value: Any) -> None:
        self.widget.setText(str(value))


def decimals_for(*values: float) -> int:
    """How many decimals show numbers with three digits of their own, one at least."""
    digits = 1
    for value in values:
        if value:
            text = f"{abs(value):.10f}".rstrip("0")
            first = -math.floor(math.log10(abs(value)))
            digits = max(digits, min(len(text.split(".")[1]), first + 4))
    return min(digits, 10)


def widget_for(item: Field[Any]) -> Any:
    """A fresh widget for a setting, by its type, range and choices."""
    if str(item.type) == "bool":
        return qt.QCheckBox()
    if item.metadata["choices"]:
        return qt.QComboBox()
    limits = item.metadata["range"]
    if limits and str(item.type) == "float":
        return qt.QDoubleSpinBox()
    return qt.QSpinBox() if limits and limits[1] <= MOST_OF_A_SPIN_BOX else qt.QLineEdit()


def editor_for(item: Field[Any], widget: Any, label: Any, changed: Callable[[str, Any], None]) -> Editor:
    """The editor that fits a widget."""
    if widget.inherits("QCheckBox"):
        return CheckEditor(item, widget, label, changed)
    if widget.inherits("QComboBox"):
        return ChoiceEditor(item, widget, label, changed)
    if widget.inherits("QLineEdit"):
        return TextEditor(item, widget, label, changed)
    return NumberEditor(item, widget, label, changed)


class SettingFields:
    """All settings of the table that have a widget: those of the ``.ui`` file, and the rest made under Advanced."""

    def __init__(self, form: Form, parameters: Parameters, report: Callable[[str], None]) -> None:
        self.parameters = parameters
        self._report = report
        self.editors: dict[str, Editor] = {}
        for name, item in Parameters.TABLE.items():
            if name == "input_file":  # has a row of its own, with the node
                continue
            widget, label = getattr(form, name, None), getattr(form, f"{name}Label", None)
            if widget is None:
                widget, label = self._advanced(form, item)
            self.editors[name] = editor_for(item, widget, label, self._changed)

    @staticmethod
    def _advanced(form: Form, item: Field[Any]) -> tuple[Any, Any]:
        widget = widget_for(item)
        widget.setObjectName(item.name)
        label = qt.QLabel()
        label.setObjectName(f"{item.name}Label")
        form.advancedForm.addRow(label, widget)
        setattr(form, item.name, widget)
        return widget, label

    def show(self) -> None:
        """All values as they stand in the parameters, and the rows that mean something for them."""
        for name, editor in self.editors.items():
            editor.show(self.parameters.get(name))
            editor.show_row(is_shown(name, self.parameters))

    def set_enabled(self, enabled: bool, always: Sequence[str] = ()) -> None:
        """Let settings be changed or not; those of ``always`` can be at any time."""
        for name, editor in self.editors.items():
            editor.widget.setEnabled(enabled or name in always)

    def _changed(self, name: str, value: Any) -> None:
        try:
            if name == "task":
                self.parameters.choose_task(value)
            elif name == "preset":
                self.parameters.apply_preset(value)
            elif name == "method":
                self.parameters.choose_method(value)
            elif name == "scanner":
                self.parameters.choose_scanner(value)
            else:
                self.parameters.set(name, value)
        except ValueError as error:  # InputError: one line that names the setting
            self._report(str(error))
            self.editors[name].show(self.parameters.get(name))
            return
        self._report("")
