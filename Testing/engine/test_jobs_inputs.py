"""A job gives what ``reconstruct`` gives, to the last bit, whatever it begins from: no field is lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.geometry import CartesianMRI, Grid, ParallelBeam
from DiffusionMBIRLib.io.scan_npz import read_npz
from DiffusionMBIRLib.jobs.asking import ask
from DiffusionMBIRLib.jobs.folder import INPUT, JobFolder
from DiffusionMBIRLib.jobs.messages import Finished
from DiffusionMBIRLib.scans import KSpace, Measurement, Scan, same_scan
from DiffusionMBIRLib.simulation.mr import coil_maps
from DiffusionMBIRLib.tasks import LIMITED_ANGLE, MR_TASK, SLICE_TASKS, SPARSE_VIEW, THIN_SLICES
from DiffusionMBIRLib.volume import Volume
from Testing.engine.helpers import body
from Testing.engine.jobs_helpers import run_apart, small_prior
from Testing.engine.mri import head

SAGITTAL = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)  # the slices of the array lie along x


@dataclass(frozen=True)
class Begun:
    """What a job begins from.  scan: what ``reconstruct`` is given instead.  choices: of the job."""

    source: Any
    scan: Scan
    choices: dict[str, Any] = field(default_factory=dict)
    task: str = ""
    grid: Grid | None = None


def sagittal() -> Volume:
    axial = body((12, 16, 6))
    return replace(axial, array=axial.array, grid=Grid((12, 16, 6), (2.0, 1.5, 3.0), (4.0, 5.0, 6.0), SAGITTAL))


def measurement() -> Measurement:
    """Of a sagittal volume: every field differs from its default."""
    made = mbir.simulate(sagittal(), views=11, photons=3e4, electronic_noise=2.0, mu_water_per_mm=0.021, seed=4)
    assert isinstance(made, Measurement)
    assert isinstance(made.geometry, ParallelBeam)
    middle = np.array(made.grid.origin_mm) + 7.0
    return replace(
        made,
        geometry=replace(made.geometry, offset_mm=0.7, angles_deg=tuple(a + 3.0 for a in made.geometry.angles_deg)),
        grid=replace(made.grid, isocentre_mm=tuple(middle)),
        task=LIMITED_ANGLE,
        provenance={**made.provenance, "remarks": ["one row was dark"]},
        name="upright scan",
    )


def kspace(**changes: Any) -> KSpace:
    made = mbir.simulate(head((3, 24, 20)), task=MR_TASK, coils=3, phase=True, noise=0.02, acs=0.5, seed=2)
    assert isinstance(made, KSpace)
    elsewhere = replace(made.grid, origin_mm=(-7.0, 8.0, 9.0))
    return replace(made, stored_grid=elsewhere, name="upright head", **changes)


def calibrated() -> KSpace:
    """Nothing was sampled in the middle; a block of a scan beside it tells the maps."""
    lines = np.zeros((24, 20), bool)
    lines[:, ::2] = True
    lines[:, 8:12:2] = False
    full = mbir.simulate(head((3, 24, 20)), task=MR_TASK, coils=3, mask=np.ones((24, 20), bool), noise=0.01, seed=2)
    assert isinstance(full, KSpace)
    return replace(
        full, data=full.data * lines, geometry=CartesianMRI(lines, 3), calibration=full.data[:, :, 4:20, 4:16]
    )


def in_file(scan: Scan, path: Path) -> Path:
    scan.save(path)
    return path


def begun(folder: Path) -> dict[str, Begun]:
    volume, upright, ct, mr = body((4, 16, 16)), sagittal(), measurement(), kspace()
    volume.save(folder / "volume.nrrd")
    of_volume = {"views": 7, "photons": 2e4, "seed": 5, "coarsen": 2}
    coils = {"coils": 2, "acceleration": 1.5, "noise": 0.01, "phase": True, "acs": 0.5, "seed": 3}
    with_maps = kspace(maps=coil_maps(mr.grid, 3), noise_std=0.5)
    of_mr = mbir.simulate(head((3, 24, 20)), task=MR_TASK, **coils)
    file = in_file(mr, folder / "mr.npz")
    thick = replace(sagittal(), grid=Grid((12, 16, 6), (2.0, 1.5, 5.0), (4.0, 5.0, 6.0), SAGITTAL))
    slices = mbir.simulate(sagittal(), task=THIN_SLICES, thickness_mm=6.0, profile="gaussian")
    return {
        "an array": Begun(volume.array, mbir.simulate(volume, **of_volume), of_volume, SPARSE_VIEW, volume.grid),
        "a sagittal volume": Begun(upright, mbir.simulate(upright, views=5, seed=0), {"views": 5}),
        "a file of a volume": Begun(folder / "volume.nrrd", mbir.simulate(volume, **of_volume), of_volume),
        "a measurement": Begun(ct, ct),
        "a file of a measurement": Begun(in_file(ct, folder / "ct.h5"), ct),
        "a volume of magnitudes": Begun(head((3, 24, 20)), of_mr, coils, MR_TASK),
        "k-space": Begun(mr, mr),
        "k-space with maps": Begun(with_maps, with_maps),
        "k-space with one map": Begun(*2 * (kspace(maps=coil_maps(mr.grid, 3)[1:2]),)),
        "k-space with a calibration": Begun(*2 * (calibrated(),)),
        "a file of k-space": Begun(file, mr),
        "thick slices": Begun(thick, mbir.thick_slices(thick, spacing_mm=2.0), {"spacing_mm": 2.0}, THIN_SLICES),
        "a file of thick slices": Begun(in_file(slices, folder / "slices.h5"), slices),
    }


TV = {"method": "admm-tv", "tv_sweeps": 4}
DDS = {"method": "dds", "steps": 2, "start_sweeps": 2, "sigma_start": 0.3, "slices_per_batch": 2}
CASES = [
    "an array", "a sagittal volume", "a file of a volume", "a measurement", "a file of a measurement",
    "a volume of magnitudes", "k-space", "k-space with maps", "k-space with one map", "k-space with a calibration",
    "a file of k-space", "thick slices", "a file of thick slices",
]  # fmt: skip
PLANES = {"method": "planes", "steps": 2, "slices_per_batch": 2}  # of thick slices, instead of dds
METHODS: dict[str, dict[str, Any]] = {"admm-tv": TV, "dds": DDS}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Begun, JobFolder]]:
    """All jobs, run one after the other in one process."""
    folder = tmp_path_factory.mktemp("inputs")
    priors = {modality: str(small_prior(folder, modality=modality, name=modality)) for modality in ("CT", "MR")}
    made = {}
    for name, case in begun(folder).items():
        for method, usual in METHODS.items():
            settings = PLANES if method == "dds" and case.scan.task in SLICE_TASKS else usual
            choices = {"device": "cpu", "prior": priors[case.scan.modality], **case.choices, **settings}
            asked = ask(case.source, task=case.task or None, grid=case.grid, choices=choices)
            made[name, method] = case, JobFolder.create(folder / "jobs", *asked)
    run_apart([job for _, job in made.values()], folder / "data")
    return made


@pytest.mark.slow
def test_no_case_is_left_out(done):
    assert {name for name, _ in done} == set(CASES)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_a_job_gives_what_reconstruct_gives(done, name, method, tmp_path):
    case, job = done[name, method]
    last = job.last_word()
    assert isinstance(last, Finished), last
    direct = mbir.reconstruct(case.scan, settings=job.request.recon_settings(), device="cpu")
    direct.volume.save(tmp_path / "direct.nrrd")
    expected, found = mbir.read_volume(tmp_path / "direct.nrrd"), mbir.read_volume(job.result_path)
    np.testing.assert_array_equal(found.array, expected.array)
    assert found.grid == expected.grid
    assert found.unit == expected.unit
    assert (last.residual, last.nfe) == (direct.residual, direct.nfe)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a measurement", "k-space", "k-space with maps", "k-space with a calibration"])
def test_what_lies_in_the_folder_is_the_scan_with_every_field(done, name):
    case, job = done[name, "dds"]
    assert same_scan(read_npz(job.path / INPUT), case.scan)
    assert job.request.task == case.scan.task


Change = Callable[[Any], Scan]
MATTER: dict[str, tuple[Callable[[], Scan], Change]] = {
    "photons": (measurement, lambda scan: replace(scan, photons=0.0)),
    "mu_water_per_mm": (measurement, lambda scan: replace(scan, mu_water_per_mm=0.02)),
    "offset_mm": (measurement, lambda scan: replace(scan, geometry=replace(scan.geometry, offset_mm=0.0))),
    "isocentre_mm": (measurement, lambda scan: replace(scan, grid=replace(scan.grid, isocentre_mm=None))),
    "stored_grid": (measurement, lambda scan: replace(scan, stored_grid=None)),
    "stored_grid of k-space": (kspace, lambda scan: replace(scan, stored_grid=None)),
    "maps": (lambda: kspace(maps=coil_maps(kspace().grid, 3)), lambda scan: replace(scan, maps=None)),
}


@pytest.mark.parametrize("what", MATTER)
def test_a_field_that_were_lost_would_show(what):
    """So that the equality above is worth something."""
    make, change = MATTER[what]
    scan = make()
    settings = mbir.ReconSettings(**TV, device="cpu")
    a, b = (mbir.reconstruct(given, settings=settings).volume for given in (scan, change(scan)))
    assert a.grid != b.grid or not np.array_equal(a.array, b.array)
