"""Stand-ins for the widgets of CTK and Slicer that the panel's form names, as far as the panel uses them."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Property, Qt, Signal
from PySide6.QtWidgets import QComboBox, QDoubleSpinBox, QHBoxLayout, QSlider, QVBoxLayout, QWidget
from PySide6.QtWidgets import QToolButton as _Button

TITLE_HEIGHT = 24


class qMRMLWidget(QWidget):
    def setMRMLScene(self, scene: Any) -> None:
        self.scene = scene


class ctkCollapsibleButton(QWidget):
    """A title that folds the content away, by height: what is inside keeps its own visibility."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._collapsed = False
        self._button = _Button(self)
        self._button.setAutoRaise(True)
        self._button.setToolButtonStyle(Qt.ToolButtonTextBesideIcon)
        self._button.setArrowType(Qt.DownArrow)
        self._button.setObjectName("qt_title")
        self._button.clicked.connect(lambda: self._set_collapsed(not self._collapsed))
        self._button.move(0, 0)
        self.setContentsMargins(0, TITLE_HEIGHT, 0, 0)

    def _set_collapsed(self, value: bool) -> None:
        if value != self._collapsed:
            self._collapsed = value
            self._button.setArrowType(Qt.RightArrow if value else Qt.DownArrow)
            self.setMaximumHeight(TITLE_HEIGHT if value else 16777215)
            self.setMinimumHeight(TITLE_HEIGHT)
            self.contentsCollapsed.emit(value)

    collapsed = Property(bool, lambda self: self._collapsed, _set_collapsed)
    collapsedHeight = Property(int, lambda self: TITLE_HEIGHT, lambda self, value: None)
    flat = Property(bool, lambda self: False, lambda self, value: None)
    text = Property(str, lambda self: self._button.text(), lambda self, value: self._title(value))

    def _title(self, value: str) -> None:
        self._button.setText(value)
        self._button.adjustSize()


class ctkSliderWidget(QWidget):
    """A slider and a box that show the same number."""

    valueChanged = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._slider, self._box = QSlider(Qt.Horizontal), QDoubleSpinBox()
        self._slider.setObjectName("qt_slider")
        self._box.setObjectName("qt_box")
        self._box.setDecimals(2)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._slider)
        row.addWidget(self._box)
        self._slider.valueChanged.connect(self._slid)
        self._box.valueChanged.connect(self._typed)

    def _slid(self, steps: int) -> None:
        self._box.setValue(steps * self._box.singleStep())

    def _typed(self, value: float) -> None:
        self._slider.setValue(round(value / self._box.singleStep()))
        self.valueChanged.emit(value)

    def setMinimum(self, value: float) -> None:
        self._box.setMinimum(value)
        self._slider.setMinimum(round(value / self._box.singleStep()))

    def setMaximum(self, value: float) -> None:
        self._box.setMaximum(value)
        self._slider.setMaximum(round(value / self._box.singleStep()))

    def setSuffix(self, text: str) -> None:
        self._box.setSuffix(text)

    def setValue(self, value: float) -> None:
        self._box.setValue(value)

    minimum = Property(float, lambda self: self._box.minimum(), setMinimum)
    maximum = Property(float, lambda self: self._box.maximum(), setMaximum)
    value = Property(float, lambda self: self._box.value(), setValue)
    suffix = Property(str, lambda self: self._box.suffix(), setSuffix)
    decimals = Property(int, lambda self: self._box.decimals(), lambda self, n: self._box.setDecimals(n))
    singleStep = Property(float, lambda self: self._box.singleStep(), lambda self, step: self._box.setSingleStep(step))
    pageStep = Property(float, lambda self: float(self._slider.pageStep()), lambda self, n: None)


class qMRMLNodeComboBox(QWidget):
    """Offers the scene's nodes of some classes; follows what comes and goes."""

    currentNodeIDChanged = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._types: list[str] = []
        self._scene: Any = None
        self._tags: list[int] = []
        self._nodes: list[Any] = [None]
        self._box = QComboBox(self)
        self._box.setObjectName("qt_nodes")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._box)
        self._box.currentIndexChanged.connect(self._chosen)
        self._fill(None)

    def setMRMLScene(self, scene: Any) -> None:
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene = scene
        events = ("NodeAddedEvent", "NodeRemovedEvent", "EndCloseEvent")
        self._tags = [scene.AddObserver(getattr(scene, event), self._changed) for event in events] if scene else []
        self._changed()

    def currentNode(self) -> Any:
        index = self._box.currentIndex()
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def setCurrentNode(self, node: Any) -> None:
        self._box.setCurrentIndex(self._nodes.index(node) if node in self._nodes else 0)

    def _changed(self, *_: Any) -> None:
        before = self.currentNode()
        self._fill(before)
        if self.currentNode() is not before:
            self._chosen()

    def _fill(self, chosen: Any) -> None:
        found = []
        for name in self._types if self._scene is not None else []:
            for index in range(self._scene.GetNumberOfNodesByClass(name)):
                found.append(self._scene.GetNthNodeByClass(index, name))
        self._nodes = [None, *found]
        quiet = self._box.blockSignals(True)
        self._box.clear()
        self._box.addItems(["None", *(node.GetName() for node in found)])
        self._box.setCurrentIndex(self._nodes.index(chosen) if chosen in self._nodes else 0)
        self._box.blockSignals(quiet)

    def _chosen(self, *_: Any) -> None:
        node = self.currentNode()
        self.currentNodeIDChanged.emit(node.GetID() if node is not None else "")

    def _set_types(self, types: list[str]) -> None:
        self._types = list(types)

    nodeTypes = Property("QStringList", lambda self: self._types, _set_types)
    noneEnabled = Property(bool, lambda self: True, lambda self, value: None)
    addEnabled = Property(bool, lambda self: False, lambda self, value: None)
    removeEnabled = Property(bool, lambda self: False, lambda self, value: None)
    renameEnabled = Property(bool, lambda self: False, lambda self, value: None)
    showChildNodeTypes = Property(bool, lambda self: True, lambda self, value: None)


ALL = (qMRMLWidget, qMRMLNodeComboBox, ctkCollapsibleButton, ctkSliderWidget)


def load(path: str) -> QWidget:
    """The widget of a ``.ui`` file; raises RuntimeError with the loader's reason."""
    from PySide6.QtUiTools import QUiLoader

    loader = QUiLoader()
    for kind in ALL:
        loader.registerCustomWidget(kind)
    root = loader.load(path)
    if root is None:
        raise RuntimeError(loader.errorString())
    return root
