"""Results to files that say where they come from: NRRD, and a derived DICOM series.

``snapshot`` copies a node's voxels and belongs to the main thread; the writers know nothing of MRML and take seconds,
so that they belong to a thread of their own, which ``save_nrrd`` and ``save_dicom`` start.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from DiffusionMBIRLib.errors import EngineError, InputError
from DiffusionMBIRLib.moves import move_over
from DiffusionMBIRLib.provenance import NOTICE, software_version
from DiffusionMBIRLib.tasks import SLICE_TASKS
from DiffusionMBIRLib.volume import Volume

from .dicom_source import PATIENT_FIELDS, DicomSource
from .scene import PROVENANCE, STATE, UNIT
from .texts import _
from .volumes import grid_of, voxels

ESTIMATED = "Estimated slices"  # in the description of a series that nobody measured so thin
_SOP_CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
_LONGEST = {"SeriesDescription": 64, "DerivationDescription": 1024, "ImageComments": 10240}  # limits of LO, ST, LT


def snapshot(node: Any, *, unit: str | None = None, copy: bool = True) -> Volume:
    """A copy of a volume node with its place in the world, unit and provenance, for the writers below.

    unit: 'HU' for CT; by default the one that the run left with the node, HU for other volumes.  copy: without it the
    voxels are the node's own memory, which lives on without the node: for a thread that copies them first.

    Raises InputError where the node is gone, empty or sheared.
    """
    if node is None or node.GetScene() is None or node.GetImageData() is None:
        raise InputError(_("There is no volume to export: run a reconstruction, or choose one."))
    record = provenance_of(node)
    unit = (node.GetAttribute(UNIT) or "HU") if unit is None else unit
    metadata = {"modality": "CT" if unit == "HU" else "MR"}
    if record:
        metadata["provenance"] = json.dumps(record, sort_keys=True)
    array = voxels(node)
    return Volume(array.copy() if copy else array, grid_of(node), unit=unit, name=node.GetName(), metadata=metadata)


def provenance_of(node: Any) -> dict[str, Any]:
    """The record that a run left with its volume, marked where the run was cut short; empty for other volumes."""
    try:
        record = json.loads(node.GetAttribute(PROVENANCE) or "{}")
    except ValueError:
        record = {}
    if not isinstance(record, dict):
        record = {}
    if node.GetAttribute(STATE) == "partial":
        record = {"software": "DiffusionMBIR", "notice": NOTICE, **record, "partial": True}
    return record


class Writing:
    """A file that is being written in a thread; nothing of it touches MRML or Qt."""

    def __init__(self, write: Callable[[], Any]) -> None:
        self._write = write
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="export")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._write()
        except Exception as error:  # told by finish(), in the thread that asks
            self._error = error

    @property
    def done(self) -> bool:
        """True once the file is written, or could not be."""
        return not self._thread.is_alive()

    def finish(self) -> None:
        """Wait for the end; raises what the writer raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error


def save_nrrd(node: Any, path: str | os.PathLike[str], *, wait: bool = True) -> Writing:
    """Write a volume node with its provenance; where it is not waited for, poll ``done``, then call ``finish``.

    Raises InputError for a node that cannot be exported and, at once or in ``finish``, what :func:`write_nrrd` raises.
    """
    volume = snapshot(node)
    return _started(lambda: write_nrrd(volume, path), wait)


def save_dicom(
    node: Any,
    folder: str | os.PathLike[str],
    *,
    patient: Mapping[str, str] | None = None,
    wait: bool = True,
) -> Writing:
    """Write a volume node as a derived series, as :func:`write_dicom` does; otherwise as :func:`save_nrrd`."""
    volume = snapshot(node)
    return _started(lambda: write_dicom(volume, folder, patient=patient), wait)


def _started(write: Callable[[], Any], wait: bool) -> Writing:
    writing = Writing(write)
    if wait:
        writing.finish()
    return writing


