"""Scans of cone beams, helices and poses: what is refused, kept in files, and reconstructed as any other."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import ConeBeam, Grid, HelicalCone, PosedBeam, view_angles
from DiffusionMBIRLib.operators import SliceDifference, footprints, projector
from DiffusionMBIRLib.scans import Measurement, same_scan
from DiffusionMBIRLib.solvers.cg import descend
from DiffusionMBIRLib.solvers.recycled import CirculantPreconditioner, RecycledGradient
from Testing.engine.cones import random_poses, scanners
from Testing.engine.helpers import body
from Testing.engine.jobs_helpers import small_prior

FAST = ReconSettings(
    method="admm-tv", tv_sweeps=12, tv_lam=1e-4, sirt_iterations=15, steps=2, start_sweeps=2, device="cpu"
)


# --- geometries


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sod_mm": 500.0, "sdd_mm": 400.0}, "sod_mm 500 must be smaller than geometry.sdd_mm 400.*are they swapped"),
        ({"angles_deg": (7.0, 7.0, 7.0)}, "holds 3 times 7: the scanner does not turn"),
        ({"shifts_mm": (1.0, 2.0)}, "geometry.shifts_mm holds 2 numbers for 3 views"),
        ({"rows": 0}, "geometry.rows must be a positive integer"),
        ({"roll_deg": float("nan")}, "geometry.roll_deg holds a value that is not finite"),
    ],
)
def test_cone_beams_that_cannot_be_are_one_line(given, said):
    fields = {"angles_deg": (0.0, 60.0, 120.0), "rows": 8, "columns": 8, "pitch_mm": 1.0, "row_pitch_mm": 1.0}
    with pytest.raises(InputError, match=said) as error:
        ConeBeam(**(fields | {"sod_mm": 300.0, "sdd_mm": 500.0} | given))
    assert "\n" not in str(error.value)


def test_a_helix_leaves_no_gaps():
    fields = ((0.0, 90.0), 8, 8, 1.0, 1.0, 300.0, 600.0)  # 4 mm high on the axis
    with pytest.raises(InputError, match="a pitch of 2.5 and leaves gaps.*at most 8 leaves none"):
        HelicalCone(*fields, travel_mm=10.0)
    with pytest.raises(InputError, match="the table does not move; use the geometry 'cone-beam'"):
        HelicalCone(*fields)
    assert HelicalCone(*fields, travel_mm=-4.0).pitch == -1.0


def test_a_helix_covers_the_grid_at_its_pitch():
    grid = Grid((30, 20, 20), (2.0, 2.0, 1.5), isocentre_mm=(19.0, 19.0, 0.0))
    helix = HelicalCone.covering(grid, view_angles(20, 360.0), rows=8, pitch=0.8)
    z = _sources(helix)[:, 2]
    assert helix.pitch == pytest.approx(0.8)
    assert helix.views_of_a_point == 25
    low, high = -0.75, 44.25  # of the grid, whose first slice is at the isocentre
    assert z.min() <= low - helix.travel_mm / 2 + 1
    assert z.max() >= high + helix.travel_mm / 2 - 1
    part = helix.take(slice(None, None, 2))
    np.testing.assert_allclose(_sources(part), _sources(helix)[::2])


def _sources(geometry: HelicalCone) -> np.ndarray:
    source = geometry.poses().source
    assert source is not None
    return source


def test_poses_that_cannot_be_are_one_line():
    good = random_poses(3, 30.0, 0)
    with pytest.raises(InputError, match="sources_mm has shape"):
        replace(good, sources_mm=good.sources_mm[:2])
    with pytest.raises(InputError, match="not at right angles in view"):
        replace(good, columns_along=good.rows_along)
    with pytest.raises(InputError, match="rows_along holds a vector of length 0"):
        replace(good, rows_along=0 * good.rows_along)
    with pytest.raises(InputError, match="the source lies in the detector's plane in view 0"):
        replace(good, centres_mm=good.sources_mm)
    with pytest.raises(InputError, match="columns_along of a curved detector are not square to its middle ray in view"):
        replace(good, arc=True)
    with pytest.raises(InputError, match="parallel beams"):
        PosedBeam.of(mbir.ParallelBeam((0.0, 1.0), 4, 1.0).poses(), 1, 4)


@pytest.mark.parametrize("name", scanners())
@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_files_keep_every_field(name, suffix, tmp_path):
    geometry = scanners()[name]
    data = np.random.default_rng(0).random(geometry.data_shape(7), dtype=np.float32)
    scan = Measurement(data, geometry, Grid((7, 9, 11), (1.5, 1.5, 2.0)), name="scan")
    scan.save(tmp_path / f"scan{suffix}")
    assert same_scan(mbir.read(tmp_path / f"scan{suffix}"), scan)


# --- reconstruction


@pytest.fixture(scope="module", params=["cone-beam", "helical", "posed-beam"])
def scan(request):
    return mbir.simulate(body((8, 32, 32)), scanner=request.param, views=20, angle_range_deg=360.0, photons=1e6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["admm-tv", "sirt"])
def test_classical_methods_reconstruct_them(scan, method):
    result = mbir.reconstruct(scan, settings=replace(FAST, method=method))
    truth = mbir.truth_for(body((8, 32, 32))).array
    assert result.residual < 0.1
    assert np.corrcoef(result.volume.array.ravel(), truth.ravel())[0, 1] > 0.97


@pytest.mark.slow
def test_samplers_and_posterior_samples_run_on_them(scan, tmp_path):
    settings = replace(FAST, method="dds", preconditioner=0.1, cg_steps=2, samples=2, prior=str(small_prior(tmp_path)))
    result = mbir.reconstruct(scan, settings=settings)
    assert result.nfe == 4
    assert np.isfinite(result.volume.array).all()
    assert float(result.deviation.array.max()) > 0


def test_methods_that_work_slice_by_slice_refuse(scan):
    with pytest.raises(InputError, match="'score-ct' works slice by slice, but slices mix.*use one of .*dds") as error:
        mbir.reconstruct(scan, settings=replace(FAST, method="score-ct"))
    assert "fbpconvnet" not in str(error.value)


def test_a_result_tells_that_a_kernel_was_missing(scan, monkeypatch):
    monkeypatch.setattr(footprints, "find_spec", lambda name: None)
    few = replace(scan, data=scan.data[:, :2], geometry=scan.geometry.take([0, 1]))
    result = mbir.reconstruct(few, settings=replace(FAST, method="sirt", sirt_iterations=1))
    assert result.provenance["remarks"] == [footprints.SLOW]
    assert "numba" in json.loads(result.volume.metadata["provenance"])["remarks"][0]


@pytest.mark.parametrize(("kind", "share"), [(ConeBeam, 0.6), (HelicalCone, 0.75)])
def test_the_preconditioner_speeds_conjugate_gradient_up(kind, share):
    volume = body((24, 24, 24))
    geometry = kind.covering(volume.grid, view_angles(20, 360.0))
    A = projector(geometry, volume.grid)
    A = A.scaled(1 / A.norm())
    D, rho = SliceDifference(A.domain), 0.01
    rhs = A.adjoint(A.forward(torch.from_numpy(volume.array.astype(np.float32) / 1000 + 1)))

    def system(p: torch.Tensor) -> torch.Tensor:
        return D.add_gram_to(A.gram(p), p, rho)

    def left(x: torch.Tensor) -> float:
        return float((rhs - system(x)).norm() / rhs.norm())

    steps = 3
    plain = descend(system, rhs.clone(), A.domain.zeros(), steps=steps)
    solver = RecycledGradient(CirculantPreconditioner(A, 0.1, rho, mixed=True))
    ours = solver(system, rhs.clone(), A.domain.zeros(), steps=steps)
    assert left(ours) < share * left(plain)
