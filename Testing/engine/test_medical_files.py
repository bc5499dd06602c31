"""DICOM-CT-PD, NXtomo, Zeiss and the challenge's files: every ray must read what the object says."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.geometry import ConeBeam, FanBeam, ParallelBeam
from DiffusionMBIRLib.scans import HOLED_DISC
from Testing.engine import medical_files as files
from Testing.engine.ray_files import COLUMNS, PITCH, ROWS, SDD, SOD, expected
from Testing.engine.scans import told
from Testing.engine.test_scanner_files import agrees, refusal

PARALLEL = ParallelBeam(tuple(np.arange(60) * 3.0), COLUMNS, 0.6, 0.9)


@pytest.mark.parametrize("shape", ["CYLINDRICAL", "FLAT"])
def test_ct_pd_on_a_circle(tmp_path, shape):
    photons = np.linspace(1e4, 5e4, COLUMNS)
    scan = mbir.read(files.write_ct_pd(tmp_path, shape=shape, photons=photons))
    agrees(scan)
    assert scan.geometry.KIND == "cone-beam"
    assert scan.geometry.arc == (shape == "CYLINDRICAL")
    assert (scan.unit, scan.mu_water_per_mm) == ("HU", pytest.approx(files.WATER))
    # Photons by column, which lie the other way round than ours.
    given = scan.photons * scan.photon_profile[0, 0]
    np.testing.assert_allclose(given, photons[::-1], rtol=1e-5)


def test_ct_pd_on_a_helix(tmp_path):
    scan = mbir.read(files.write_ct_pd(tmp_path, 96, turns=2, travel=9.0))
    assert scan.geometry.KIND == "helical"
    assert scan.geometry.travel_mm == pytest.approx(9.0)
    agrees(scan)


@pytest.mark.parametrize("travel", [0.0, 9.0])
def test_ct_pd_with_a_flying_focal_spot(tmp_path, travel):
    scan = mbir.read(files.write_ct_pd(tmp_path, turns=1.5 if travel else 1.0, travel=travel, flying=True))
    assert scan.geometry.KIND == "posed-beam"
    # The detector is curved about the focal centre, which the source leaves by 0.6 mm: a tenth of a column at most.
    agrees(scan, atol=0.02)


def test_ct_pd_that_is_incomplete(tmp_path):
    folder = files.write_ct_pd(tmp_path, 6)
    one = sorted(folder.glob("*.dcm"))[3]
    content = one.read_bytes()
    one.write_bytes(content[: len(content) // 2])
    assert one.name in refusal(folder)
    one.write_bytes(next(iter(folder.glob("00001.dcm"))).read_bytes())
    assert "InstanceNumber" in refusal(folder)


@pytest.mark.parametrize(("linked", "virtual"), [("", False), ("frames.h5", False), ("frames.h5", True)])
def test_nxtomo(tmp_path, linked, virtual):
    lines = files.write_nxtomo(tmp_path / "a.nxs", PARALLEL, drift=0.2, linked=linked, virtual=virtual)
    scan = mbir.read(tmp_path / "a.nxs")
    np.testing.assert_allclose(scan.data, lines, atol=5e-3)
    assert scan.geometry.pitch_mm == pytest.approx(0.6)
    assert scan.geometry.offset_mm == pytest.approx(0.9, abs=0.25 * 0.6)
    assert "centre of mass" in told(scan)


def test_nxtomo_reads_no_file_of_another_folder(tmp_path):
    (tmp_path / "here").mkdir()
    files.write_nxtomo(tmp_path / "here" / "a.nxs", PARALLEL, linked="frames.h5")
    os.rename(tmp_path / "here" / "frames.h5", tmp_path / "frames.h5")
    with h5py.File(tmp_path / "here" / "a.nxs", "a") as file:
        place = "entry1/tomo_entry/instrument/detector/data"
        del file[place]
        file[place] = h5py.ExternalLink("../frames.h5", "frames")
    assert "another folder" in refusal(tmp_path / "here" / "a.nxs")


def test_zeiss(tmp_path):
    pytest.importorskip("olefile")
    cone = ConeBeam(tuple(np.arange(40) * 9.0), ROWS, COLUMNS, PITCH, PITCH, SOD, SDD, 0.45)
    lines = files.write_txrm(tmp_path / "a.txrm", cone)
    scan = mbir.read(tmp_path / "a.txrm")
    np.testing.assert_allclose(scan.data, lines, atol=2e-3)
    assert scan.geometry.sdd_mm == pytest.approx(SDD)
    assert scan.geometry.offset_mm == pytest.approx(0.45, abs=0.25 * PITCH)
    (tmp_path / "a.txrm").write_bytes((tmp_path / "a.txrm").read_bytes()[:30000])
    assert "a.txrm" in refusal(tmp_path / "a.txrm")


def test_helsinki(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    angles = np.arange(0, 90, 3.0)
    parameters = {
        "distanceSourceOrigin": 410.66, "distanceSourceDetector": 553.74, "pixelSizePost": 0.2, "angles": angles,
        "effectivePixelSizePost": 0.1483, "scanner": "ours",
    }  # fmt: skip
    sinogram = np.outer(np.ones(30), 1 - np.linspace(-1, 1, 64) ** 4) + np.linspace(0, 0.01, 64)
    for compressed in (False, True):
        content = {"CtDataLimited": {"type": "2d", "sinogram": sinogram, "parameters": parameters}}
        scipy_io.savemat(tmp_path / "a.mat", content, do_compression=compressed)
        scan = mbir.read(tmp_path / "a.mat")
        np.testing.assert_allclose(scan.data[0], sinogram[:, ::-1], atol=1e-6)
        assert scan.geometry.angles_deg == pytest.approx(tuple(180 - angles))
        assert scan.grid.shape == (1, 512, 512)
        assert scan.unit == "1/mm"
    del parameters["angles"]
    scipy_io.savemat(tmp_path / "b.mat", {"CtDataFull": {"sinogram": sinogram, "parameters": parameters}})
    assert "parameters.angles" in refusal(tmp_path / "b.mat")


def test_the_disc_of_helsinki(tmp_path):
    """Counts of a hardening beam behind a disc of acrylic with a hole: the disc is found, its lines become straight."""
    scipy_io = pytest.importorskip("scipy.io")
    fan = FanBeam(tuple(np.arange(40, 71, 1.0)), 560, 0.2, 410.66, 553.74)
    centre = np.array([0.8, -0.5])
    lengths = expected(fan, np.array([(*centre, 0.0, 35.0, 1.0), (6.0, 3.0, 0.0, 8.0, -1.0)]))[0]
    thickness = np.polynomial.Polynomial([0, 26.347, -4.593, 3.206])
    table = np.linspace(0, 2.6, 4000)
    sinogram = np.interp(lengths, thickness(table), table)[:, ::-1] + 0.013  # and some that the beam has lost
    parameters = {
        "distanceSourceOrigin": 410.66, "distanceSourceDetector": 553.74, "pixelSizePost": 0.2,
        "angles": 180.0 - np.array(fan.angles_deg), "effectivePixelSizePost": 0.2 * 410.66 / 553.74,
    }  # fmt: skip
    scipy_io.savemat(tmp_path / "a.mat", {"CtDataLimited": {"sinogram": sinogram, "parameters": parameters}})
    scan = mbir.read(tmp_path / "a.mat")
    np.testing.assert_allclose(scan.data[0], 0.038 * lengths, atol=2e-4)
    most = scan.most_per_mm[0]
    x, y = (np.arange(512) - 255.5) * scan.grid.spacing_mm[0], (np.arange(512) - 255.5) * scan.grid.spacing_mm[0]
    found = (most.sum(0) @ x / most.sum(), most.sum(1) @ y / most.sum())
    assert found == pytest.approx(tuple(centre), abs=0.05)
    assert most.max() == pytest.approx(0.038)
    assert most.sum() * scan.grid.spacing_mm[0] ** 2 == pytest.approx(0.038 * np.pi * 35.0**2, rel=1e-3)
    rim = np.pi * (34.5**2 - 32.0**2) * 0.93 * 0.038
    assert scan.least_per_mm.sum() * scan.grid.spacing_mm[0] ** 2 == pytest.approx(rim, rel=1e-3)
    assert scan.mu_water_per_mm == pytest.approx(0.038)  # what the prior of such discs takes for its material
    assert any("0.038 / mm, the object's material" in line for line in scan.provenance["guessed"])
    assert scan.provenance["object"] == HOLED_DISC
    plain = mbir.read(tmp_path / "a.mat", prepare="object=off")
    assert "object" not in plain.provenance
    assert plain.most_per_mm is None
    np.testing.assert_allclose(plain.data[0], sinogram[:, ::-1], atol=1e-5)
