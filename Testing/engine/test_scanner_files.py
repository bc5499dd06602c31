"""Scanners' files, written by their own descriptions: every ray must read what the object says, nothing mirrored."""

from __future__ import annotations

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.geometry import ConeBeam, FanBeam, PosedBeam, Poses
from Testing.engine import ray_files as files
from Testing.engine.ray_files import BALLS, COLUMNS, PITCH, ROWS, SDD, SOD, expected
from Testing.engine.scans import told

AXIS = pytest.approx(15.5, abs=0.25)


def agrees(scan, balls=BALLS, atol=2e-3) -> None:
    """Every ray of the geometry that was understood reads the line integral that is there."""
    wanted = expected(scan.geometry, balls)
    assert wanted.max() > 0.3
    np.testing.assert_allclose(scan.data, wanted, atol=atol)


def moved(vectors: np.ndarray, balls=BALLS) -> np.ndarray:
    """Balls in a world whose x, y and z are these vectors of the other."""
    return np.concatenate([balls[:, :3] @ np.asarray(vectors, float).T, balls[:, 3:]], axis=1)


def refusal(path, **known) -> str:
    with pytest.raises(mbir.InputError) as caught:
        mbir.read(path, **known)
    text = str(caught.value)
    assert "\n" not in text
    return text


CONE = ConeBeam(tuple(np.arange(24) * 15.0), ROWS, COLUMNS, PITCH, PITCH, SOD, SDD, offset_mm=0.5, row_offset_mm=-0.4)
CONE_TEXT = (
    f'kind = "cone-beam"\nangles_deg = {{ first = 0.0, step = 15.0 }}\nsod_mm = {SOD}\nsdd_mm = {SDD}\n'
    f"pitch_mm = {PITCH}\noffset_mm = 0.5\nrow_offset_mm = -0.4"
)


def views_of(geometry, balls=BALLS) -> np.ndarray:
    return expected(geometry, balls).swapaxes(0, 1)


@pytest.mark.parametrize("place", ["file", "folder"])
def test_toml_beside_images(tmp_path, place):
    path = files.write_toml(tmp_path / "s", views_of(CONE), CONE_TEXT)
    scan = mbir.read(path if place == "file" else tmp_path / "s")
    assert scan.geometry == CONE
    assert scan.unit == "1/mm"
    agrees(scan)
    # What the detector sees at the axis: 32 columns and 22 rows of 0.6 mm.
    assert scan.grid.spacing_mm == pytest.approx((0.6, 0.6, 0.6))
    assert scan.grid.shape == (22, 32, 32)
    assert scan.grid.off_isocentre_mm[2] == pytest.approx(-0.4 * SOD / SDD, abs=0.02)


def test_toml_of_raw_numbers_flipped_with_a_grid_and_water(tmp_path):
    views_of(CONE)[:, ::-1, ::-1].astype(">f4").tofile(tmp_path / "p.raw")
    (tmp_path / "scan.toml").write_text(
        f'images = "p.raw"\nvalues = "line integrals"\nflip = "rows and columns"\nmu_water_per_mm = 0.05\n'
        f'photons = 1e5\n[raw]\nshape = [24, {ROWS}, {COLUMNS}]\ntype = "float32"\nbig_endian = true\n'
        f"[grid]\nshape = [8, 20, 20]\nspacing_mm = [1.0, 1.0, 1.5]\n[geometry]\n{CONE_TEXT}\n"
    )
    scan = mbir.read(tmp_path / "scan.toml")
    agrees(scan)
    assert (scan.unit, scan.mu_water_per_mm, scan.photons) == ("HU", 0.05, 1e5)
    assert scan.grid.shape == (8, 20, 20)


def test_toml_of_poses(tmp_path):
    poses = CONE.poses()
    listed = np.concatenate([poses.source, poses.centre, poses.u, poses.v], axis=1)
    np.savetxt(tmp_path / "poses.txt", listed)
    np.save(tmp_path / "p.npy", views_of(CONE))
    (tmp_path / "scan.toml").write_text(
        f'images = "p.npy"\n[geometry]\nkind = "posed-beam"\nposes = "poses.txt"\npitch_mm = {PITCH}\n'
    )
    agrees(mbir.read(tmp_path / "scan.toml"))


