"""The bundled data sets, and how Slicer's module Sample Data learns of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from DiffusionMBIRLib import models
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.tasks import MR_TASK, SPARSE_VIEW

from .parameters import MODULE
from .scene import VOLUME_CLASS, set_window
from .texts import _
from .volumes import image_like, place, sample

SAMPLE = "DiffusionMBIR.Sample"  # attribute: which sample a node is
_PERCENTILES = (1.0, 99.5)


@dataclass(frozen=True)
class Loaded:
    """What a thread made ready for the scene.  vectors: k-space; reference: a volume that the result is judged by."""

    image: Any
    grid: Grid
    window: tuple[float, float] | None = None
    vectors: bool = False
    reference: Loaded | None = None


@dataclass(frozen=True)
class Sample:
    """A bundled data set.  name: its id with SampleData; file: below Resources/SampleData."""

    name: str
    file: str
    sha256: str
    task: str
    source: str = "volume"

    def title(self) -> str:
        return {"DiffusionMBIRChestCT": _("Chest CT"), "DiffusionMBIRHeadMR": _("Head MRI")}.get(self.name, self.name)

    def path(self) -> Path:
        return models.resources() / "SampleData" / self.file

    def is_intact(self) -> bool:
        return hashlib.sha256(self.path().read_bytes()).hexdigest() == self.sha256

    def load(self) -> Loaded:
        """In any thread.  Raises InputError where the file is not the one that came with the module."""
        if not self.is_intact():
            raise InputError(_("The sample {name} is damaged: install the extension again.").format(name=self.title()))
        from DiffusionMBIRLib.io.volumes import read_volume

        volume = read_volume(self.path())
        low, high = (float(v) for v in np.percentile(sample(volume.array), _PERCENTILES))
        return Loaded(image_like(volume.array, volume.array.dtype), volume.grid, (high - low, (low + high) / 2))


def loaded_before(scene: Any, name: str) -> Any:
    """The node of a sample that the scene holds already, None where there is none."""
    for index in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(index)
        if node.GetAttribute(SAMPLE) == name and getattr(node, "GetImageData", lambda: None)() is not None:
            return node
    return None


def add_to(scene: Any, loaded: Loaded, title: str, name: str) -> Any:
    """A node of what was loaded; takes milliseconds, as nothing looks for a window of its own."""
    kind = "vtkMRMLVectorVolumeNode" if loaded.vectors else VOLUME_CLASS
    node = scene.AddNewNodeByClass(kind, title)
    node.SetAttribute(SAMPLE, name)
    place(node, loaded.grid)
    if loaded.window is not None:
        node.CreateDefaultDisplayNodes()
        set_window(node.GetDisplayNode(), *loaded.window)
    node.SetAndObserveImageData(loaded.image)
    return node


_KNOWN = (
    Sample(
        "DiffusionMBIRChestCT",
        "ct_chest.nrrd",
        "8ef2fda41b23b5306ad1eef5d3128bf6e026af602a4d7b2ee4ac32daf3eddcda",
        SPARSE_VIEW,
    ),
    Sample(
        "DiffusionMBIRHeadMR",
        "mr_head.nrrd",
        "fc390bed6a0262a9a8cac8fffd60db8c6c1bde87e9cefcc80a2c9eec600f3c42",
        MR_TASK,
    ),
)
SAMPLES = tuple(entry for entry in _KNOWN if entry.path().is_file())


def register_samples(icon: str = "") -> None:
    """Make the bundled data known to Slicer's module Sample Data, with their SHA-256; again does no harm."""
    import SampleData
    import slicer

    known = getattr(slicer.modules, "sampleDataSources", {}).get(MODULE, ())
    registered = {source.sampleName for source in known}
    for entry in SAMPLES:
        if entry.name not in registered:
            SampleData.SampleDataLogic.registerCustomSampleDataSource(
                category=MODULE,
                sampleName=entry.name,
                uris=entry.path().as_uri(),
                fileNames=entry.file,
                nodeNames=entry.title(),
                checksums=f"SHA256:{entry.sha256}",
                thumbnailFileName=icon or None,
            )
