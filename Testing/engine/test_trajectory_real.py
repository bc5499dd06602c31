"""Measured scans along trajectories, where they are at hand: they open with the options that they need, and fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.io.scans import read_scan
from DiffusionMBIRLib.problems import build_problem
from DiffusionMBIRLib.scans import TrajectoryKSpace
from DiffusionMBIRLib.solvers.sense import sense_cg
from Testing.engine.test_kspace_real import raw

FOLDER = "kspace/noncartesian/"


def image(scan: TrajectoryKSpace, steps: int = 10) -> np.ndarray:
    problem = build_problem(scan, ReconSettings.preset("mri"), None, torch.device("cpu"))
    assert problem.approximate is not None
    x = sense_cg(problem.A, problem.y, lam=0.0, steps=steps, precondition=problem.approximate(0.0))
    return problem.to_volume(x, "picture", False).array[0]


def disc(shape: tuple[int, ...], radius: float) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(rows - shape[0] / 2, columns - shape[1] / 2) < radius


def test_echo_planar_lines_leave_no_ghost():
    pytest.importorskip("pypulseq")
    file, sequence = raw(f"{FOLDER}pulseq_epi_pe_on.dat"), raw(f"{FOLDER}pulseq_epi_pe_on.seq")
    read = read_scan(file, sequence=str(sequence))
    assert "a delay of 0.7" in " ".join(read.notes)
    found, ghosts = image(read), image(read_scan(file, sequence=str(sequence), delays="off"))
    body, air = disc(found.shape, 30), ~disc(found.shape, 42)
    assert found[air].mean() < 0.05 * found[body].mean()
    assert ghosts[air].mean() > 0.2 * ghosts[body].mean()
    with pytest.raises(InputError, match="it does not belong to these data"):
        read_scan(raw("kspace/siemens_gre.dat"), sequence=str(sequence))


@pytest.mark.slow
def test_half_the_arms_of_a_spiral_give_the_picture_of_all(tmp_path):
    file, path = raw(f"{FOLDER}octopus_rawdata_spiral.mat"), raw(f"{FOLDER}octopus_ktraj.npy")
    told = {"trajectory_unit": "1/m", "fov_mm": 240.0}
    whole = read_scan(file, trajectory=str(path), **told)
    assert (whole.geometry.pattern, whole.geometry.coils, whole.result_grid.in_plane) == ("spiral", 20, (120, 120))
    np.save(tmp_path / "scan.npy", whole.data[0, :, ::2])
    np.save(tmp_path / "k.npy", np.load(path)[:, ::2])
    half = read_scan(tmp_path / "scan.npy", trajectory="k.npy", **told)
    a, b = image(whole), image(half)
    assert np.linalg.norm(b * ((a * b).sum() / (b * b).sum()) - a) < 0.1 * np.linalg.norm(a)


def test_radial_ismrmrd_needs_no_option():
    read = read_scan(raw(f"{FOLDER}sigpy_brain_8ch_radial64_golden.h5"))
    assert (read.geometry.pattern, read.geometry.readouts, read.result_grid.shape) == ("radial", 64, (1, 256, 256))
    assert "the trajectory is in cycles/fov" in " ".join(read.notes)