def test_toml_of_a_fan(tmp_path):
    fan = FanBeam(tuple(np.arange(40) * 9.0), COLUMNS, PITCH, SOD, SDD, 0.45)
    np.save(tmp_path / "p.npy", views_of(fan))
    (tmp_path / "a.txt").write_text("\n".join(str(9.0 * k) for k in range(40)))
    (tmp_path / "scan.toml").write_text(
        f'images = "p.npy"\n[geometry]\nkind = "fan-beam"\nangles_deg = "a.txt"\nsod_mm = {SOD}\nsdd_mm = {SDD}\n'
        f"pitch_mm = {PITCH}\n"
    )
    scan = mbir.read(tmp_path / "scan.toml")  # the offset, half a column, is found
    assert scan.geometry.offset_mm == pytest.approx(0.45, abs=0.25 * PITCH)
    assert "measured twice" in told(scan)


@pytest.mark.parametrize("sense", [1.0, -1.0])
def test_nikon_in_both_senses_of_rotation(tmp_path, sense):
    scan = mbir.read(files.write_xtekct(tmp_path, sense=sense), prepare="axis=on")
    agrees(scan, atol=0.02)  # the offset of the object is taken for one of the detector
    assert ("turned round" in told(scan)) == (sense < 0)


def test_bruker(tmp_path):
    scan = mbir.read(files.write_bruker(tmp_path))
    agrees(scan, atol=8e-3)
    assert scan.grid.spacing_mm[0] == pytest.approx(PITCH * SOD / SDD)


def test_cera(tmp_path):
    agrees(mbir.read(files.write_cera(tmp_path)), atol=8e-3)


def test_matrices_of_cera(tmp_path):
    """A tilted scanner, each view of its own, by projection matrices; the circle that the file tells does not count."""
    path = files.write_cera(tmp_path, views=24)
    poses, generator = CONE.poses(), np.random.default_rng(3)
    c, s = np.cos(0.03), np.sin(0.03)
    tilt = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    moved_by = generator.uniform(-0.3, 0.3, (24, 3))
    tilted = Poses(poses.centre @ tilt.T + moved_by, poses.u @ tilt.T, poses.v @ tilt.T, source=poses.source @ tilt.T)
    geometry = PosedBeam.of(tilted, ROWS, COLUMNS)
    files.write_matrices(tmp_path / "table.txt", geometry)
    files.write_tiffs(tmp_path, "p_", files.counts_of(views_of(geometry))[:, ::-1])
    text = path.read_text().replace("ScanAngle = 360", "ScanAngle = 200\nProjectionMatrixFilename = table.txt")
    path.write_text(text)
    scan = mbir.read(path)
    for name in ("sources_mm", "centres_mm"):
        np.testing.assert_allclose(getattr(scan.geometry, name), getattr(geometry, name), atol=1e-6)
    agrees(scan, atol=8e-3)
    (tmp_path / "table.txt").write_text((tmp_path / "table.txt").read_text().rpartition("@24")[0])
    assert "holds 23 matrices for 24 images" in refusal(path)


def test_leap(tmp_path):
    scan = mbir.read(files.write_leap(tmp_path))
    agrees(scan)
    assert mbir.read(tmp_path).geometry == scan.geometry


@pytest.mark.parametrize("tilted", [False, True])
def test_rtk(tmp_path, tilted):
    scan = mbir.read(files.write_rtk(tmp_path, tilted=tilted))
    assert ("posed-beam" if tilted else "cone-beam") == scan.geometry.KIND
    agrees(scan)


def test_ctsimu(tmp_path):
    scan = mbir.read(files.write_ctsimu(tmp_path))
    assert scan.geometry.sod_mm == pytest.approx(SOD)
    agrees(scan, moved([[0, -1, 0], [1, 0, 0], [0, 0, 1]]))
