"""Exports read back by others: NRRD by ITK and by Slicer, the DICOM series by the engine and by pydicom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer

from DiffusionMBIRGui import dicom_source, export, scene
from DiffusionMBIRGui.volumes import grid_of, voxels
from DiffusionMBIRLib.errors import EngineError, InputError
from DiffusionMBIRLib.geometry import Grid
from Testing.slicer.helpers import Desk, rotated

sitk = pytest.importorskip("SimpleITK")
pydicom = pytest.importorskip("pydicom")

GRID = rotated(Grid((5, 6, 7), (0.7, 0.8, 2.5), (-11.0, 7.0, -20.0)), 30)
RECORD = {
    "software": "DiffusionMBIR",
    "version": "0.4",
    "settings": {"method": "dds", "seed": 7},
    "prior": {"id": "ct-compact-v1"},
    "notice": "Research use only, not for diagnosis.",
}


@pytest.fixture
def result(desk: Desk) -> Any:
    values = np.random.default_rng(0).uniform(-1000, 1500, GRID.shape).astype(np.float32)
    node = desk.volume(values, GRID, "result")
    node.SetAttribute(scene.PROVENANCE, json.dumps(RECORD))
    node.SetAttribute(scene.STATE, "finished")
    return node


def headers(folder: Path) -> list[Any]:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def test_nrrd_holds_the_volume_its_place_and_its_provenance(desk: Desk, result: Any, tmp_path: Path) -> None:
    export.save_nrrd(result, tmp_path / "out.nrrd")
    image = sitk.ReadImage(str(tmp_path / "out.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), voxels(result))
    assert json.loads(image.GetMetaData("provenance")) == RECORD
    assert image.GetMetaData("units") == "HU"
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(tmp_path / "out.nrrd"))
    back = desk.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "back")
    assert storage.ReadData(back)
    np.testing.assert_array_equal(voxels(back), voxels(result))
    for name in ("origin_mm", "spacing_mm", "direction"):
        np.testing.assert_allclose(getattr(grid_of(back), name), getattr(GRID, name), atol=1e-6)


def test_a_partial_result_says_so_wherever_it_goes(result: Any, tmp_path: Path) -> None:
    result.SetAttribute(scene.STATE, "partial")
    export.save_nrrd(result, tmp_path / "out.nrrd")
    assert json.loads(sitk.ReadImage(str(tmp_path / "out.nrrd")).GetMetaData("provenance"))["partial"] is True
    export.save_dicom(result, tmp_path / "series")
    header = headers(tmp_path / "series")[0]
    assert "Partial result" in header.DerivationDescription
    assert "Partial result" in header.ImageComments


def test_the_series_reads_back_on_the_same_grid_to_half_a_hu(result: Any, tmp_path: Path) -> None:
    from DiffusionMBIRLib.io.dicom import read_dicom_folder

    export.save_dicom(result, tmp_path / "series")
    back = read_dicom_folder(tmp_path / "series")
    np.testing.assert_allclose(back.array, voxels(result), atol=0.5)
    for name in ("shape", "origin_mm", "spacing_mm", "direction"):
        np.testing.assert_allclose(getattr(back.grid, name), getattr(GRID, name), atol=1e-5)


def test_the_series_says_what_it_is(result: Any, tmp_path: Path) -> None:
    export.save_dicom(result, tmp_path / "series")
    series = headers(tmp_path / "series")
    first = series[0]
    assert list(first.ImageType)[:2] == ["DERIVED", "SECONDARY"]
    assert "NOT FOR DIAGNOSIS" in first.SeriesDescription
    assert "not for diagnosis" in first.DerivationDescription
    assert "dds, prior ct-compact-v1" in first.DerivationDescription
    comments = first.ImageComments
    assert json.loads(comments[comments.index("{") :]) == RECORD
    assert (first.Modality, first.SOPClassUID.name, first.RescaleType) == ("CT", "CT Image Storage", "HU")
    assert first.ContentQualification == "RESEARCH"
    assert [header.InstanceNumber for header in series] == [1, 2, 3, 4, 5]
    assert len({header.SOPInstanceUID for header in series}) == 5
    for tag in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({header[tag].value for header in series}) == 1
    export.save_dicom(result, tmp_path / "again")
    again = headers(tmp_path / "again")[0]
    assert again.SeriesInstanceUID != first.SeriesInstanceUID
    assert again.StudyInstanceUID != first.StudyInstanceUID


def test_a_series_is_anonymous_unless_fields_are_given(desk: Desk, result: Any, tmp_path: Path) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(desk.scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Doe")
    study = hierarchy.CreateStudyItem(patient, "study")
    hierarchy.SetItemAttribute(patient, "DICOM.PatientName", "Doe^Jane")
    hierarchy.SetItemAttribute(patient, "DICOM.PatientID", "MRN-4711")
    hierarchy.SetItemAttribute(study, "DICOM.StudyInstanceUID", "1.2.3.4")
    hierarchy.CreateItem(study, result)
    export.save_dicom(result, tmp_path / "anonymous")
    for path in sorted((tmp_path / "anonymous").iterdir()):
        assert b"Doe^Jane" not in path.read_bytes()
        assert b"MRN-4711" not in path.read_bytes()
    header = headers(tmp_path / "anonymous")[0]
    assert (str(header.PatientName), header.PatientIdentityRemoved) == ("Anonymous", "YES")
    fields = dicom_source.patient_of(result)
    assert fields == {"PatientName": "Doe^Jane", "PatientID": "MRN-4711", "StudyInstanceUID": "1.2.3.4"}
    export.save_dicom(result, tmp_path / "named", patient=fields)
    header = headers(tmp_path / "named")[0]
    assert (header.PatientName, header.PatientID, header.StudyInstanceUID) == ("Doe^Jane", "MRN-4711", "1.2.3.4")
    assert "PatientIdentityRemoved" not in header
    assert "ReferencedSeriesSequence" not in header
    with pytest.raises(InputError, match="Rows: is no field of a patient"):
        export.save_dicom(result, tmp_path / "wrong", patient={"Rows": "1"})


def test_a_series_of_the_patients_study_names_the_series_that_it_was_made_of(
    desk: Desk, result: Any, tmp_path: Path
) -> None:
    """From the subject hierarchy, as Slicer fills it, and from the files of a folder."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(desk.scene)
    constants = slicer.vtkMRMLSubjectHierarchyConstants
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Doe")
    study = hierarchy.CreateStudyItem(patient, "study")
    hierarchy.SetItemUID(study, constants.GetDICOMUIDName(), "1.2.3.4")
    hierarchy.SetItemAttribute(patient, "DICOM.PatientName", "Doe^Jane")
    source = desk.volume(voxels(result).copy(), GRID, "source")
    source.SetAttribute("DICOM.instanceUIDs", "1.5.1 1.5.2")
    item = hierarchy.CreateItem(study, source)
    hierarchy.SetItemUID(item, constants.GetDICOMUIDName(), "1.2.3.5")
    assert dicom_source.source_of(result, lambda uid: "") is None
    hierarchy.CreateItem(study, result)
    result.SetNodeReferenceID(scene.SOURCE, source.GetID())
    found = dicom_source.source_of(result, lambda uid: "1.2.840.10008.5.1.4.1.1.2" if uid == "1.5.1" else "")
    assert found is not None
    assert (found.patient["StudyInstanceUID"], found.series_uid) == ("1.2.3.4", "1.2.3.5")
    export.write_dicom(export.snapshot(result), tmp_path / "series", source=found)
    header = headers(tmp_path / "series")[0]
    assert (header.PatientName, header.StudyInstanceUID) == ("Doe^Jane", "1.2.3.4")
    (series,) = header.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.5"
    assert [image.ReferencedSOPInstanceUID for image in series.ReferencedInstanceSequence] == ["1.5.1"]
    again = dicom_source.source_of_folder(tmp_path / "series")
    assert again is not None
    assert (again.series_uid, len(again.instances)) == (header.SeriesInstanceUID, GRID.shape[0])
    assert again.patient["PatientName"] == "Doe^Jane"
    assert dicom_source.source_of_folder(tmp_path / "cache") is None


