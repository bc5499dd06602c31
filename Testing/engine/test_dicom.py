"""DICOM folders: synthetic series in every orientation against ITK's own reader, and what must be refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.io.dicom import read_dicom_folder
from DiffusionMBIRLib.io.volumes import read_volume
from Testing.engine.helpers import rotation

AXIAL = np.eye(3)
SAGITTAL = np.array(
    [[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]
)  # columns: along a row, down a column, normal
OBLIQUE = rotation((20, -35, 50))
SERIES = "1.2.826.0.1.3680043.8.498.1"
SPACING_MM = (0.5, 0.75, 2.0)  # x, y, z
ORIGIN_MM = np.array([10.0, -20.0, 30.0])


def stored_values(slices: int = 4, rows: int = 6, columns: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4096, (slices, rows, columns)).astype(np.uint16)


def make_slice(pixels: np.ndarray, matrix: np.ndarray, position_mm: np.ndarray) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    tags: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.0",
        "SeriesInstanceUID": SERIES,
        "SeriesNumber": 3,
        "Modality": "CT",
        "PatientName": "Nobody^Else",
        "PatientID": "P-4711",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "PixelSpacing": [SPACING_MM[1], SPACING_MM[0]],
        "SliceThickness": 2.5,
        "ImageOrientationPatient": [float(f"{v:.10f}") for v in (*matrix[:, 0], *matrix[:, 1])],
        "ImagePositionPatient": [float(f"{v:.6f}") for v in position_mm],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "PixelData": pixels.astype("<u2").tobytes(),
    }
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for tag, value in tags.items():
        setattr(data, tag, value)
    return data


def make_series(folder: Path, matrix: np.ndarray = AXIAL, values: np.ndarray | None = None, **tags: Any) -> list[Path]:
    """A series whose file names do not tell the order; ``tags`` replace those of every slice (None: left out)."""
    folder.mkdir(parents=True, exist_ok=True)
    values = stored_values() if values is None else values
    names = np.random.default_rng(1).permutation(len(values))
    paths = []
    for k, pixels in enumerate(values):
        data = make_slice(pixels, matrix, ORIGIN_MM + matrix[:, 2] * SPACING_MM[2] * k)
        for tag, value in tags.items():
            if value is None:
                delattr(data, tag)
            else:
                setattr(data, tag, value)
        paths.append(folder / f"IM{names[k]:03}.dcm")
        data.save_as(paths[-1], enforce_file_format=True)
    return paths


def change(path: Path, **tags: Any) -> None:
    data = pydicom.dcmread(path)
    for tag, value in tags.items():
        setattr(data, tag, value)
    data.save_as(path)


def refusal(folder: Path) -> str:
    """The message with which a folder is refused: one line without anything of a patient."""
    with pytest.raises(InputError) as caught:
        read_dicom_folder(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert "Nobody" not in message
    assert "4711" not in message
    return message


@pytest.mark.parametrize("matrix", [AXIAL, SAGITTAL, OBLIQUE], ids=["axial", "sagittal", "oblique"])
def test_geometry_and_values_agree_with_itk(tmp_path, matrix):
    make_series(tmp_path, matrix)
    volume = read_volume(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(image))
    assert np.array_equal(volume.array, stored_values().astype(int) - 1024)
    assert volume.array.dtype == np.int16
    assert volume.grid.spacing_mm == pytest.approx(SPACING_MM, abs=1e-5)
    assert volume.grid.spacing_mm == pytest.approx(image.GetSpacing(), abs=1e-5)
    assert volume.grid.origin_mm == pytest.approx(image.GetOrigin(), abs=1e-5)
    assert volume.grid.direction == pytest.approx(image.GetDirection(), abs=1e-5)
    assert volume.unit == "HU"
    assert str(tmp_path) not in volume.name


def test_descending_slices_and_sub_folders(tmp_path):
    values = stored_values()
    paths = make_series(tmp_path / "a", values=values)
    (tmp_path / "b").mkdir()
    for k, path in enumerate(paths):
        change(path, ImagePositionPatient=[0.0, 0.0, -2.0 * k], InstanceNumber=k + 1)
    paths[0].rename(tmp_path / "b" / "one")
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "._IM000.dcm").write_bytes(b"what a Mac leaves behind")
    volume = read_dicom_folder(tmp_path)
    assert np.array_equal(volume.array, values[::-1].astype(int) - 1024)
    assert volume.grid.origin_mm == pytest.approx((0, 0, -6))


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, 0, np.int16), (2, -1000, np.int16), (0.5, -1024.25, np.float32)]
)
def test_rescaling(tmp_path, slope, intercept, dtype):
    make_series(tmp_path, RescaleSlope=slope, RescaleIntercept=intercept)
    volume = read_dicom_folder(tmp_path)
    assert volume.array.dtype == dtype
    assert np.array_equal(volume.array, stored_values().astype(float) * slope + intercept)


def test_values_beyond_int16_become_float(tmp_path):
    values = stored_values()
    values[0, 0, 0] = 60000
    make_series(tmp_path, values=values, BitsStored=16, HighBit=15, RescaleIntercept=0)
    volume = read_dicom_folder(tmp_path)
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, values)


def test_slices_may_have_slopes_of_their_own(tmp_path):
    paths = make_series(tmp_path)
    change(paths[2], RescaleSlope=0.5)
    expected = stored_values() * np.array([1, 1, 0.5, 1]).reshape(4, 1, 1) - 1024
    assert np.array_equal(read_dicom_folder(tmp_path).array, expected)


def test_a_single_slice_takes_its_thickness(tmp_path):
    make_series(tmp_path, values=stored_values(1))
    assert read_dicom_folder(tmp_path).grid.spacing_mm == (0.5, 0.75, 2.5)
    make_series(tmp_path, values=stored_values(1), SliceThickness=None)
    assert "SliceThickness" in refusal(tmp_path)


def test_rounded_positions_are_regular_enough(tmp_path):
    paths = make_series(tmp_path, values=stored_values(9))
    for k, path in enumerate(paths):
        change(path, ImagePositionPatient=[0.0, 0.0, round(0.625 * k, 1)])
    assert read_dicom_folder(tmp_path).grid.spacing_mm[2] == pytest.approx(0.625)


def test_a_missing_slice_is_found(tmp_path):
    paths = make_series(tmp_path, values=stored_values(12))
    paths[5].unlink()
    message = refusal(tmp_path)
    assert "irregular gaps" in message
    assert "9 x 2 mm, 1 x 4 mm" in message
    assert paths[4].name in message
    assert paths[6].name in message


def test_doubled_positions_are_refused(tmp_path):
    paths = make_series(tmp_path)
    change(paths[1], ImagePositionPatient=list(ORIGIN_MM))
    message = refusal(tmp_path)
    assert "same position" in message
    assert paths[0].name in message


def test_gantry_tilt_is_refused(tmp_path):
    paths = make_series(tmp_path)
    for k, path in enumerate(paths):
        change(path, ImagePositionPatient=[0.0, 0.5 * k, 2.0 * k])
    assert "gantry tilt of 14.0 degrees" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("tag", "value"),
    [("PixelSpacing", [0.75, 0.6]), ("ImageOrientationPatient", [0, 1, 0, -1, 0, 0])],
)
def test_a_slice_unlike_the_others_is_named(tmp_path, tag, value):
    paths = make_series(tmp_path)
    change(paths[2], **{tag: value})
    message = refusal(tmp_path)
    assert tag in message
    assert paths[2].name in message or paths[0].name in message


def test_a_slice_of_another_size_is_named(tmp_path):
    make_series(tmp_path)
    odd = make_slice(stored_values(1, 8, 5)[0], AXIAL, ORIGIN_MM - (0, 0, 2))
    odd.save_as(tmp_path / "odd.dcm", enforce_file_format=True)
    message = refusal(tmp_path)
    assert "image size" in message
    assert "odd.dcm" in message


def test_equal_series_are_listed(tmp_path):
    make_series(tmp_path / "a")
    make_series(tmp_path / "b", SeriesInstanceUID=SERIES + ".7", SeriesNumber=7)
    message = refusal(tmp_path)
    assert f"series 3: 4 slices, UID {SERIES}" in message
    assert f"series 7: 4 slices, UID {SERIES}.7" in message
    chosen = read_dicom_folder(tmp_path, series_uid=SERIES + ".7")
    assert chosen.name == "DICOM series 7"
    with pytest.raises(InputError, match="no CT series with the UID"):
        read_dicom_folder(tmp_path, series_uid="1.2")


def test_scouts_and_other_modalities_are_passed_over(tmp_path):
    make_series(tmp_path / "ct", values=stored_values(8))
    make_series(tmp_path / "few", values=stored_values(2), SeriesInstanceUID=SERIES + ".7")
    make_series(tmp_path / "scout", SeriesInstanceUID=SERIES + ".8", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    make_series(tmp_path / "pet", values=stored_values(9), SeriesInstanceUID=SERIES + ".9", Modality="PT")
    assert read_dicom_folder(tmp_path).grid.shape[0] == 8


MR = {
    "SOPClassUID": MRImageStorage, "Modality": "MR", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
    "SeriesInstanceUID": SERIES + ".5",
}  # fmt: skip


def test_a_folder_of_mr_images(tmp_path):
    make_series(tmp_path / "mr", **MR, RescaleSlope=None, RescaleIntercept=None)
    phase = {"SeriesInstanceUID": SERIES + ".6", "ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}
    make_series(tmp_path / "phase", **MR | phase)
    volume = read_dicom_folder(tmp_path)
    assert np.array_equal(volume.array, stored_values())
    assert volume.unit == ""
    assert volume.metadata["modality"] == "MR"
    assert "units" not in volume.metadata
    assert "4 x MR image that is no magnitude" in volume.metadata["remarks"]
    assert volume.grid == read_dicom_folder(tmp_path / "mr").grid
    make_series(tmp_path / "other", **MR | {"SeriesInstanceUID": SERIES + ".7"})
    assert "holds several MR series" in refusal(tmp_path)
    make_series(tmp_path / "other" / "echo", **MR | {"SeriesInstanceUID": SERIES + ".7"})
    assert "lie at the same position" in refusal(tmp_path / "other")


def test_mr_images_are_scaled_where_they_say_so(tmp_path):
    make_series(tmp_path, **MR, RescaleSlope=0.5, RescaleIntercept=2)
    assert np.array_equal(read_dicom_folder(tmp_path).array, stored_values() * np.float32(0.5) + 2)
    make_series(tmp_path / "ct", values=stored_values(2))
    volume = read_dicom_folder(tmp_path)
    assert (volume.unit, volume.grid.shape[0]) == ("HU", 2)
    assert "4 x MR" in volume.metadata["remarks"]


def test_an_index_is_passed_over(tmp_path):
    make_series(tmp_path)
    index = make_slice(stored_values(1)[0], AXIAL, ORIGIN_MM)
    index.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    del index.Modality
    index.save_as(tmp_path / "DICOMDIR")
    assert read_dicom_folder(tmp_path).grid.shape[0] == 4


def test_slices_without_the_dicom_mark(tmp_path):
    for path in make_series(tmp_path):
        data = pydicom.dcmread(path)
        bare = pydicom.Dataset(data)
        bare.save_as(path, implicit_vr=True, little_endian=True)
        assert b"DICM" not in path.read_bytes()[:200]
    assert np.array_equal(read_dicom_folder(tmp_path).array, stored_values().astype(int) - 1024)


def test_folders_without_ct_say_what_they_hold(tmp_path):
    assert "no DICOM files" in refusal(tmp_path)
    make_series(tmp_path, Modality="MR")
    assert "4 x MR" in refusal(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_dicom_folder(tmp_path / "none")


@pytest.mark.parametrize(
    "tag",
    [
        "Modality",
        "SeriesInstanceUID",
        "Rows",
        "PixelSpacing",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "RescaleSlope",
        "RescaleIntercept",
    ],
)
def test_missing_tags_are_named(tmp_path, tag):
    make_series(tmp_path, **{tag: None})
    message = refusal(tmp_path)
    assert f"IM000.dcm: lacks the DICOM tag {tag};" in message


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [
        ("PixelSpacing", [0.5], "2 finite numbers"),
        ("PixelSpacing", [0.0, 0.5], "positive"),
        ("ImagePositionPatient", [0, 0], "3 finite numbers"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "orthogonal"),
        ("ImageOrientationPatient", [0, 0, 0, 0, 1, 0], "orthogonal"),
        ("NumberOfFrames", 3, "multi-frame"),
        ("SamplesPerPixel", 3, "colour"),
    ],
)
def test_senseless_tags_are_named(tmp_path, tag, value, words):
    make_series(tmp_path, **{tag: value})
    assert words in refusal(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_named(tmp_path, share):
    paths = make_series(tmp_path)
    whole = paths[2].read_bytes()
    paths[2].write_bytes(whole[: int(share * len(whole))])
    assert re.search(rf"{paths[2].name}.*(truncated|repair)", refusal(tmp_path))


@pytest.mark.filterwarnings("ignore:.*")
def test_compressed_slices(tmp_path):
    values = stored_values(3, 32, 32)
    paths = make_series(tmp_path / "rle", values=values)
    for path in paths:
        data = pydicom.dcmread(path)
        data.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        data.save_as(path)
    assert np.array_equal(read_dicom_folder(tmp_path / "rle").array, values.astype(int) - 1024)
    paths[1].write_bytes(paths[1].read_bytes()[:-30])
    assert paths[1].name in refusal(tmp_path / "rle")


@pytest.mark.filterwarnings("ignore:.*")
def test_pixels_that_cannot_be_decoded_are_named(tmp_path):
    paths = make_series(tmp_path)
    data = pydicom.dcmread(paths[1])
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.PixelData = pydicom.encaps.encapsulate([b"no such code stream "])
    data["PixelData"].VR = "OB"
    data.save_as(paths[1])
    message = refusal(tmp_path)
    assert "cannot be decoded" in message
    assert "JPEG 2000" in message
