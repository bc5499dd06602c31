"""What several tests need: volumes with known content, and a disk that is full for a child process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from DiffusionMBIRLib.geometry import FanBeam, Grid
from DiffusionMBIRLib.volume import Volume

ROOT = Path(__file__).resolve().parents[2]


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """A 3 x 3 rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        turn = np.eye(3)
        first, second = [i for i in range(3) if i != axis]
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def body(shape: tuple[int, int, int] = (4, 32, 32), spacing_mm: tuple[float, float, float] = (2.0, 2.0, 3.0)) -> Volume:
    """A smooth, asymmetric body in air, int16 HU; no two slices are alike."""
    slices, rows, columns = shape
    z, y, x = np.meshgrid(
        np.arange(slices), np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij", sparse=True
    )
    hu = np.full(shape, -1000.0)
    hu += 1020.0 / (1 + np.exp(20 * ((x / 0.75) ** 2 + (y / 0.6) ** 2 - 1)))
    hu += (600.0 + 40.0 * z) * np.exp(-(((x - 0.3) / 0.15) ** 2) - ((y + 0.2) / 0.2) ** 2)
    return Volume(np.rint(hu).astype(np.int16), Grid(shape, spacing_mm, (-30.0, -31.0, 5.0)), name="body")


def run_with_file_limit(code: str, limit_bytes: int) -> str:
    """The output of Python code in a process whose files cannot outgrow the limit: to the writer, a full disk."""
    pytest.importorskip("resource", reason="this system cannot limit the size of files")
    start = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))\n"
    environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1")
    done = subprocess.run(
        [sys.executable, "-c", start + code], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def fan_rays(geometry: FanBeam, view: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Source (2,) and unit directions (n, 2) of the rays to places s (mm) on the detector, by FanBeam's words."""
    theta = np.radians(geometry.angles_deg[view])
    ahead, across = np.array([-np.sin(theta), np.cos(theta)]), np.array([np.cos(theta), np.sin(theta)])
    angle = places / geometry.sdd_mm if geometry.arc else np.arctan2(places, geometry.sdd_mm)
    return -geometry.sod_mm * ahead, np.cos(angle)[:, None] * ahead + np.sin(angle)[:, None] * across


def fan_chords(geometry: FanBeam, middle: Any, axes: Any, turn_deg: float) -> np.ndarray:
    """Lengths of the rays to the columns' middles inside an ellipse (views, columns), by the quadratic equation."""
    c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    to_unit = np.array([[c, s], [-s, c]]) / np.asarray(axes)[:, None]
    places = (np.arange(geometry.columns) - (geometry.columns - 1) / 2) * geometry.pitch_mm + geometry.offset_mm
    lengths = []
    for view in range(geometry.views):
        source, direction = fan_rays(geometry, view, places)
        p, d = to_unit @ (source - np.asarray(middle)), direction @ to_unit.T
        a, b, q = (d * d).sum(1), d @ p, p @ p - 1
        lengths.append(2 * np.sqrt(np.maximum(b * b - a * q, 0)) / a)
    return np.array(lengths)
