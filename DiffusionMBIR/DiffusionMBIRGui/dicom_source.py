"""What a DICOM series says of itself, for a derived one that is to lie in the same study.  Read when the user asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer

from .scene import SOURCE

PATIENT_FIELDS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "FrameOfReferenceUID",
)
_INSTANCES = "DICOM.instanceUIDs"  # attribute that Slicer gives volumes that it read from DICOM


@dataclass(frozen=True)
class DicomSource:
    """A series.  patient: by keywords of ``PATIENT_FIELDS``; instances: UID of an image -> SOP class, '' if unknown."""

    patient: Mapping[str, str]
    series_uid: str = ""
    instances: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_study(self) -> bool:
        return bool(self.patient.get("StudyInstanceUID"))


def patient_of(node: Any) -> dict[str, str]:
    """The DICOM fields of patient and study that a volume was loaded with, or lies under in the subject hierarchy.

    To be handed on only when the user asks that a series carries them.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    if not item:
        return {}
    prefix = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMAttributePrefix()
    found = {name: hierarchy.GetAttributeFromItemAncestor(item, prefix + name) for name in PATIENT_FIELDS}
    found["StudyInstanceUID"] = found["StudyInstanceUID"] or _study_of(hierarchy, item)
    return {name: text for name, text in found.items() if text}


def _study_of(hierarchy: Any, item: int) -> str:
    """The study's UID, which Slicer keeps as the UID of the item above and not as an attribute."""
    constants = slicer.vtkMRMLSubjectHierarchyConstants
    study = hierarchy.GetItemAncestorAtLevel(item, constants.GetDICOMLevelStudy())
    return str(hierarchy.GetItemUID(study, constants.GetDICOMUIDName()) or "") if study else ""


def source_of(node: Any, sop_class_of: Callable[[str], str]) -> DicomSource | None:
    """The series that a result, or its input, was loaded from; None where nothing is known of a study.

    sop_class_of: gives the SOP class of an instance, as a DICOM database does, '' where it does not know.
    """
    patient = patient_of(node)
    if not patient.get("StudyInstanceUID"):
        return None
    origin = node.GetNodeReference(SOURCE) or node
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    item = hierarchy.GetItemByDataNode(origin)
    name = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName()
    series = str(hierarchy.GetItemUID(item, name) or "") if item else ""
    uids = (origin.GetAttribute(_INSTANCES) or "").split()
    return DicomSource(patient, series, {uid: sop_class_of(uid) for uid in uids})


def source_of_folder(folder: Path) -> DicomSource | None:
    """The series of a DICOM folder, from its headers; None where it holds none, or several.  Takes a while."""
    import pydicom

    patient: dict[str, str] = {}
    series: set[str] = set()
    instances: dict[str, str] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            series.add(str(header.SeriesInstanceUID))
            instances[str(header.SOPInstanceUID)] = str(header.SOPClassUID)
        except (AttributeError, OSError, pydicom.errors.InvalidDicomError):
            continue
        if not patient:
            patient = {name: str(header.get(name, "")) for name in PATIENT_FIELDS if header.get(name)}
    return DicomSource(patient, series.pop(), instances) if len(series) == 1 else None
