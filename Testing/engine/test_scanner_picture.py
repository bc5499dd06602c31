"""The picture of a scanner: its lines stand where the poses and the grid say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.geometry import ConeBeam, FanBeam, Grid, HelicalCone, ParallelBeam, view_angles
from DiffusionMBIRLib.scanner_picture import outlines
from Testing.engine.helpers import body

GRID = Grid((10, 40, 50), (2.0, 1.5, 3.0), isocentre_mm=(40.0, 30.0, 10.0))
ANGLES = view_angles(12, 360.0, start_deg=20.0)
SCANNERS: dict[str, Any] = {
    "parallel": ParallelBeam.covering(GRID, ANGLES),
    "fan": FanBeam.covering(GRID, ANGLES, sod_mm=200.0, sdd_mm=300.0),
    "arc": replace(FanBeam.covering(GRID, ANGLES, sod_mm=200.0, sdd_mm=300.0, arc=True), offset_mm=20.0),
    "cone": ConeBeam.covering(GRID, ANGLES[::-1], sod_mm=200.0, sdd_mm=300.0),
    "helix": HelicalCone.covering(GRID, ANGLES, sod_mm=200.0, sdd_mm=300.0),
}


@pytest.mark.parametrize("name", SCANNERS)
def test_lines_stand_where_the_poses_say(name):
    geometry = SCANNERS[name]
    found = outlines(geometry, GRID)
    corners = np.concatenate(found.volume)
    np.testing.assert_allclose((corners.min(0) + corners.max(0)) / 2, GRID.off_isocentre_mm, atol=1e-9)
    np.testing.assert_allclose(np.ptp(corners, axis=0), (100.0, 60.0, 30.0))
    first = found.detectors[0]
    np.testing.assert_array_equal(first[0], first[-1])  # closed
    height = 30.0 if geometry.STACKED else geometry.rows * geometry.row_pitch_mm
    assert np.ptp(first[:, 2]) == pytest.approx(height)
    if name == "parallel":
        assert len(found.path) == 0
        return
    assert len(found.path) == geometry.views
    np.testing.assert_allclose(np.hypot(found.path[:, 0], found.path[:, 1]), 200.0)
    assert np.ptp(found.path[:, 2]) == pytest.approx(abs(geometry.turns * geometry.travel_mm) if name == "helix" else 0)
    angle = np.radians(geometry.angles_deg[0])
    source = found.rays[0][0]
    np.testing.assert_allclose(source[:2], [200 * np.sin(angle), -200 * np.cos(angle)], atol=1e-9)
    away = first[:-1, :2] - source[:2]
    if geometry.arc:
        np.testing.assert_allclose(np.hypot(*away.T), 300.0)
    else:
        np.testing.assert_allclose(away @ [-np.sin(angle), np.cos(angle)], 300.0)
    # The whole grid lies between the outer rays of a detector that covers it.
    if name == "fan":
        left, right = (ray[1][:2] - source[:2] for ray in found.rays[:2])
        for corner in corners[:, :2] - source[:2]:
            assert np.cross([*left, 0], [*corner, 0])[2] * np.cross([*right, 0], [*corner, 0])[2] < 0


@pytest.mark.slow
def test_info_draws_a_file_s_scanner(tmp_path, capsys):
    mbir.simulate(body(), scanner="fan", views=6).save(tmp_path / "scan.h5")
    picture = tmp_path / "scan.png"
    assert main(["info", str(tmp_path / "scan.h5"), "--picture", str(picture), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["picture"] == str(picture)
    assert (told["geometry"], told["views"]) == ("fan-beam", 6)
    assert picture.stat().st_size > 10_000
    body().save(tmp_path / "body.nrrd")
    for words in ([str(tmp_path / "body.nrrd")], []):
        assert main(["info", *words, "--picture", str(picture)]) == 2
        assert "--picture: " in capsys.readouterr().err