def write_nrrd(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write a volume with its provenance in the header (NRRD; other formats of the engine keep no provenance).

    Raises InputError for a name or folder that will not do, EngineError where writing fails.
    """
    volume.save(path)


def write_dicom(
    volume: Volume,
    folder: str | os.PathLike[str],
    *,
    description: str = "DiffusionMBIR reconstruction",
    patient: Mapping[str, str] | None = None,
    source: DicomSource | None = None,
) -> list[Path]:
    """Write a volume as a derived series, one file a slice, into a new or empty folder; all files or none.

    Study, series and instances get new UIDs.  patient: DICOM keywords of ``PATIENT_FIELDS`` and their values, which
    the user wants in the series; without it the series is anonymous and a study of its own.  source: the series that
    it was derived from and names; its patient is taken over where none is given.  CT values are rounded to whole HU,
    others to 65536 steps of their range.

    Raises InputError for a folder with content or an unknown patient field, EngineError where writing fails.
    """
    patient = dict(patient or (source.patient if source is not None else {}))
    unknown = sorted(set(patient) - set(PATIENT_FIELDS))
    if unknown:
        raise InputError(f"{unknown[0]}: is no field of a patient or study; use {', '.join(PATIENT_FIELDS)}")
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target}: is not an empty folder; choose a new one for the series")
    if not target.parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist; make it first")
    temporary = target.with_name(f".{uuid.uuid4().hex}")
    try:
        temporary.mkdir()
        names = _write_slices(volume, temporary, description, patient, source)
        if target.exists():
            target.rmdir()
        move_over(temporary, target)
    except OSError as error:
        raise EngineError(f"{target}: could not be written; is the disk full or the folder read-only?") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [target / name for name in names]


def _write_slices(
    volume: Volume, folder: Path, description: str, patient: dict[str, str], source: DicomSource | None
) -> list[str]:
    stored, slope, intercept = _stored_values(volume)
    common = _common_tags(volume, description, patient) | _reference_tags(source)
    common |= {"RescaleSlope": _decimal(slope), "RescaleIntercept": _decimal(intercept)}
    common |= {"SmallestImagePixelValue": int(stored.min()), "LargestImagePixelValue": int(stored.max())}
    low, high = (float(v) for v in np.percentile(stored[:: max(1, len(stored) // 16)], (1, 99.5)))
    common |= {
        "WindowCenter": _decimal((low + high) / 2 * slope + intercept),
        "WindowWidth": _decimal(max((high - low) * slope, 1e-6)),
    }
    step = volume.grid.matrix[:, 2] * volume.grid.spacing_mm[2]
    names = []
    for index, pixels in enumerate(stored):
        position = np.asarray(volume.grid.origin_mm) + index * step
        tags = common | {"InstanceNumber": index + 1, "ImagePositionPatient": [_decimal(p) for p in position]}
        names.append(f"slice{index + 1:04d}.dcm")
        _write_slice(folder / names[-1], tags, pixels)
    return names


def _stored_values(volume: Volume) -> tuple[np.ndarray, float, float]:
    """int16 values with the slope and intercept that lead back to the volume's unit."""
    array = volume.array
    if volume.unit == "HU":
        return np.clip(np.rint(array), -32768, 32767).astype(np.int16), 1.0, 0.0
    low, high = float(array.min()), float(array.max())
    slope = float(_decimal((high - low) / 65535 or 1.0))
    intercept = float(_decimal(low + 32768 * slope))
    return np.clip(np.rint((array - intercept) / slope), -32768, 32767).astype(np.int16), slope, intercept


def _decimal(value: float) -> str:
    """A decimal string of at most 16 characters, as DICOM has them."""
    for digits in range(16, 5, -1):
        text = f"{float(value):.{digits}g}"
        if len(text) <= 16:
            return text
    return f"{float(value):.5e}"


def _common_tags(volume: Volume, description: str, patient: dict[str, str]) -> dict[str, Any]:
    from pydicom.uid import generate_uid

    modality = volume.metadata.get("modality", "CT")
    now = datetime.now()
    rows, columns = volume.grid.in_plane
    x_mm, y_mm, z_mm = volume.grid.spacing_mm
    tags: dict[str, Any] = {
        "SOPClassUID": _SOP_CLASSES[modality],
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL" if modality == "CT" else "OTHER"],
        "Modality": modality,
        "PatientName": "Anonymous",
        "PatientID": "Anonymous",
        "PatientBirthDate": "",
        "PatientSex": "",
        "StudyInstanceUID": generate_uid(prefix=None),
        "StudyDate": "",
        "StudyTime": "",
        "StudyID": "",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "FrameOfReferenceUID": generate_uid(prefix=None),
        "PositionReferenceIndicator": "",
        "SeriesInstanceUID": generate_uid(prefix=None),
        "SeriesNumber": 9000,
        "SeriesDate": now.strftime("%Y%m%d"),
        "SeriesTime": now.strftime("%H%M%S"),
        "ContentDate": now.strftime("%Y%m%d"),
        "ContentTime": now.strftime("%H%M%S"),
        "AcquisitionNumber": None,
        "Manufacturer": "DiffusionMBIR",
        "SoftwareVersions": f"DiffusionMBIR {software_version()}",
        "ContentQualification": "RESEARCH",
        "BurnedInAnnotation": "NO",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "PixelSpacing": [_decimal(y_mm), _decimal(x_mm)],
        "SliceThickness": _decimal(z_mm),
        "SpacingBetweenSlices": _decimal(z_mm),
        "ImageOrientationPatient": [_decimal(v) for v in volume.grid.matrix[:, :2].T.reshape(-1)],
        "RescaleType": "HU" if volume.unit == "HU" else "US",
    }
    tags |= {"KVP": None} if modality == "CT" else _MR_TAGS
    if not patient:
        tags |= {"PatientIdentityRemoved": "YES", "DeidentificationMethod": "No field of the source was copied"}
    return tags | _origin_tags(volume, description) | patient


def _reference_tags(source: DicomSource | None) -> dict[str, Any]:
    """The series that this one was derived from, as far as its images are known."""
    from pydicom.dataset import Dataset

    known = {uid: kind for uid, kind in source.instances.items() if kind} if source is not None else {}
    if source is None or not source.series_uid or not known:
        return {}
    series = Dataset()
    series.SeriesInstanceUID = source.series_uid
    series.ReferencedInstanceSequence = []
    for uid, kind in known.items():
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = kind, uid
        series.ReferencedInstanceSequence.append(image)
    return {"ReferencedSeriesSequence": [series]}


_MR_TAGS: dict[str, Any] = {
    "ScanningSequence": "RM",
    "SequenceVariant": "NONE",
    "ScanOptions": "",
    "MRAcquisitionType": "",
    "EchoTime": None,
    "EchoTrainLength": None,
}


def _origin_tags(volume: Volume, description: str) -> dict[str, str]:
    """What the series is and is not, and the record of the run as far as it fits."""
    record = json.loads(volume.metadata.get("provenance", "{}"))
    partial = "Partial result of a cancelled run. " if record.get("partial") else ""
    prior = record.get("prior") or {}
    method = record.get("settings", {}).get("method", "unknown method")
    how = f"Reconstructed by DiffusionMBIR {record.get('version', software_version())}, {method}"
    how += f", prior {prior['id']}" if prior.get("id") else ""
    mark = " - NOT FOR DIAGNOSIS"
    if (record.get("measurement") or {}).get("settings", {}).get("task") in SLICE_TASKS:
        description = f"{ESTIMATED}, {description}"
    title = description.replace("\\", "/")[: _LONGEST["SeriesDescription"] - len(mark)]
    comments = f"{NOTICE} {partial}Provenance: {json.dumps(record, sort_keys=True)}"
    if len(comments) > _LONGEST["ImageComments"]:
        shorter = {key: value for key, value in record.items() if key != "measurement"}
        comments = f"{NOTICE} {partial}Provenance: {json.dumps(shorter, sort_keys=True)}"
    return {
        "SeriesDescription": title + mark,
        "DerivationDescription": f"{NOTICE} {partial}{how}."[: _LONGEST["DerivationDescription"]],
        "ImageComments": comments[: _LONGEST["ImageComments"]],
    }


def _write_slice(path: Path, tags: dict[str, Any], pixels: np.ndarray) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = tags["SOPClassUID"]
    meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.PixelData = np.ascontiguousarray(pixels, dtype="<i2").tobytes()
    if "enforce_file_format" in inspect.signature(dataset.save_as).parameters:  # pydicom 3, in Slicer from 5.12 on
        dataset.save_as(path, enforce_file_format=True)
    else:
        dataset.is_little_endian, dataset.is_implicit_VR = True, False
        dataset.save_as(path, write_like_original=False)
