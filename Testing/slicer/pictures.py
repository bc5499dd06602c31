"""Pictures of the panel, of a real run: ``python -m Testing.slicer.pictures FOLDER``.

They show the panel as Qt draws it and slice views as Slicer's own logic computes them (package slicer-core), side by
side; the rest of Slicer's window is not there.  For where Slicer's application is not at hand, whose own pictures the
documents have.  Takes some minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import Testing.slicer.host  # noqa: F401 - makes qt importable

# isort: split
import qt

from DiffusionMBIRGui.panel import Panel
from DiffusionMBIRGui.runner import Runner
from Testing.slicer.helpers import Desk
from Testing.slicer.host import widgets
from Testing.slicer.host.played import UI, PlayedDesktop

SIZE = (1280, 720)
PANEL = 437  # columns, as Slicer gives it
GAP = 4
Views = Sequence[tuple[str, str, "Box"]]  # (layout name, title, where it stands)
Box = tuple[int, int, int, int]  # left, top, width, height beside the panel
WIDE, HIGH = SIZE[0] - PANEL - GAP, SIZE[1]
_TALL, _HALF = 460, (WIDE - GAP) // 2
ORDINARY: Views = (
    ("Red", "Axial", (0, 0, WIDE, _TALL)),
    ("Green", "Coronal", (0, _TALL + GAP, _HALF, HIGH - _TALL - GAP)),
    ("Yellow", "Sagittal", (_HALF + GAP, _TALL + GAP, _HALF, HIGH - _TALL - GAP)),
)
COLOURS = {"Axial": "#F34A33", "Coronal": "#6EB04B", "Sagittal": "#EDD54C"}  # as Slicer marks these planes


class SceneDesktop(PlayedDesktop):
    """Answers with the views of a desk."""

    def __init__(self, folder: Path, desk: Desk) -> None:
        super().__init__(folder)
        self.desk, self.scene = desk, desk.scene

    def application_logic(self) -> Any:
        return self.desk.application

    def slice_logics(self) -> list[Any]:
        return self.desk.slice_logics()


class Studio:
    """Panel, scene and views, and what is made of them."""

    def __init__(self, folder: Path, out: Path, engine: Sequence[str]) -> None:
        self.application = qt.QApplication.instance() or qt.QApplication([])
        self.application.setStyle("Fusion")
        self.out, self.desk = out, Desk(folder / "cache")
        self.root = widgets.load(str(UI))
        desktop = SceneDesktop(folder, self.desk)
        desktop.python = tuple(engine)
        self.panel = Panel(self.root, scene=self.desk.scene, desktop=desktop, runner=Runner(self.desk.scene))
        self.root.resize(PANEL, SIZE[1])
        self.root.show()
        self.panel.enter(self.root)
        self.until(lambda: self.panel.setup.report is not None)

    def until(self, done: Callable[[], bool], seconds: float = 3600.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, "it did not happen in time"
            self.application.processEvents()
            time.sleep(0.01)

    def size_views(self, views: Views) -> None:
        """Give the views their size in the picture, and fit them to what they show."""
        for name, _title, (_left, _top, width, height) in views:
            logic = self.desk.view(name)
            logic.GetSliceNode().SetDimensions(width, height, 1)
            logic.FitSliceToBackground()

    def take(self, name: str, views: Views) -> None:
        """Save panel and views as one picture."""
        for _turn in range(20):
            self.application.processEvents()
        picture = qt.QImage(*SIZE, qt.QImage.Format_RGB32)
        picture.fill(qt.QColor("#202020"))
        painter = qt.QPainter(picture)
        painter.drawPixmap(0, 0, self.root.grab())
        for view, title, (left, top, width, height) in views:
            pixels = self.desk.colours(view)[::-1].copy()
            image = qt.QImage(pixels.data, width, height, 3 * width, qt.QImage.Format_RGB888)
            left += PANEL + GAP
            painter.drawImage(left, top, image)
            painter.fillRect(left, top, width, 3, qt.QColor(COLOURS[title.split()[-1]]))
            painter.setPen(qt.QColor("white"))
            painter.drawText(left + 8, top + 20, title)
        painter.end()
        path = self.out / f"slicer-{name}.png"
        assert picture.save(str(path))
        print(path, flush=True)

    def run(self, **settings: Any) -> None:
        """Begin a run of the chest CT."""
        panel = self.panel
        panel.parameters.update(settings)
        self.until(lambda: panel.missing() is None and not panel.pace.busy)
        panel.form.runButton.click()
        assert panel.run.runner.running, panel.form.runMessage.text()

    def close(self) -> None:
        self.panel.close()
        self.desk.close()


def make(studio: Studio) -> None:
    panel, form = studio.panel, studio.panel.form
    panel.data.sample_buttons[0].click()
    studio.until(lambda: panel.parameters.input_node is not None)
    studio.size_views(ORDINARY)
    studio.take("ready", ORDINARY)
    began = time.monotonic()
    studio.run()
    seen: list[float] = []
    panel.run.on_preview = lambda event: seen.append(time.monotonic() - began)
    studio.until(lambda: bool(seen) or not panel.run.runner.running)
    print(f"first preview after {seen[0]:.1f} s", flush=True)
    studio.take("first", ORDINARY)
    studio.until(lambda: "Diffusion" in form.progressText.text() and form.progressBar.value() > 450)
    studio.take("running", ORDINARY)
    studio.until(lambda: not panel.run.runner.running)
    for section in (form.dataSection, form.reconstructionSection):
        section.setProperty("collapsed", True)
    from DiffusionMBIRGui.compare import PLANES, ROWS, register_layout, view_name

    register_layout(studio.desk.scene)
    form.compareButton.click()
    studio.until(lambda: not panel.results.busy)
    width, height = (WIDE - 2 * GAP) // 3, (HIGH - GAP) // 2
    six = [
        (view_name(row, plane), f"{row}, {plane}", (i * (width + GAP), j * (height + GAP), width, height))
        for j, row in enumerate(ROWS)
        for i, plane in enumerate(PLANES)
    ]
    studio.desk.open_views()
    studio.size_views(six)
    studio.take("compare", six)
    form.compareButton.click()
    form.differenceButton.click()
    studio.until(lambda: not panel.results.busy)
    studio.take("difference", ORDINARY)
    form.differenceButton.click()
    studio.run(coarsen=2, samples=4, steps=10)
    studio.until(lambda: not panel.run.runner.running)
    form.resultsTable.selectRow(1)
    form.uncertaintyButton.click()
    studio.take("uncertainty", ORDINARY)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Pictures of the panel.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engine", default=sys.executable, help="the Python that computes")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_DATA_HOME"] = os.environ["LOCALAPPDATA"] = folder
        studio = Studio(Path(folder), options.folder, [options.engine])
        try:
            make(studio)
        finally:
            studio.close()


if __name__ == "__main__":
    main()
