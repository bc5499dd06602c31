"""Volumes and data that are large: groups of views, memory maps, slabs of a grid, and what an estimate says of them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import streaming
from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import EngineError, InputError
from DiffusionMBIRLib.estimate import estimate
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.io import hdf5, volumes
from DiffusionMBIRLib.many import devices_asked
from DiffusionMBIRLib.operators import Space, projector
from DiffusionMBIRLib.operators.base import RowWeighted
from DiffusionMBIRLib.operators.by_views import ByViews, Unseen
from DiffusionMBIRLib.operators.footprints import ConeTransform
from DiffusionMBIRLib.operators.slabs import WHOLE, Slabs, bounds_of
from DiffusionMBIRLib.problems import ct
from DiffusionMBIRLib.scans import same_scan
from DiffusionMBIRLib.scans.slabs import slab_of_projections
from Testing.engine import mri
from Testing.engine.cones import GRID, scanners
from Testing.engine.helpers import body
from Testing.engine.operators_contract import assert_operator


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


FAST = ReconSettings(method="admm-tv", tv_sweeps=3, device="cpu")


def by_views(at_once: int = 3) -> tuple[ByViews, torch.Tensor]:
    """A cone beam of four views in two groups, with weights, and these."""
    geometry = scanners()["flat"]
    groups = [geometry.take(slice(start, start + at_once)) for start in range(0, geometry.views, at_once)]
    A = ByViews([projector(group, GRID, dtype=torch.float64) for group in groups], WHOLE)
    weights = A.range.laid_out(random(*A.range.shape, seed=3).abs())
    return A.with_weights(weights), weights


def test_groups_of_views_make_the_whole_operator():
    A, weights = by_views()
    assert_operator(A, "by views")
    whole = RowWeighted(projector(scanners()["flat"], GRID, dtype=torch.float64), weights)
    x, y = random(*GRID.shape), random(*A.range.shape, seed=2)
    before = y.clone()
    for ours, expected in (
        (A.forward(x), whole.forward(x)),
        (A.adjoint(y), whole.adjoint(y)),
        (A.gram(x), whole.gram(x)),
        (A.gradient(x, y), whole.gradient(x, y)),
        (A.gradients(y)(x), whole.gradient(x, y)),
        (A.distance(x, y), whole.distance(x, y)),
        (A.scaled(0.3).gram(x), 0.09 * whole.gram(x)),
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-11)
    assert torch.equal(y, before)


@pytest.mark.slow
def test_a_scan_in_groups_of_views_gives_the_same_volume(monkeypatch):
    scan = mbir.simulate(body(), scanner="cone-beam", views=9, photons=1e5)
    whole = mbir.reconstruct(scan, settings=FAST)
    monkeypatch.setattr(streaming, "AT_ONCE_BYTES", scan.data.nbytes / 3)
    problem = ct.ct_problem(scan, FAST, None, torch.device("cpu"))
    assert isinstance(problem.A, ByViews)
    parts = mbir.reconstruct(scan, settings=FAST)
    np.testing.assert_allclose(parts.volume.array, whole.volume.array, atol=0.02)  # HU


def test_views_that_see_nothing_of_a_slab_count_as_zero(monkeypatch):
    """Of a helix most views do not see its first slices."""
    scan = mbir.simulate(body((12, 16, 16)), scanner="helical", views=12, pitch=0.5)
    part = slab_of_projections(scan, slice(0, 3))
    monkeypatch.setattr(streaming, "AT_ONCE_BYTES", scan.data.nbytes / scan.geometry.views)
    A = ct._operator(part.geometry, part.grid, FAST, torch.device("cpu"), WHOLE)
    assert isinstance(A, ByViews)
    assert {type(group) for group in A._groups} == {Unseen, ConeTransform}
    whole, x = projector(part.geometry, part.grid), random(*part.grid.shape).float()
    torch.testing.assert_close(A.forward(x), whole.forward(x), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(A.scaled(0.5).gram(x), 0.25 * whole.gram(x), rtol=1e-4, atol=1e-2)


def test_rules_of_streaming():
    gigabyte = 2**30
    assert streaming.views_at_once(100, 0.9 * streaming.AT_ONCE_BYTES) == 100
    assert streaming.views_at_once(100, gigabyte) == 25
    assert not streaming.lie_on_host(100 * gigabyte, 0)
    assert streaming.lie_on_host(6 * gigabyte, 80 * gigabyte)
    assert not streaming.lie_on_host(4 * gigabyte, 80 * gigabyte)


def test_an_estimate_says_what_is_used():
    shape, settings = (1024, 1024, 1024), ReconSettings()
    options = {"views": 720, "scanner": "cone-beam"}
    one = estimate(shape, settings, "sparse-view-ct", own_memory=48 * 10**9, **options)
    assert "data on the host, 40 views at a time" in one.text
    eight = estimate(shape, settings, "sparse-view-ct", own_memory=48 * 10**9, devices=8, **options)
    assert "8 devices, slabs of 128 slices" in eight.text
    assert "a device" in eight.text
    assert eight.memory_bytes < one.memory_bytes / 4
    few = estimate((64, 64, 64), settings, "sparse-view-ct", views=8, scanner="cone-beam")
    assert "view" not in few.text
    assert "device" not in few.text


@pytest.mark.parametrize("make", ["ct", "mr"])
def test_a_large_scan_is_mapped_and_not_read(make, tmp_path, monkeypatch):
    scan = mbir.simulate(body(), views=6) if make == "ct" else mri.scan()
    monkeypatch.setattr(hdf5, "LARGE_BYTES", 1000)
    scan.save(tmp_path / "scan.h5")
    read = mbir.read(tmp_path / "scan.h5")
    assert same_scan(read, scan)
    base = read.data if isinstance(read.data, np.memmap) else read.data.base
    assert isinstance(base, np.memmap)
    before = (tmp_path / "scan.h5").read_bytes()
    read.data[:] = 0  # stays in memory
    assert (tmp_path / "scan.h5").read_bytes() == before
    (tmp_path / "scan.h5").write_bytes(before[: len(before) // 2])
    with pytest.raises(InputError, match="scan.h5"):
        mbir.read(tmp_path / "scan.h5")


def test_a_large_scan_is_not_begun_on_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "LARGE_BYTES", 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(EngineError, match=r"needs .* GB, its disk has 0.0 GB left; make room"):
        mbir.simulate(body(), views=6).save(tmp_path / "scan.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_large_volume_is_not_compressed(suffix, tmp_path, monkeypatch):
    volume = body((4, 32, 32))
    sizes = []
    for limit in (2**30, 1000):
        monkeypatch.setattr(volumes, "LARGE_BYTES", limit)
        volume.save(tmp_path / f"{limit}{suffix}")
        sizes.append((tmp_path / f"{limit}{suffix}").stat().st_size)
        np.testing.assert_array_equal(mbir.read_volume(tmp_path / f"{limit}{suffix}").array, volume.array)
    assert sizes[0] < volume.array.nbytes < sizes[1]


@pytest.mark.parametrize("isocentre_mm", [None, (3.0, -2.0, 4.0)])
def test_the_slabs_of_a_grid_lie_where_they_do_in_the_whole(isocentre_mm):
    direction = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
    grid = Grid((7, 4, 6), (1.0, 1.5, 2.5), (3.0, 4.0, 5.0), direction, isocentre_mm)
    whole_z = (np.arange(7) - 3) * 2.5 + grid.off_isocentre_mm[2]
    for held in (slice(0, 3), slice(3, 4), slice(4, 7)):
        part = grid.slab(held)
        z = (np.arange(part.shape[0]) - (part.shape[0] - 1) / 2) * 2.5 + part.off_isocentre_mm[2]
        np.testing.assert_allclose(z, whole_z[held], atol=1e-12)
        np.testing.assert_allclose(part.off_isocentre_mm[:2], grid.off_isocentre_mm[:2], atol=1e-12)
        first = np.asarray(grid.origin_mm) + grid.matrix @ (0, 0, 2.5 * held.start)
        np.testing.assert_allclose(part.origin_mm, first)


def test_bounds_are_even():
    assert bounds_of(7, 4) == (0, 2, 4, 6, 7)
    assert bounds_of(8, 2) == (0, 4, 8)
    with pytest.raises(InputError, match="--devices 4: the volume has 3 slices only"):
        bounds_of(3, 4)


class _Part(Slabs):
    """One that says which slices it holds."""

    def mine(self, slices: int) -> slice:
        return slice(2, 5)


def test_random_numbers_of_a_slab_are_those_of_the_whole():
    whole, part = Space((6, 3, 4)), Space((3, 3, 4)).of_slab(_Part())
    assert torch.equal(part.uniform(5), whole.uniform(5)[2:5])
    assert torch.equal(part.noise(5, 1), whole.noise(5, 1)[2:5])


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "cgls"}, "method 'cgls' runs on one device only; many devices do dual, "),
        ({"method": "mbir", "published": True}, "setting published"),
        ({"metal_hu": 2500.0}, "setting metal_hu"),
        ({"projector": "astra"}, "projector 'astra'"),
    ],
)
def test_what_one_device_does_only_is_said(changes, words):
    from DiffusionMBIRLib.methods import require_slabs

    with pytest.raises(InputError, match=words) as error:
        require_slabs(mbir.simulate(body(), views=4), replace(FAST, **changes))
    assert "leave out --devices" in str(error.value)


def test_numbers_of_devices_are_checked(tmp_path, capsys):
    assert devices_asked("1", "auto") == 1
    assert devices_asked("3", "cpu") == 3
    for asked, device, words in (
        ("all", "cpu", "no CUDA device was found; for processes on the CPU give their number"),
        ("0", "cpu", "--devices 0: give all, or how many"),
        ("many", "cpu", "--devices many"),
        ("999", "cuda", "CUDA device(s) found; give at most as many"),
    ):
        with pytest.raises(InputError) as error:
            devices_asked(asked, device)
        assert words in str(error.value)
    mbir.simulate(body(), views=4).save(tmp_path / "scan.h5")
    command = ["reconstruct", str(tmp_path / "scan.h5"), "-o", str(tmp_path / "out.nrrd"), "--devices", "few"]
    assert main([*command, "--device", "cpu", "--quiet"]) == 2
    assert "--devices few" in capsys.readouterr().err