def test_values_that_are_no_hu_keep_their_range(desk: Desk, tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(0, 1e-3, GRID.shape).astype(np.float32)
    output = scene.OutputVolume.create(desk.scene, "mr", GRID, unit="1")
    output.update(values, 0, final=True)
    export.save_dicom(output.node, tmp_path / "series")
    first = headers(tmp_path / "series")[0]
    assert (first.Modality, first.SOPClassUID.name) == ("MR", "MR Image Storage")
    back = np.stack(
        [h.pixel_array * float(h.RescaleSlope) + float(h.RescaleIntercept) for h in headers(tmp_path / "series")]
    )
    np.testing.assert_allclose(back, values, atol=1e-3 / 65535)


@pytest.mark.parametrize("value", [0.0, 1.0, -1e-7 / 3, 123456789.123456789, -1 / 3, 1e-300, -1.23456789012e-12])
def test_numbers_fit_dicoms_sixteen_characters(value: float) -> None:
    text = export._decimal(value)
    assert len(text) <= 16
    assert float(text) == pytest.approx(value, rel=1e-8)


def test_long_texts_are_cut_to_what_dicom_allows(result: Any, tmp_path: Path) -> None:
    record = RECORD | {"measurement": {"angles": ["0.123456789"] * 2000}}
    result.SetAttribute(scene.PROVENANCE, json.dumps(record))
    volume = export.snapshot(result)
    export.write_dicom(volume, tmp_path / "series", description="a\\b " * 40)
    first = headers(tmp_path / "series")[0]
    assert len(first.SeriesDescription) == 64
    assert first.SeriesDescription.endswith("NOT FOR DIAGNOSIS")
    comments = first.ImageComments
    assert json.loads(comments[comments.index("{") :]) == RECORD  # without the list of angles
    assert len(comments) <= 10240


def test_a_folder_with_content_is_refused_and_kept(result: Any, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="is not an empty folder"):
        export.save_dicom(result, tmp_path / "used")
    with pytest.raises(InputError, match="does not exist; make it first"):
        export.save_dicom(result, tmp_path / "missing" / "series")
    (tmp_path / "empty").mkdir()
    export.save_dicom(result, tmp_path / "empty")
    assert len(list((tmp_path / "empty").iterdir())) == 5
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["empty", "used"]


def test_a_disk_that_fails_leaves_no_half_series(result: Any, tmp_path: Path, monkeypatch: Any) -> None:
    written = []

    def fails_at_the_third(path: Path, tags: Any, pixels: Any) -> None:
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        path.write_bytes(b"x")

    monkeypatch.setattr(export, "_write_slice", fails_at_the_third)
    with pytest.raises(EngineError, match="could not be written; is the disk full"):
        export.save_dicom(result, tmp_path / "series")
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_in_the_background_errors_come_with_finish(result: Any, tmp_path: Path) -> None:
    writing = export.save_nrrd(result, tmp_path / "out.nrrd", wait=False)
    writing.finish()
    assert writing.done
    assert (tmp_path / "out.nrrd").is_file()
    failing = export.save_nrrd(result, tmp_path / "missing" / "out.nrrd", wait=False)
    with pytest.raises(InputError, match="does not exist"):
        failing.finish()
    with pytest.raises(InputError, match="no volume to export"):
        export.save_nrrd(None, tmp_path / "out.nrrd")


def test_slices_that_nobody_measured_so_thin_say_so(result: Any, tmp_path: Path) -> None:
    record = {**RECORD, "measurement": {"kind": "thick slices", "settings": {"task": "thin-slices"}}}
    result.SetAttribute(scene.PROVENANCE, json.dumps(record))
    export.save_dicom(result, tmp_path / "series")
    first = headers(tmp_path / "series")[0]
    assert first.SeriesDescription.startswith("Estimated slices, ")
    assert first.SeriesDescription.endswith("NOT FOR DIAGNOSIS")
    assert float(first.SliceThickness) == pytest.approx(GRID.spacing_mm[2])
