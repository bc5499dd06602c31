"""DICOM folders whose values would be wrong in silence, and files of other kinds beside a series."""

from __future__ import annotations

import contextlib

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    EnhancedSRStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from DiffusionMBIRLib.errors import EngineError, InputError
from DiffusionMBIRLib.io.dicom import read_dicom_folder
from Testing.engine.test_dicom import AXIAL, ORIGIN_MM, SERIES, change, make_series, make_slice, refusal, stored_values

HU = stored_values().astype(int) - 1024
GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept")


@pytest.mark.parametrize(("signed", "bits"), [(0, 12), (0, 16), (1, 16)])
@pytest.mark.parametrize("slope", [1, 0.5])
@pytest.mark.filterwarnings("ignore:.*")
def test_inverted_display_does_not_invert_hu(tmp_path, signed, bits, slope):
    values = stored_values()
    tags = {"PixelRepresentation": signed, "BitsStored": bits, "HighBit": bits - 1, "RescaleSlope": slope}
    paths = make_series(tmp_path, values=values, PhotometricInterpretation="MONOCHROME1", **tags)
    for path in paths[:2]:  # compressed slices are decoded on another way
        data = pydicom.dcmread(path)
        data.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        data.save_as(path)
    volume = read_dicom_folder(tmp_path)
    np.testing.assert_array_equal(volume.array, values.astype(float) * slope - 1024)
    assert "MONOCHROME1" in volume.metadata["remarks"]


@pytest.mark.parametrize("kind", ["MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT"])
def test_values_that_are_no_hu(tmp_path, kind):
    make_series(tmp_path / "map", RescaleType=kind, SeriesInstanceUID=SERIES + ".5")
    assert f"RescaleType {kind}" in refusal(tmp_path)
    make_series(tmp_path / "ct", values=stored_values())
    volume = read_dicom_folder(tmp_path)  # as many slices, but only these are in HU
    np.testing.assert_array_equal(volume.array, HU)
    assert "4 x image of series 3" in volume.metadata["remarks"]


@pytest.mark.parametrize("kind", ["HU", "US", None])
def test_values_that_are_hu(tmp_path, kind):
    make_series(tmp_path, **({"RescaleType": kind} if kind else {}))
    np.testing.assert_array_equal(read_dicom_folder(tmp_path).array, HU)


def test_a_slope_of_zero(tmp_path):
    make_series(tmp_path, RescaleSlope=0)
    assert "RescaleSlope is 0" in refusal(tmp_path)


def other(folder, kind, **tags):
    data = make_slice(stored_values(1)[0], AXIAL, ORIGIN_MM)
    data.SeriesInstanceUID, data.SOPClassUID, data.file_meta.MediaStorageSOPClassUID = SERIES + ".9", kind, kind
    for tag in GEOMETRY:
        delattr(data, tag)
    for tag, value in tags.items():
        setattr(data, tag, value)
    return data


@pytest.mark.parametrize("same_series", [False, True])
def test_screenshots_and_reports_are_passed_over(tmp_path, same_series):
    make_series(tmp_path)
    report = other(tmp_path, EnhancedSRStorage, Modality="SR")
    del report.PixelData, report.Rows, report.Columns
    colour = other(tmp_path, SecondaryCaptureImageStorage, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    colour.PlanarConfiguration, colour.BitsAllocated, colour.BitsStored, colour.HighBit = 0, 8, 8, 7
    colour.PixelData = bytes(3 * 30)
    nameless = other(tmp_path, SecondaryCaptureImageStorage)
    del nameless.Modality
    for name, data in {"report": report, "colour": colour, "grey": nameless}.items():
        data.SeriesInstanceUID = SERIES if same_series else SERIES + ".9"
        data.save_as(tmp_path / f"{name}.dcm", enforce_file_format=True)
    volume = read_dicom_folder(tmp_path)
    np.testing.assert_array_equal(volume.array, HU)
    assert "1 x SR" in volume.metadata["remarks"]
    assert "2 x Secondary Capture" in volume.metadata["remarks"]


def test_an_image_of_another_series_without_geometry_is_passed_over(tmp_path):
    make_series(tmp_path)
    data = make_slice(stored_values(1)[0], AXIAL, ORIGIN_MM)
    data.SeriesInstanceUID = SERIES + ".9"
    for tag in GEOMETRY:
        delattr(data, tag)
    data.save_as(tmp_path / "screen.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_dicom_folder(tmp_path).array, HU)


@pytest.mark.parametrize("missing", [2, 20, 58])
def test_short_pixels_are_named(tmp_path, missing):
    paths = make_series(tmp_path)
    change(paths[2], PixelData=stored_values()[2].astype("<u2").tobytes()[:-missing])
    message = refusal(tmp_path)
    assert f"{paths[2].name}: its pixels are {60 - missing} bytes" in message


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("compressed", [False, True])
def test_a_header_that_announces_what_is_not_there(tmp_path, compressed):
    for path in make_series(tmp_path):
        data = pydicom.dcmread(path)
        if compressed:
            data.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        data.Rows = data.Columns = 65535
        data.save_as(path)
    with pytest.raises((InputError, EngineError), match=r"IM\d+\.dcm: (its pixels are|needs .* GB)"):
        read_dicom_folder(tmp_path)


def test_a_spacing_that_cannot_be_right(tmp_path):
    make_series(tmp_path, PixelSpacing=[0.001, 1000.0])
    assert "cannot be right" in refusal(tmp_path)


@pytest.mark.filterwarnings("ignore:.*")
def test_damage_is_told_in_one_line(tmp_path, capfd):
    """Decoders and parsers have complaints of their own; the error is the only line."""
    rng = np.random.default_rng(0)
    for trial in range(12):
        folder = tmp_path / str(trial)
        paths = make_series(folder)
        if trial % 2:
            data = pydicom.dcmread(paths[1])
            data.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
            data.save_as(paths[1])
        content = bytearray(paths[1].read_bytes())
        for place in rng.integers(132, len(content), 12):
            content[place] = rng.integers(256)
        paths[1].write_bytes(content)
        with contextlib.suppress(InputError):
            read_dicom_folder(folder)
    assert capfd.readouterr() == ("", "")
