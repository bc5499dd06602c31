"""One table of the settings of a scan: what simulate, the command line and jobs make of it."""

from __future__ import annotations

import inspect
import math
import os
import subprocess
import sys
from dataclasses import asdict, fields

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.jobs.asking import ask
from DiffusionMBIRLib.simulation.settings import SCANS, CTScan, MRScan, scan_names, scan_settings, scanner_settings
from DiffusionMBIRLib.tasks import CT_TASKS, LIMITED_ANGLE, MR_TASK, SPARSE_VIEW, TASKS, task_info
from Testing.engine.helpers import ROOT, body
from Testing.engine.mri import head

CT = {
    "--scanner": ("scanner", "fan-beam"),
    "--views": ("views", 5),
    "--angle-range": ("angle_range_deg", 120.0),
    "--sod": ("sod_mm", 400.0),
    "--sdd": ("sdd_mm", 700.0),
    "--pitch": ("pitch", 0.9),
    "--coarsen": ("coarsen", 2),
    "--photons": ("photons", 1e4),
    "--electronic-noise": ("electronic_noise", 5.0),
    "--axis-error": ("axis_error_mm", 0.5),
    "--dead-pixels": ("dead_pixels", 0.01),
    "--mu-water": ("mu_water_per_mm", 0.02),
}
MR = {
    "--acceleration": ("acceleration", 3.0),
    "--acs": ("acs", 0.2),
    "--mask": ("mask", "equispaced"),
    "--coils": ("coils", 2),
    "--noise": ("noise", 0.02),
}


def simulated(tmp_path, volume, task, options):
    """The record of a scan that the command line made."""
    volume.save(tmp_path / "volume.nrrd")
    words = [str(word) for option, (_, value) in options.items() for word in (option, value)]
    arguments = ["simulate", str(tmp_path / "volume.nrrd"), "-o", str(tmp_path / "scan.h5"), "--task", task, "--quiet"]
    assert main([*arguments, "--seed", "3", *words]) == 0
    return mbir.read(tmp_path / "scan.h5").provenance


@pytest.mark.parametrize("task", CT_TASKS)
def test_every_option_of_a_ct_reaches_the_scan(tmp_path, task):
    record = simulated(tmp_path, body((2, 32, 32)), task, CT)
    assert record["settings"] == {"task": task, **dict(CT.values())}
    assert record["seed"] == 3
    assert set(dict(CT.values())) == set(scan_names(task))


def test_every_option_of_an_mri_reaches_the_scan(tmp_path, capsys):
    record = simulated(tmp_path, head((2, 32, 32)), MR_TASK, MR)
    cartesian = {"trajectory": "cartesian", "spokes": 0, "arms": 0}
    assert record["settings"] == {"task": MR_TASK, "phase": False, **cartesian, **dict(MR.values())}
    command = ["simulate", str(tmp_path / "volume.nrrd"), "-o", str(tmp_path / "scan.h5"), "--task", MR_TASK, "--quiet"]
    assert main([*command, "--views", "8"]) == 2
    assert "setting views is for CT only" in capsys.readouterr().err
    assert main([*command, "--phase"]) == 0
    assert mbir.read(tmp_path / "scan.h5").provenance["settings"]["phase"] is True


def test_simulate_takes_each_setting_by_name():
    names = set(inspect.signature(mbir.simulate).parameters) - {"volume", "task", "device", "monitor", "seed"}
    assert names == {item.name for table in SCANS.values() for item in fields(table)}


@pytest.mark.parametrize("task", CT_TASKS)
def test_a_job_asks_for_what_simulate_does(task):
    volume, choices = body((2, 16, 16)), {"views": 7, "photons": 1e5}
    request, _ = ask(volume, task=task, choices=choices)
    record = mbir.simulate(volume, task=task, **choices).provenance["settings"]
    assert {"task": task, **asdict(request.scan_settings())} == record


def test_what_is_left_out_is_usual_for_the_task():
    for task in TASKS:
        assert scan_settings(task) == scan_settings(task, dict.fromkeys(scan_names(task)))
        assert {name: getattr(scan_settings(task), name) for name in task_info(task).usual} == task_info(task).usual
    assert scan_settings(LIMITED_ANGLE) != scan_settings(SPARSE_VIEW)
    assert scan_settings(LIMITED_ANGLE, {"views": 30}) == CTScan(views=30, angle_range_deg=90.0)
    assert scan_settings(MR_TASK) == MRScan()


