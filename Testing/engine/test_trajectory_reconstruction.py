"""Scans along trajectories from a known volume to a reconstruction, with every method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.metrics import psnr
from DiffusionMBIRLib.models import MR_VALUE
from DiffusionMBIRLib.operators import SliceDifference
from DiffusionMBIRLib.operators.gridding import DirectTransform
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.problems import build_problem
from DiffusionMBIRLib.problems.trajectory import with_estimated_maps
from DiffusionMBIRLib.reconstruction import reconstruct
from DiffusionMBIRLib.scans import TrajectoryKSpace
from DiffusionMBIRLib.simulation.mr import coil_maps, smooth_phase
from DiffusionMBIRLib.solvers.consistency import ZTVConsistency
from DiffusionMBIRLib.solvers.recycled import RecycledGradient
from DiffusionMBIRLib.tasks import MR_TASK
from DiffusionMBIRLib.volume import Volume

SIDE, SLICES, COILS = 48, 3, 4


def head() -> Volume:
    z, y, x = np.ogrid[-1 : 1 : SLICES * 1j, -1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    body = 1.0 * (x**2 / 0.55 + y**2 / 0.7 < 1) - 0.4 * ((x - 0.2) ** 2 + (y + 0.1 * z) ** 2 < 0.08)
    array = 100 * (body + 0.5 * (x**2 + (y - 0.4) ** 2 < 0.02))
    return Volume(array.astype(np.float32), Grid((SLICES, SIDE, SIDE)), "")


def scan(**changes) -> TrajectoryKSpace:
    options = {"trajectory": "radial", "spokes": 80, "coils": COILS, "phase": True, "noise": 0.002, **changes}
    made = mbir.simulate(head(), task=MR_TASK, **options)
    assert isinstance(made, TrajectoryKSpace)
    return made


def settings(**changes) -> ReconSettings:
    return replace(ReconSettings.preset("mri"), **changes)


def quality(result) -> float:
    truth = head().array[: len(result.volume.array)]
    return float(psnr(result.volume.array, truth, float(np.ptp(truth))))


def test_simulated_samples_are_the_definition_of_the_transform():
    made, truth = scan(noise=0.0, spokes=6), head()
    seen = truth.array[1] * np.exp(1j * smooth_phase(truth.grid, 0)[1]) * coil_maps(truth.grid, COILS)[1]
    wanted = DirectTransform(made.geometry.points, (SIDE, SIDE)).forward(torch.from_numpy(seen))
    np.testing.assert_allclose(made.data[1].reshape(COILS, -1), wanted, atol=1e-5 * float(wanted.abs().max()))


def test_simulated_trajectories():
    assert scan().geometry.points.shape == (80, 2 * SIDE, 2)
    assert scan(spokes=0).geometry.readouts == 64
    arms = scan(trajectory="spiral", spokes=None, arms=7)
    assert (arms.geometry.pattern, arms.geometry.readouts) == ("spiral", 7)
    for wrong, message in (
        ({"trajectory": "cartesian"}, "setting spokes: is of the trajectory radial, not cartesian"),
        ({"arms": 3}, "setting arms: is of the trajectory spiral, not radial"),
        ({"trajectory": "rosette"}, "setting trajectory: 'rosette' is not one of"),
        ({"mask": np.ones((SIDE, SIDE), bool)}, "setting mask: is of Cartesian k-space"),
    ):
        with pytest.raises(InputError, match=message):
            scan(**wrong)


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({"method": "zero-filled"}, 22),
        ({"method": "sense-cg", "cg_iterations": 12, "cg_lam": 0.0}, 27),
        ({"method": "admm-tv", "tv_lam": 5e-4, "tv_sweeps": 15}, 35),
    ],
)
def test_classical_methods_on_a_full_scan_with_estimated_maps(changes, least):
    result = reconstruct(scan(), settings=settings(**changes))
    assert quality(result) > least
    assert result.volume.array.shape == (SLICES, SIDE, SIDE)


@pytest.mark.slow
def test_wavelets_by_sigpy():
    pytest.importorskip("sigpy")
    made = replace(scan(), maps=coil_maps(head().grid, COILS))
    made = replace(
        made, data=made.data[:1], maps=coil_maps(head().grid, COILS)[:1], grid=replace(made.grid, shape=(1, SIDE, SIDE))
    )
    assert quality(reconstruct(made, settings=settings(method="espirit-l1", l1_lam=1e-3))) > 27


@pytest.mark.parametrize("method", ["dual", "dds", "mbir", "score-mri"])
def test_samplers(method):
    """With a prior that knows little, the data decide; samples give a mean and a deviation."""
    made = replace(scan(), maps=coil_maps(head().grid, COILS))
    prior = GaussianPrior(0.5, 0.5, value=MR_VALUE)
    given = settings(method=method, steps=4, samples=2 if method == "dual" else 1, cg_steps=4)
    result = reconstruct(made, prior=prior, settings=given)
    assert np.isfinite(result.volume.array).all()
    if method in ("dual", "dds"):
        assert quality(result) > 17
    assert (result.deviation is not None) == (method == "dual")


def test_strengths_refer_to_samples_and_balanced_data_have_a_norm_near_one():
    made = replace(scan(), maps=coil_maps(head().grid, COILS))
    problem = build_problem(made, settings(), None, torch.device("cpu"))
    assert problem.balanced is not None
    assert problem.A.norm() > 3
    assert 0.8 < problem.balanced[0].norm() < 1.8


def test_preconditioned_steps_come_nearer_to_the_volume_than_plain_ones():
    made = replace(scan(spokes=40), maps=coil_maps(head().grid, COILS))
    problem = build_problem(made, settings(), None, torch.device("cpu"))
    assert problem.approximate is not None
    start = torch.zeros(problem.A.domain.shape, dtype=torch.complex64)
    options = {"difference": SliceDifference(problem.A.domain), "rho": 0.0, "lam": 0.0, "noise": problem.noise}
    plain = ZTVConsistency(problem.A, problem.y, cg_steps=3, **options)
    quick = ZTVConsistency(
        problem.A, problem.y, cg_steps=3, solver=RecycledGradient(problem.approximate(0.0)), **options
    )
    best = head().array / problem.unit
    found = [float(np.square(fit(start.clone(), 0.2).abs().numpy() - best).mean()) for fit in (quick, plain)]
    assert found[0] < 0.5 * found[1]


def test_maps_come_from_the_middle_of_the_trajectory():
    made, grid = scan(noise=0.0), head().grid
    found = with_estimated_maps(made, 0, torch.device("cpu")).maps
    wanted = coil_maps(grid, COILS)
    inside = head().array > 20
    agreement = np.abs((found.conj() * wanted).sum(1))[inside] / np.linalg.norm(found, axis=1)[inside]
    assert float(np.quantile(agreement, 0.05)) > 0.98
    assert with_estimated_maps(made, 2, torch.device("cpu")).data.shape[1] == 2


def test_what_is_not_for_trajectories_is_refused():
    with pytest.raises(InputError, match="setting published: the papers' code is for Cartesian k-space"):
        reconstruct(scan(), settings=settings(method="sense-cg", published=True))
    inner = scan()
    inner = replace(inner, geometry=replace(inner.geometry, points=inner.geometry.points * 0.1))
    with pytest.raises(InputError, match="reaches 2.4 cycles per field of view only"):
        reconstruct(inner, settings=settings(method="sense-cg"))


def test_long_readouts_are_remarked():
    made = scan()
    made = replace(made, geometry=replace(made.geometry, dwell_us=100.0), maps=coil_maps(head().grid, COILS))
    result = reconstruct(made, settings=settings(method="zero-filled"))
    assert "readouts of 9.6 ms" in " ".join(result.provenance["remarks"])
