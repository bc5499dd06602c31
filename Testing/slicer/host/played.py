"""What a test of the panel plays: the desktop's answers and the runner's words; and small helpers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import slicer.util

from DiffusionMBIRGui.setup import Device

from . import ROOT

UI = ROOT / "Resources" / "UI" / "DiffusionMBIR.ui"
GUI = ROOT / "DiffusionMBIR" / "DiffusionMBIRGui"
GPU = Device("cuda:0", "NVIDIA H200", 8_000_000_000, 7_000_000_000)
CPU = Device("cpu", "CPU", 16_000_000_000, 12_000_000_000)


class PlayedDesktop:
    """Answers the panel's questions as the test says, and remembers them."""

    room = 0  # for views, not known

    def __init__(self, folder: Path) -> None:
        self.python: tuple[str, ...] = (sys.executable,)
        self.settings: dict[str, str] = {}
        self.asked: list[str] = []
        self.answer = True
        self.file = self.text = ""
        self.saved = str(folder / "saved.nrrd")
        self.indexed: list[str] = []
        self.opened: list[str] = []
        self.scene: Any = None

    def confirm(self, question: str) -> bool:
        self.asked.append(question)
        return self.answer

    def ask_text(self, question: str, suggestion: str) -> str:
        self.asked.append(question)
        return self.text or suggestion

    def open_file(self, title: str, kinds: str) -> str:
        self.asked.append(title)
        return self.file

    def open_folder(self, title: str) -> str:
        self.asked.append(title)
        return self.file

    def save_file(self, title: str, suggestion: str, kinds: str) -> str:
        self.asked.append(title)
        return self.saved

    def open_page(self, path: str) -> bool:
        self.opened.append(path)
        return self.answer

    def setting(self, name: str) -> str:
        return self.settings.get(name, "")

    def set_setting(self, name: str, value: str) -> None:
        self.settings[name] = value

    def sop_class(self, instance_uid: str) -> str:
        return "1.2.840.10008.5.1.4.1.1.2"

    def index_dicom(self, folder: str) -> bool:
        self.indexed.append(folder)
        return True

    def own_python(self) -> tuple[str, ...]:
        return self.python

    def clean_environment(self) -> dict[str, str]:
        return dict(os.environ)

    def application_logic(self) -> Any:
        return None

    def views_side_by_side(self) -> int:
        return self.room

    def slice_logics(self) -> list[Any]:
        return []


class PlayedRunner:
    """A runner without a job: the test says what the job would tell."""

    def __init__(self) -> None:
        self.listener: Any = None
        self.running = self.paused = self.resumable = False
        self.paused_s = 0.0
        self.python: Any = ()
        self.environment: Any = None
        self.job_path: Path | None = None
        self.root: Path | None = None
        self.slice_logics: Any = ()
        self.standby: Any = None
        self.calls: list[Any] = []
        self.refuse: Exception | None = None
        self.told: list[Callable[[], None]] = []

    def start(self, parameters: Any) -> None:
        self.calls.append(("start", parameters.get("task"), parameters.request_scan()))
        if self.refuse is not None:
            raise self.refuse
        self.running, self.resumable = True, False

    def resume(self) -> None:
        self.calls.append("resume")
        self.running, self.resumable = True, False

    def cancel(self) -> None:
        self.calls.append("cancel")

    def pause(self) -> None:
        self.calls.append("pause")

    def go_on(self) -> None:
        self.calls.append("go on")

    def hold(self) -> None:
        """What was asked for last happens: the step is over."""
        self.paused = next(call for call in reversed(self.calls) if call in ("pause", "go on")) == "pause"
        self.listener.on_paused(self.paused)

    def set_preview(self, on: bool, interval_s: float) -> None:
        self.calls.append(("preview", on, interval_s))

    def poll(self) -> bool:
        for tell in self.told:
            tell()
        self.told = []
        return self.running

    def close(self) -> None:
        self.calls.append("close")
        self.running = False

    def finish(self, event: Any, node: Any) -> None:
        self.running = False
        self.listener.on_finished(event, node)

    def fail(self, event: Any) -> None:
        self.running, self.resumable = False, event.resumable
        self.listener.on_failed(event)


def ct_volume(scene: Any, name: str = "CT", shape: tuple[int, int, int] = (4, 16, 24)) -> Any:
    """A small CT: slices x rows x columns of a ramp in HU."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, np.linspace(-1000, 1000, int(np.prod(shape))).reshape(shape).astype("i2"))
    node.SetSpacing(0.7, 0.7, 3.0)
    return node


def wait_for(condition: Callable[[], bool], application: Any, seconds: float = 60.0) -> None:
    """Let events happen until the condition holds; fails the test if it does not in time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        application.processEvents()
        time.sleep(0.01)


def text(widget: Any) -> str:
    return str(widget.property("text"))


def shown(widget: Any) -> bool:
    """Whether a widget would be seen if its window were."""
    return not widget.isHidden()