def test_numbers_may_be_of_numpy_and_keep_their_kind():
    scan = scan_settings(SPARSE_VIEW, {"views": np.int64(12), "photons": np.float32(1000), "angle_range_deg": 90})
    assert [type(v) for v in (scan.views, scan.photons, scan.angle_range_deg)] == [int, float, float]
    assert mbir.simulate(body((1, 8, 8)), views=np.int32(3)).geometry.views == 3


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        (SPARSE_VIEW, {"views": 0}, "setting views: 0 lies outside"),
        (SPARSE_VIEW, {"photons": 0.5}, "setting photons: 0.5 is neither 0"),
        (SPARSE_VIEW, {"photons": math.nan}, "setting photons: nan lies outside"),
        (SPARSE_VIEW, {"electronic_noise": 2.0}, "setting electronic_noise: .* set photons as well"),
        (SPARSE_VIEW, {"dead_pixels": 0.1}, "setting dead_pixels: .* set photons as well"),
        (SPARSE_VIEW, {"scanner": "fun"}, "setting scanner: 'fun' is not one of .*fan-beam, "),
        (SPARSE_VIEW, {"sod_mm": 500.0, "sdd_mm": 400.0}, "setting sod_mm: 500 is above sdd_mm 400"),
        (SPARSE_VIEW, {"coils": 1}, "setting coils is for MR only, not for the task sparse-view-ct"),
        (MR_TASK, {"views": 8}, "setting views is for CT only, not for the task compressed-sensing-mri"),
        (MR_TASK, {"phase": 1}, "setting phase: 1 is neither true nor false"),
        (MR_TASK, {"vews": 8}, "setting 'vews' is not one of a simulated scan"),
        ("pet", {}, "task 'pet' is not known; use one of sparse-view-ct"),
    ],
)
def test_what_does_not_fit_is_named(task, given, message):
    with pytest.raises(InputError, match=message):
        scan_settings(task, given)


def test_a_mask_of_ones_own_is_for_mri_only():
    with pytest.raises(InputError, match="setting mask is for MR only"):
        mbir.simulate(body((1, 8, 8)), mask=np.ones((8, 8), bool))


def test_a_setting_that_is_on_can_be_turned_off(tmp_path):
    mbir.write(mbir.simulate(body((2, 16, 16)), views=8), tmp_path / "scan.h5")
    options = ["--method", "fbp", "--no-weigh-spacing", "--no-share-variables", "--quiet"]
    assert main(["reconstruct", str(tmp_path / "scan.h5"), "-o", str(tmp_path / "out.nrrd"), *options]) == 0
    assert '"weigh_spacing": false' in mbir.read_volume(tmp_path / "out.nrrd").metadata["provenance"]


def test_neither_the_command_line_nor_the_tables_bring_torch():
    code = (
        "import sys, DiffusionMBIRLib.cli, DiffusionMBIRLib.describe, DiffusionMBIRLib.simulation\n"
        "try:\n    DiffusionMBIRLib.cli.main(['job', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted(set(sys.modules) & {'torch', 'SimpleITK', 'h5py', 'safetensors', 'scipy'}))\n"
    )
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_scanners_have_short_names_and_their_own_range():
    assert [scan_settings(SPARSE_VIEW, {"scanner": name}).scanner for name in ("fan", "cone", "helical")] == [
        "fan-beam",
        "cone-beam",
        "helical",
    ]
    ranges = {name: scan_settings(SPARSE_VIEW, {"scanner": name}).angle_range_deg for name in ("parallel", "fan")}
    assert ranges == {"parallel": 180.0, "fan": 360.0}  # beams from a point see every line in a whole turn
    assert scan_settings(SPARSE_VIEW, {"scanner": "fan", "angle_range_deg": 180}).angle_range_deg == 180.0
    assert scan_settings(LIMITED_ANGLE, {"scanner": "fan"}).angle_range_deg == 90.0
    assert scanner_settings("parallel-beam") == ()
    assert scanner_settings("fan") == ("sod_mm", "sdd_mm")
    assert scanner_settings("helical") == ("sod_mm", "sdd_mm", "pitch")
