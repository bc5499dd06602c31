"""What a run will need is told beforehand: exact counts of the network, and times at a pace that is given."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.estimate import Needs, duration, estimate, evaluations, stages
from DiffusionMBIRLib.geometry import CartesianMRI, Grid, HelicalCone, TrajectoryMRI, view_angles
from DiffusionMBIRLib.methods import methods_for
from DiffusionMBIRLib.models import MR_VALUE
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.rates import Pace
from DiffusionMBIRLib.simulation.settings import MRScan
from DiffusionMBIRLib.tasks import (
    CT_TASKS,
    LIMITED_ANGLE,
    MR_TASK,
    SLICE_TASKS,
    SPARSE_VIEW,
    TASKS,
    THIN_SLICES,
    THIN_SLICES_MR,
    task_info,
)
from Testing.engine.helpers import ROOT, body

SHAPE = (180, 256, 256)
PACE = Pace(network=1e-6, solver=1e-10, start_s=0.0)


def seconds(*arguments, pace=PACE, **options) -> float:
    found = estimate(*arguments, pace=pace, **options).seconds
    assert found is not None
    return found


def test_the_line_before_a_run():
    found = estimate(SHAPE, ReconSettings(), SPARSE_VIEW, device_memory=8_000_000_000, pace=PACE)
    assert found.text.startswith("256 x 256 x 180, needs ")
    assert " of 8.0 GB, about " in found.text
    assert found.text.endswith(" on this machine")
    assert 0.5e9 < found.memory_bytes < 3e9
    assert found.seconds == pytest.approx(20 * 180 * 256**2 * 1e-6, rel=0.1)


def test_too_little_memory_is_said():
    found = estimate(SHAPE, ReconSettings(), SPARSE_VIEW, device_memory=500_000_000)
    assert "more than there is" in found.text


def test_no_time_is_told_before_the_pace_of_the_run_is_known():
    diffusion, classical = ReconSettings(), ReconSettings(method="sirt")
    for pace in (None, Pace(), Pace(network=1e-6), Pace(solver=1e-10)):
        found = estimate(SHAPE, diffusion, SPARSE_VIEW, pace=pace)
        assert found.seconds is None
        assert found.text.endswith("time not known before the first run")
    assert seconds(SHAPE, classical, SPARSE_VIEW, pace=Pace(solver=1e-9)) > 0
    assert estimate(SHAPE, classical, SPARSE_VIEW, pace=Pace(network=1e-7)).seconds is None


@pytest.mark.parametrize("task", TASKS)
def test_more_work_takes_longer_and_more_memory(task):
    for method in methods_for(task):
        settings = ReconSettings(method=method)
        shapes = ((10, 64, 64), (20, 128, 128))
        small, large = (seconds(shape, settings, task) for shape in shapes)
        assert 0 < small < large
        little, much = (estimate(shape, settings, task).memory_bytes for shape in shapes)
        assert 0 < little < much
    many, few = ReconSettings(steps=100), ReconSettings(steps=10)
    assert seconds(SHAPE, many, task) > 5 * seconds(SHAPE, few, task)
    assert estimate(SHAPE, many, task).memory_bytes == estimate(SHAPE, few, task).memory_bytes


@pytest.mark.parametrize("task", TASKS)
def test_a_machine_of_half_the_pace_takes_twice_as_long(task):
    for method in methods_for(task):
        settings = ReconSettings(method=method)
        slow = replace(PACE, network=2e-6, solver=2e-10)
        assert seconds(SHAPE, settings, task, pace=slow) == pytest.approx(2 * seconds(SHAPE, settings, task))


# --- network evaluations


@pytest.fixture(scope="module")
def scans():
    volume, deep = body((2, 16, 16)), body((8, 16, 16))
    magnitudes = mbir.Volume(volume.array + 1000, volume.grid, unit="", name="head")
    return {
        SPARSE_VIEW: mbir.simulate(volume, task=SPARSE_VIEW, views=8),
        LIMITED_ANGLE: mbir.simulate(volume, task=LIMITED_ANGLE, views=12),
        MR_TASK: mbir.simulate(magnitudes, task=MR_TASK, acs=0.4),
        THIN_SLICES: mbir.simulate(deep, task=THIN_SLICES, thickness_mm=9.0),
        THIN_SLICES_MR: mbir.simulate(replace(deep, unit=""), task=THIN_SLICES_MR, thickness_mm=9.0),
    }


RAW = (*CT_TASKS, MR_TASK)
CASES = [
    *((task, {"method": method}) for task in RAW for method in ("dual", "dds", "mbir", "mbir-slow")),
    *((task, {"method": method}) for task in SLICE_TASKS for method in ("planes", "spline", "admm-tv")),
    *((task, {"method": "planes", "samples": 2}) for task in SLICE_TASKS),
    (SPARSE_VIEW, {"method": "dual", "antithetic": True, "samples": 2}),
    (SPARSE_VIEW, {"method": "score-ct"}),
    (MR_TASK, {"method": "score-mri"}),
    *((SPARSE_VIEW, {"method": method, "steps": 1}) for method in ("dual", "dds", "mbir", "score-ct")),
    *(
        (SPARSE_VIEW, {"method": method, "sigma_start": 0.1, "sigma_end": 0.1})
        for method in ("dual", "dds", "mbir", "score-ct")
    ),
    (SPARSE_VIEW, {"method": "mbir", "sigma_end": 0.155}),  # below the usual first level of 8 views
    (LIMITED_ANGLE, {"method": "mbir", "sigma_end": 0.155}),  # above that of 12
    (MR_TASK, {"method": "mbir", "sigma_end": 0.5}),
    *((task, {"method": "mbir", "published": True}) for task in RAW),
    (SPARSE_VIEW, {"method": "dds", "published": True, "steps": 30}),
    (MR_TASK, {"method": "dds", "published": True}),
    (MR_TASK, {"method": "dds", "complex_prior": "real-imaginary"}),
    (MR_TASK, {"method": "mbir", "complex_prior": "phase", "published": True}),
    (SPARSE_VIEW, {"method": "mbir", "samples": 2}),
    *((SPARSE_VIEW, {"method": method}) for method in ("fbp", "sirt", "admm-tv")),
]


@pytest.mark.parametrize(("task", "changes"), CASES)
def test_evaluations_are_those_that_a_run_counts(scans, task, changes):
    start = {"start": "noise", "tv_sweeps": 1, "sirt_iterations": 1, "cg_steps": 1}
    settings = ReconSettings(**{**start, "steps": 3, **changes})
    prior = GaussianPrior(0.3, 0.1, **({"value": MR_VALUE} if task_info(task).modality == "MR" else {}))
    prior.sigma_max = 200.0  # that of DDPM's last step lies above the usual one
    result = mbir.reconstruct(scans[task], prior=prior, settings=settings)
    views = getattr(scans[task].geometry, "views", None)
    assert evaluations(settings, task, views=views) == result.nfe


def test_stages_are_in_order():
    def names(**settings):
        return list(stages(SHAPE, ReconSettings(**settings), SPARSE_VIEW, pace=PACE))

    assert names() == ["prepare", "ADMM-TV", "diffusion"]
    assert names(start="fbp") == ["prepare", "diffusion"]
    assert names(method="sirt") == ["prepare", "SIRT"]
    assert names(method="os-sart") == ["prepare", "subsets", "OS-SART"]
    assert next(iter(stages(SHAPE, ReconSettings(), SPARSE_VIEW, pace=PACE, simulated=True))) == "simulate"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.1, "1 s"), (59, "59 s"), (180, "3 min"), (5300, "88 min"), (5400, "1.5 h")]
)
def test_durations_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_neither_the_estimate_nor_the_client_brings_torch():
    code = (
        "import sys\n"
        "import DiffusionMBIRLib.estimate, DiffusionMBIRLib.jobs.client, DiffusionMBIRLib.jobs.issue_report\n"
        "print(sorted(set(sys.modules) & {'torch', 'SimpleITK', 'h5py', 'safetensors', 'scipy'}))\n"
    )
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


def test_coils_of_mri_cost_time_and_memory_and_views_do_not():
    for method in ("admm-tv", "sense-cg", "dds"):
        chosen = ReconSettings(method=method)
        one, eight = (estimate(SHAPE, chosen, MR_TASK, coils=n, pace=PACE) for n in (1, 8))
        assert one.seconds is not None
        assert eight.seconds is not None
        assert one.seconds < eight.seconds
        assert one.memory_bytes < eight.memory_bytes
        assert estimate(SHAPE, chosen, MR_TASK, coils=1, views=90, pace=PACE) == one


def test_a_helix_counts_the_views_that_see_little_of_a_slice():
    """Small volumes take most of their views to look past them; a scan that is measured tells how many there are."""

    def time_of(slices, **scan):
        return seconds((slices, 64, 64), ReconSettings(method="sirt"), SPARSE_VIEW, pace=PACE, views=60, **scan)

    usual = HelicalCone.covering(Grid((16, 8, 8)), view_angles(60, 360.0))
    assert usual.views_in_all(60, 16) == pytest.approx(usual.views, abs=1)
    assert time_of(16, scanner="helical") == pytest.approx(time_of(16, scanner="helical", views_in_all=121), rel=0.02)
    assert time_of(16, scanner="helical") > 1.4 * time_of(16, scanner="cone-beam")
    assert time_of(16, scanner="helical", views_in_all=500) > 2 * time_of(16, scanner="helical")
    assert time_of(512, scanner="helical") < 2 * time_of(512, scanner="cone-beam")


def test_trajectories_take_longer_than_lines_and_more_with_coils():
    def needs(scanner: str, coils: int = 8) -> Needs:
        settings = ReconSettings(method="admm-tv")
        return estimate((12, 192, 192), settings, MR_TASK, coils=coils, scanner=scanner, pace=Pace(solver=1e-9))

    lines, path, one = needs(CartesianMRI.KIND), needs(TrajectoryMRI.KIND), needs(TrajectoryMRI.KIND, 1)
    assert lines.seconds is not None
    assert path.seconds is not None
    assert one.seconds is not None
    assert 4 * lines.seconds < path.seconds < 20 * lines.seconds
    assert lines.memory_bytes < path.memory_bytes
    assert one.seconds < 0.4 * path.seconds
    assert MRScan(trajectory="radial").scanner == MRScan(trajectory="spiral").scanner == TrajectoryMRI.KIND
    assert MRScan().scanner == CartesianMRI.KIND
