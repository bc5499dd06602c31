"""The bundled data sets, and how Slicer's module Sample Data learns of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from DiffusionMBIRLib import models
from DiffusionMBIRLib.tasks import MR_TASK, SPARSE_VIEW

from .parameters import MODULE
from .texts import _


@dataclass(frozen=True)
class Sample:
    """A bundled data set.  name: its id with SampleData; file: below Resources/SampleData."""

    name: str
    file: str
    sha256: str
    task: str

    def title(self) -> str:
        return {"DiffusionMBIRChestCT": _("Chest CT"), "DiffusionMBIRHeadMR": _("Head MRI")}.get(self.name, self.name)

    def path(self) -> Path:
        return models.resources() / "SampleData" / self.file

    def is_intact(self) -> bool:
        return hashlib.sha256(self.path().read_bytes()).hexdigest() == self.sha256


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
SAMPLES = tuple(sample for sample in _KNOWN if sample.path().is_file())


def register_samples(icon: str = "") -> None:
    """Make the bundled data known to Slicer's module Sample Data, with their SHA-256; again does no harm."""
    import SampleData
    import slicer

    known = getattr(slicer.modules, "sampleDataSources", {}).get(MODULE, ())
    registered = {source.sampleName for source in known}
    for sample in SAMPLES:
        if sample.name not in registered:
            SampleData.SampleDataLogic.registerCustomSampleDataSource(
                category=MODULE,
                sampleName=sample.name,
                uris=sample.path().as_uri(),
                fileNames=sample.file,
                nodeNames=sample.title(),
                checksums=f"SHA256:{sample.sha256}",
                thumbnailFileName=icon or None,
            )
